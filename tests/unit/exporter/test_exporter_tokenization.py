import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import GPT2Tokenizer, OPTConfig

from rankserve.exporter.source import RankerSource
from rankserve.exporter.tokenization import encode, pad, publishable_tokenizer


def _source(model: Path, *, max_length: int = 8, side: str = "left") -> RankerSource:
    return RankerSource(model, "opt", max_length=max_length, pad_token_id=1, truncation_side=side)


def test_truncation_keeps_the_special_token_on_either_side(checkpoint: Path) -> None:
    tokenizer = publishable_tokenizer(_source(checkpoint), [])
    whole = tokenizer.encode("explain why short poems list seven long names").ids
    assert len(whole) > 8

    (end,) = encode(
        tokenizer, _source(checkpoint, side="left"), ["explain why short poems list seven long names"]
    )
    (start,) = encode(
        tokenizer, _source(checkpoint, side="right"), ["explain why short poems list seven long names"]
    )

    assert end == [2, *whole[-7:]]
    assert start == whole[:8]


def test_settings_of_training_are_not_published(checkpoint: Path, tmp_path: Path) -> None:
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    baked = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    baked.enable_truncation(4)
    baked.enable_padding(length=16)
    baked.save(str(tmp_path / "tokenizer.json"))

    tokenizer = publishable_tokenizer(_source(tmp_path, max_length=64), ["list seven long names"])

    assert json.loads(tokenizer.to_str())["truncation"] is None
    assert json.loads(tokenizer.to_str())["padding"] is None
    assert len(tokenizer.encode("list seven long names and poems").ids) > 4


def test_slow_tokenizer_of_opt_is_converted_with_its_leading_token(tmp_path: Path) -> None:
    """The released OPT checkpoints have vocab.json and merges.txt, and prepend `</s>`."""
    alphabet = sorted(set("listopem") | {"Ġ"})
    vocabulary = {token: index for index, token in enumerate(["<s>", "<pad>", "</s>", *alphabet, "li", "st"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nl i\ns t\n")
    slow = GPT2Tokenizer(  # type: ignore[no-untyped-call]
        str(tmp_path / "vocab.json"),
        str(tmp_path / "merges.txt"),
        bos_token="</s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="<pad>",
        add_bos_token=True,
    )
    slow.save_pretrained(tmp_path)
    OPTConfig(vocab_size=len(vocabulary)).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    assert not (tmp_path / "tokenizer.json").exists()

    tokenizer = publishable_tokenizer(_source(tmp_path), ["list poem"])

    assert tokenizer.encode("list poem").ids == slow("list poem")["input_ids"]
    assert tokenizer.encode("list poem").ids[0] == vocabulary["</s>"]


@pytest.mark.parametrize(
    ("side", "ids", "mask"),
    [
        ("right", [[5, 6, 7], [8, 1, 1]], [[1, 1, 1], [1, 0, 0]]),
        ("left", [[5, 6, 7], [1, 1, 8]], [[1, 1, 1], [0, 0, 1]]),
    ],
)
def test_pads_on_a_side(side: str, ids: list[list[int]], mask: list[list[int]]) -> None:
    input_ids, attention_mask = pad([[5, 6, 7], [8]], 1, side=side)

    assert input_ids.tolist() == ids
    assert attention_mask.tolist() == mask
