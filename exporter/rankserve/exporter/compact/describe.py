"""The known architectures, from Hugging Face's modules to plain arrays."""

from typing import Any, Literal

import numpy as np
from torch import Tensor, nn
from transformers import BertForSequenceClassification, OPTForSequenceClassification

from rankserve.exporter.compact.transformer import Array, Layer, Linear, Norm, Transformer
from rankserve.trainer.model import RankerModel

_ACTIVATIONS: dict[str, Literal["Relu", "Gelu"]] = {"relu": "Relu", "gelu": "Gelu"}


def describe(model: RankerModel) -> Transformer | None:
    """The ranker's weights and wiring; None if it is of no known architecture.

    That the description is right is for `check_parity` to say.
    """
    if isinstance(model.classifier, OPTForSequenceClassification):
        return _opt(model)
    if isinstance(model.classifier, BertForSequenceClassification):
        return _bert(model)
    return None


def _opt(model: RankerModel) -> Transformer | None:
    classifier: Any = model.classifier
    config, decoder = model.config, classifier.model.decoder
    activation = _ACTIVATIONS.get(config.activation_function)
    if activation is None:
        return None
    layers = tuple(
        Layer(
            query=_linear(layer.self_attn.q_proj),
            key=_linear(layer.self_attn.k_proj),
            value=_linear(layer.self_attn.v_proj),
            attention_output=_linear(layer.self_attn.out_proj),
            attention_norm=_norm(layer.self_attn_layer_norm),
            widen=_linear(layer.fc1),
            narrow=_linear(layer.fc2),
            feed_forward_norm=_norm(layer.final_layer_norm),
        )
        for layer in decoder.layers
    )
    return Transformer(
        tokens=_array(decoder.embed_tokens.weight),
        # OPT's table begins with an unused row and that of tokens before the first.
        positions=_array(decoder.embed_positions.weight)[1:],
        embedding_norm=None,
        project_in=_linear(decoder.project_in) if decoder.project_in is not None else None,
        layers=layers,
        heads=config.num_attention_heads,
        causal=True,
        pre_norm=config.do_layer_norm_before,
        activation=activation,
        final_norm=_norm(decoder.final_layer_norm) if decoder.final_layer_norm is not None else None,
        project_out=_linear(decoder.project_out) if decoder.project_out is not None else None,
        pooling="mean" if model.pooling == "mean" else "last",
        dense=None,
        head=_linear(classifier.score),
    )


def _bert(model: RankerModel) -> Transformer | None:
    classifier: Any = model.classifier
    config, bert = model.config, classifier.bert
    activation = _ACTIVATIONS.get(config.hidden_act)
    absolute = getattr(config, "position_embedding_type", "absolute") == "absolute"
    if activation is None or config.is_decoder or not absolute:
        return None
    embeddings = bert.embeddings
    positions = _array(embeddings.position_embeddings.weight)
    layers = tuple(
        Layer(
            query=_linear(layer.attention.self.query),
            key=_linear(layer.attention.self.key),
            value=_linear(layer.attention.self.value),
            attention_output=_linear(layer.attention.output.dense),
            attention_norm=_norm(layer.attention.output.LayerNorm),
            widen=_linear(layer.intermediate.dense),
            narrow=_linear(layer.output.dense),
            feed_forward_norm=_norm(layer.output.LayerNorm),
        )
        for layer in bert.encoder.layer
    )
    return Transformer(
        tokens=_array(embeddings.word_embeddings.weight),
        positions=np.concatenate([np.zeros_like(positions[:1]), positions])
        + _array(embeddings.token_type_embeddings.weight)[0],
        embedding_norm=_norm(embeddings.LayerNorm),
        project_in=None,
        layers=layers,
        heads=config.num_attention_heads,
        causal=False,
        pre_norm=False,
        activation=activation,
        final_norm=None,
        project_out=None,
        pooling="mean" if model.pooling == "mean" else "first",
        dense=None if model.pooling == "mean" else _linear(bert.pooler.dense),
        head=_linear(classifier.classifier),
    )


def _linear(module: nn.Linear) -> Linear:
    weight = _array(module.weight).T
    bias = np.zeros(weight.shape[1], dtype=np.float32) if module.bias is None else _array(module.bias)
    return Linear(weight, bias)


def _norm(module: nn.LayerNorm) -> Norm:
    width = module.normalized_shape[0]
    weight = np.ones(width, dtype=np.float32) if module.weight is None else _array(module.weight)
    bias = np.zeros(width, dtype=np.float32) if module.bias is None else _array(module.bias)
    return Norm(weight, bias, module.eps)


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().float().numpy()
    return array
