"""A ranker as plain arrays: what `compose` needs to know of an OPT or BERT."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(slots=True, frozen=True)
class Linear:
    """x @ weight + bias; weight [inputs, outputs], bias [outputs]."""

    weight: Array
    bias: Array


@dataclass(slots=True, frozen=True)
class Norm:
    """Layer normalisation; weight and bias [width]."""

    weight: Array
    bias: Array
    epsilon: float


@dataclass(slots=True, frozen=True)
class Layer:
    """One block. Its norms come before what they are named after, or after it, as the transformer says."""

    query: Linear
    key: Linear
    value: Linear
    attention_output: Linear
    attention_norm: Norm
    widen: Linear
    narrow: Linear
    feed_forward_norm: Norm


@dataclass(slots=True, frozen=True)
class Transformer:
    """A ranker's weights and wiring.

    Attributes:
        tokens: embeddings [vocabulary, width].
        positions: embeddings [1 + longest, width]; row n is of a prompt's nth token, counted from 1.
        embedding_norm: after the embeddings.
        project_in: from the embeddings' width to the layers'.
        layers: at least one.
        heads: of each layer's attention.
        causal: a token sees those before it and itself, not those after it.
        pre_norm: norms come before attention and feed-forward, not after the sum.
        activation: of the feed-forward.
        final_norm: after the last layer.
        project_out: from the layers' width to the head's.
        pooling: which token's state is scored, or the mean of all.
        dense: before the head, followed by tanh.
        head: to the one score.
    """

    tokens: Array
    positions: Array
    embedding_norm: Norm | None
    project_in: Linear | None
    layers: tuple[Layer, ...]
    heads: int
    causal: bool
    pre_norm: bool
    activation: Literal["Relu", "Gelu"]
    final_norm: Norm | None
    project_out: Linear | None
    pooling: Literal["first", "last", "mean"]
    dense: Linear | None
    head: Linear

    @property
    def width(self) -> int:
        """Of the layers."""
        return int(self.layers[0].query.weight.shape[0])
