"""Prompts as padded tensors, in parts of bounded size."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

# Tokens of padding that cost less than another forward pass.
_FREE_PADDING = 64
_MOST_PADDING = 1 / 3


def encode(
    tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], max_length: int
) -> list[tuple[int, ...]]:
    """Token ids of each prompt, cut to ``max_length`` on the tokenizer's ``truncation_side``."""
    if not prompts:
        return []
    encoded = tokenizer(list(prompts), truncation=True, max_length=max_length)
    return [tuple(ids) for ids in encoded["input_ids"]]


def pad(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Pads on the right. Returns input ids and attention mask, both int64 [rows, longest row]."""
    width = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), width), pad_token_id, dtype=torch.long)
    attention_mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        input_ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        attention_mask[i, : len(row)] = 1
    return input_ids, attention_mask


def parts_by_length(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Row numbers in parts of similar length, each at most ``max_tokens`` once padded (or a single row).

    Parts come by rising length, and so do the rows in them. At most about a third of a part is padding.
    """
    parts: list[list[int]] = []
    tokens = 0
    for row in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        # Rows come by rising length, so this one sets the width of its part.
        padded = (len(parts[-1]) + 1) * lengths[row] if parts else 0
        padding = padded - tokens - lengths[row]
        if parts and padded <= max_tokens and padding <= max(padded * _MOST_PADDING, _FREE_PADDING):
            parts[-1].append(row)
            tokens += lengths[row]
        else:
            parts.append([row])
            tokens = lengths[row]
    return parts
