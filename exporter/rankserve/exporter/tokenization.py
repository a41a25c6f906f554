"""The published `tokenizer.json`, and prompts encoded with it as the server encodes them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from rankserve.exporter.errors import SourceError
from rankserve.exporter.source import RankerSource, load_fast_tokenizer

Tokens = list[int]
Batch = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def publishable_tokenizer(source: RankerSource, prompts: Sequence[str]) -> Tokenizer:
    """The source's tokenizer without truncation or padding of its own: those are the server's business.

    Args:
        source: what is exported.
        prompts: text on which it must give the same tokens as the source's own tokenizer.

    Raises:
        SourceError: the checkpoint has no fast tokenizer, or the saved one would read prompts differently.
    """
    original = load_fast_tokenizer(source.model)
    tokenizer = Tokenizer.from_str(original.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    original.truncation_side = source.truncation_side
    _check_same(original, tokenizer, source, prompts)
    return tokenizer


def encode(tokenizer: Tokenizer, source: RankerSource, prompts: Sequence[str]) -> list[Tokens]:
    """Token ids of each prompt, cut to `max_length` such that special tokens survive on either side."""
    room = source.max_length - tokenizer.num_special_tokens_to_add(is_pair=False)
    rows = []
    for encoding in tokenizer.encode_batch(list(prompts), add_special_tokens=False):
        encoding.truncate(room, direction=source.truncation_side)
        rows.append(tokenizer.post_process(encoding).ids)
    return rows


def pad(rows: Sequence[Tokens], pad_token_id: int, *, side: str = "right") -> Batch:
    """`input_ids` and `attention_mask`, both int64 [rows, longest row], padded on a side."""
    shape = (len(rows), max(len(row) for row in rows))
    input_ids = np.full(shape, pad_token_id, dtype=np.int64)
    attention_mask = np.zeros(shape, dtype=np.int64)
    for index, row in enumerate(rows):
        at = slice(0, len(row)) if side == "right" else slice(shape[1] - len(row), shape[1])
        input_ids[index, at] = row
        attention_mask[index, at] = 1
    return input_ids, attention_mask


def read_tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path))


def _check_same(
    original: PreTrainedTokenizerFast, tokenizer: Tokenizer, source: RankerSource, prompts: Sequence[str]
) -> None:
    if not prompts:
        return
    expected = original(list(prompts), truncation=True, max_length=source.max_length)["input_ids"]
    for prompt, want, got in zip(prompts, expected, encode(tokenizer, source, prompts), strict=True):
        if list(want) != got:
            raise SourceError(
                f"{source.model}: its tokenizer.json gives {len(got)} tokens where its own tokenizer gives "
                f"{len(want)}, e.g. for a prompt of {len(prompt)} characters; save the tokenizer with a "
                "transformers release that writes special tokens into tokenizer.json"
            )
