"""Attention among prompts of any lengths that lie one behind the other, without padding.

On a CPU padding costs what tokens cost: in lists of 64 instructions it was 28 % of all that was computed, in
parts of at most 1,536 tokens. Everything but attention treats tokens alike, so all of a list's tokens go
through a layer as one long row, and attention alone looks at each length by itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, OPTForSequenceClassification, PreTrainedModel
from transformers.models.opt.modeling_opt import eager_attention_forward

_NAME = "rankserve_ragged"


@dataclass(slots=True, frozen=True)
class Ragged:
    """The tokens of several prompts one behind the other, and neighbours of equal length as groups.

    Attributes:
        input_ids: int64 [tokens].
        positions: int64 [tokens], of each token in its prompt.
        lengths: int64 [prompts].
        groups: prompts and tokens a prompt of each run of equal lengths.
    """

    input_ids: Tensor
    positions: Tensor
    lengths: Tensor
    groups: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, parts: Sequence[tuple[Tensor, Tensor]]) -> Self:
        """Of padded batches, input ids and attention mask of each; a prompt without a token counts as one."""
        input_ids, lengths, positions = [], [], []
        for ids, mask in parts:
            attended = mask.bool()
            attended[:, 0] |= ~attended.any(dim=1)
            input_ids.append(ids[attended])
            lengths.append(attended.sum(dim=1))
            positions.append((attended.cumsum(dim=1) - 1)[attended])
        all_lengths = torch.cat(lengths)
        values, counts = torch.unique_consecutive(all_lengths, return_counts=True)
        groups = tuple(zip(counts.tolist(), values.tolist(), strict=True))
        return cls(torch.cat(input_ids), torch.cat(positions), all_lengths, groups)


def use_ragged_attention(classifier: PreTrainedModel) -> None:
    """Makes ``ragged_states`` possible for an OPT, which attends to padded batches eagerly then."""
    # An OPT that drops layers is left to Hugging Face's own loop over them.
    if isinstance(classifier, OPTForSequenceClassification) and not classifier.config.layerdrop:
        classifier.set_attn_implementation(_NAME)


def has_ragged_attention(classifier: PreTrainedModel) -> bool:
    """Whether ``use_ragged_attention`` was called for it."""
    return bool(classifier.config._attn_implementation == _NAME)


def ragged_states(classifier: PreTrainedModel, ragged: Ragged, *, only_last: bool) -> Tensor:
    """The last hidden states of an OPT that has ragged attention.

    Args:
        classifier: the OPT.
        ragged: prompts.
        only_last: those of each prompt's last token, which spares most of the top layer.

    Returns:
        [prompts, hidden] with ``only_last``, else [tokens, hidden].
    """
    # Hugging Face's modules have no types.
    decoder: Any = classifier.base_model.decoder
    states: Tensor = decoder.embed_tokens(ragged.input_ids[None])
    if decoder.project_in is not None:
        states = decoder.project_in(states)
    states = states + decoder.embed_positions(None, position_ids=ragged.positions[None])
    *layers, top = decoder.layers
    for layer in layers:
        states = layer(states, groups=ragged.groups)[0]
    last = ragged.lengths.cumsum(dim=0) - 1
    keys_and_values = _KeysAndValues(top, states) if only_last else None
    states = top(
        states[:, last] if only_last else states, past_key_values=keys_and_values, groups=ragged.groups
    )[0]
    if decoder.final_layer_norm is not None:
        states = decoder.final_layer_norm(states)
    if decoder.project_out is not None:
        states = decoder.project_out(states)
    return states[0]


class _KeysAndValues:
    """Stands for a layer's cache: it has those of all tokens where the layer is given the last ones alone."""

    def __init__(self, layer: Any, states: Tensor) -> None:
        attention = layer.self_attn
        if layer.do_layer_norm_before:
            states = layer.self_attn_layer_norm(states)
        self._both = tuple(
            project(states).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for project in (attention.k_proj, attention.v_proj)
        )

    def update(self, *_: Any) -> tuple[Tensor, ...]:
        return self._both


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    groups: tuple[tuple[int, int], ...] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Causal attention within each prompt: of all its tokens, or of its last one.

    Query is [1, heads, tokens or prompts, head size], key and value are [1, heads, tokens, head size].
    """
    if groups is None:
        padded: tuple[Tensor, Tensor | None] = eager_attention_forward(
            module, query, key, value, attention_mask, scaling, dropout, **kwargs
        )
        return padded
    only_last = query.shape[2] < key.shape[2]
    asking = [(prompts, 1 if only_last else length) for prompts, length in groups]
    attended = []
    for queries, keys, values in zip(
        _by_group(query, asking), _by_group(key, groups), _by_group(value, groups), strict=True
    ):
        weights = queries @ keys.transpose(-1, -2) * scaling
        if not only_last:
            weights = weights + torch.full_like(weights[0, 0], -torch.inf).triu(diagonal=1)
        weights = weights.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        weights = nn.functional.dropout(weights, p=dropout, training=module.training)
        attended.append((weights @ values).transpose(1, 2).flatten(0, 1))
    return torch.cat(attended)[None], None


def _by_group(states: Tensor, groups: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
    """[1, heads, tokens, head size] as [prompts, heads, length, head size] of each group."""
    of_groups = torch.split(states[0], [prompts * length for prompts, length in groups], dim=1)
    for group, of_group in zip(groups, of_groups, strict=True):
        yield torch.unflatten(of_group, 1, group).transpose(0, 1)


AttentionInterface.register(_NAME, _attention)
