"""Channels of an activation brought nearer to each other, so that one scale fits them all.

A few channels of a pretrained encoder are ten times the others. Dividing each by the root of its magnitude
and multiplying the weights that read it changes no product (SmoothQuant, Xiao et al. 2023). Where something
linear makes the activation, the division is folded into that: a norm before products, the values of
attention, the matrix before a ReLU. The rest is divided in the graph.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from rankserve.exporter.compact.ranges import ChannelRange
from rankserve.exporter.compact.transformer import Array, Layer, Linear, Norm, Transformer

# Quiet channels are raised by no more, lest what the measured prompts left quiet be clipped elsewhere.
_LEAST_SCALE = 0.25


def smooth(
    transformer: Transformer, ranges: Mapping[str, ChannelRange]
) -> tuple[Transformer, dict[str, ChannelRange], dict[str, Array]]:
    """The same ranker with smoother activations.

    Args:
        transformer: the ranker.
        ranges: of its activations, by site.

    Returns:
        The ranker with what could be folded; ranges after all divisions; scales [width] of the sites that the
        graph must divide by itself, whose weights are to be multiplied in turn.
    """
    scales = {site: _scale(channels) for site, channels in ranges.items()}
    divided = {site: channels.divided(scales[site]) for site, channels in ranges.items()}
    layers = []
    for number, layer in enumerate(transformer.layers):
        name = f"layer{number}"
        layer = _fold_values(layer, scales.pop(f"{name}_attention_output_input"))
        if transformer.activation == "Relu":
            layer = _fold_relu(layer, scales.pop(f"{name}_feed_forward_hidden"))
        if transformer.pre_norm:
            layer = _fold_norms(
                layer, scales.pop(f"{name}_attention_input"), scales.pop(f"{name}_feed_forward_input")
            )
        layers.append(layer)
    return replace(transformer, layers=tuple(layers)), divided, scales


def _scale(channels: ChannelRange) -> Array:
    magnitude = channels.magnitude
    largest = magnitude.max()
    if largest == 0:
        return np.ones_like(magnitude)
    scale: Array = np.sqrt(magnitude / largest).clip(min=_LEAST_SCALE)
    return scale


def _fold_values(layer: Layer, scale: Array) -> Layer:
    return replace(
        layer,
        value=_outputs_divided(layer.value, scale),
        attention_output=inputs_multiplied(layer.attention_output, scale),
    )


def _fold_relu(layer: Layer, scale: Array) -> Layer:
    return replace(
        layer, widen=_outputs_divided(layer.widen, scale), narrow=inputs_multiplied(layer.narrow, scale)
    )


def _fold_norms(layer: Layer, attention: Array, feed_forward: Array) -> Layer:
    return replace(
        layer,
        attention_norm=_norm_divided(layer.attention_norm, attention),
        query=inputs_multiplied(layer.query, attention),
        key=inputs_multiplied(layer.key, attention),
        value=inputs_multiplied(layer.value, attention),
        feed_forward_norm=_norm_divided(layer.feed_forward_norm, feed_forward),
        widen=inputs_multiplied(layer.widen, feed_forward),
    )


def inputs_multiplied(linear: Linear, scale: Array) -> Linear:
    """For an activation that was divided by `scale`."""
    return replace(linear, weight=linear.weight * scale[:, None])


def _outputs_divided(linear: Linear, scale: Array) -> Linear:
    return Linear(linear.weight / scale, linear.bias / scale)


def _norm_divided(norm: Norm, scale: Array) -> Norm:
    return replace(norm, weight=norm.weight / scale, bias=norm.bias / scale)
