"""Ways in which a ranker version on disk can be unusable."""

from collections.abc import Callable
from pathlib import Path

from support.ranker_folder import edit_manifest
from support.toy_ranker import restate_sha256

from rankserve.records.ranker_version import MANIFEST, MODEL, TOKENIZER


def flip_a_byte(folder: Path) -> None:
    data = bytearray((folder / MODEL).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (folder / MODEL).write_bytes(data)


def cut_the_model_short(folder: Path) -> None:
    data = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(data[: len(data) // 2])


def leave_no_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def leave_no_tokenizer(folder: Path) -> None:
    (folder / TOKENIZER).unlink()


def cut_the_manifest_short(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text[: len(text) // 2])


def publish_a_model_that_is_none(folder: Path) -> None:
    (folder / MODEL).write_bytes(b"this is no ONNX model")
    restate_sha256(folder)


def claim_another_schema(folder: Path) -> None:
    edit_manifest(folder, schema=99)


# What was done -> what the refusal says.
DAMAGES: dict[Callable[[Path], None], str] = {
    flip_a_byte: "model.onnx is damaged",
    cut_the_model_short: "model.onnx is damaged",
    leave_no_manifest: "half written",
    leave_no_tokenizer: "tokenizer.json is unreadable",
    cut_the_manifest_short: "ranker.json: unreadable",
    publish_a_model_that_is_none: "model.onnx cannot be loaded",
    claim_another_schema: "schema 99",
}
