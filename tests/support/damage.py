"""Ways in which a ranker version on disk can be unusable."""

import math
from collections.abc import Callable
from pathlib import Path

import onnx
from support.ranker_folder import edit_manifest
from support.toy_ranker import restate_sha256, toy_model, toy_tokenizer

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


def state_no_schema(folder: Path) -> None:
    edit_manifest(folder, schema=None)


def score_everything_nan(folder: Path) -> None:
    onnx.save(toy_model(toy_tokenizer(), offset=math.nan, positions=64), folder / MODEL)
    restate_sha256(folder)


def ask_for_other_inputs(folder: Path) -> None:
    model = onnx.load(folder / MODEL)
    model.graph.input[1].name = "token_mask"
    for node in model.graph.node:
        node.input[:] = ["token_mask" if name == "attention_mask" else name for name in node.input]
    onnx.save(model, folder / MODEL)
    restate_sha256(folder)


def score_by_the_batch(folder: Path) -> None:
    """One score for a whole batch instead of one a prompt."""
    model = onnx.load(folder / MODEL)
    for node in model.graph.node:
        node.output[:] = ["each" if name == "score" else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("ReduceMax", ["each"], ["score"], keepdims=1))
    onnx.save(model, folder / MODEL)
    restate_sha256(folder)


def record_other_scores(folder: Path) -> None:
    edit_manifest(folder, probes=[{"prompt": "one two", "score": 12.0}])


# What was done -> what the refusal says.
DAMAGES: dict[Callable[[Path], None], str] = {
    flip_a_byte: "model.onnx is damaged",
    cut_the_model_short: "model.onnx is damaged",
    leave_no_manifest: "half written",
    leave_no_tokenizer: "tokenizer.json is unreadable",
    cut_the_manifest_short: "ranker.json: unreadable",
    publish_a_model_that_is_none: "model.onnx cannot be loaded",
    claim_another_schema: "schema 99 was written by a newer release",
    state_no_schema: "schema None is not a number",
    score_everything_nan: "not finite",
    ask_for_other_inputs: "has inputs ['input_ids', 'token_mask']",
    score_by_the_batch: "gave scores of shape (1,) for 2 prompts",
    record_other_scores: "differ from those recorded at export by 15",
}
