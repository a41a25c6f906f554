"""A toy ranker version: a real ONNX model and a real tokenizer, small enough to build in each test.

A word's weight is -1, so a prompt's score is `offset` minus its number of tokens: short prompts go first. A
version with another weight shows in its scores. The padding token weighs 1000: a model or batch that forgot
the attention mask shows at once.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from rankserve.records.ranker_version import (
    MANIFEST,
    MODEL,
    TOKENIZER,
    Calibration,
    RankerManifest,
    sha256_of,
)

PAD, START, UNKNOWN = "<pad>", "</s>", "<unk>"
WORDS = ["one two three four five six seven eight nine ten explain write a long story poison crash slow"]
# The side of the square matrices that `slow` multiplies: seconds of one core.
_SLOW_SIDE = 1600
_SLOW_PRODUCTS = 12


def toy_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=[PAD, START, UNKNOWN], show_progress=False)
    tokenizer.train_from_iterator(WORDS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, tokenizer.token_to_id(START))]
    )
    return tokenizer


def toy_model(
    tokenizer: Tokenizer, *, offset: float, positions: int, weight: float = -1.0, output: str = "score"
) -> onnx.ModelProto:
    """A ranker with three words that misbehave.

    `poison` scores NaN, `crash` is out of the model's vocabulary, `slow` takes seconds to score. More than
    `positions` tokens fail.
    """
    vocabulary = tokenizer.get_vocab()
    size = max(vocabulary.values()) + 1
    weights = np.full(size, weight, dtype=np.float32)
    weights[vocabulary[PAD]] = 1000.0
    weights[vocabulary["poison"]] = np.nan
    safe_ids = np.arange(size, dtype=np.int64)
    safe_ids[vocabulary["crash"]] = size + 1
    sides = np.ones(size, dtype=np.int64)
    sides[vocabulary["slow"]] = _SLOW_SIDE
    nodes = [
        helper.make_node("Gather", ["remap", "input_ids"], ["ids"]),
        helper.make_node("Gather", ["weights", "ids"], ["token_weights"]),
        helper.make_node("CumSum", ["attention_mask", "last_axis"], ["position"]),
        helper.make_node("Gather", ["position_weights", "position"], ["zeros"]),
        helper.make_node("Add", ["token_weights", "zeros"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["embedded", "mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "last_axis"], ["sum"], keepdims=0),
        helper.make_node("Gather", ["sides", "ids"], ["token_sides"]),
        helper.make_node("ReduceMax", ["token_sides"], ["side"], keepdims=0),
        helper.make_node("Reshape", ["side", "one_value"], ["side_1d"]),
        helper.make_node("Concat", ["side_1d", "side_1d"], ["square"], axis=0),
        helper.make_node("ConstantOfShape", ["square"], ["product_0"]),
        *(
            helper.make_node("MatMul", [f"product_{n}", f"product_{n}"], [f"product_{n + 1}"])
            for n in range(_SLOW_PRODUCTS)
        ),
        helper.make_node("ReduceMax", [f"product_{_SLOW_PRODUCTS}"], ["nothing"], keepdims=0),
        helper.make_node("Add", ["sum", "nothing"], ["delayed"]),
        helper.make_node("Add", ["delayed", "offset"], [output]),
    ]
    constants = {
        "remap": safe_ids,
        "weights": weights,
        "sides": sides,
        "one_value": np.array([1], dtype=np.int64),
        "position_weights": np.zeros(positions + 1, dtype=np.float32),
        "last_axis": np.array([1], dtype=np.int64),
        "offset": np.array(offset, dtype=np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "toy",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def publish(
    repository: Path,
    name: str = "toy",
    version: int = 1,
    *,
    offset: float = 0.0,
    weight: float = -1.0,
    max_length: int = 12,
    positions: int | None = None,
    output: str = "score",
    **manifest_fields: object,
) -> Path:
    """Writes a version; returns its folder. `manifest_fields` replace those of the manifest."""
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    tokenizer = toy_tokenizer()
    tokenizer.save(str(folder / TOKENIZER))
    model = toy_model(
        tokenizer, offset=offset, positions=positions or max_length, weight=weight, output=output
    )
    onnx.save(model, folder / MODEL)
    manifest = RankerManifest(
        name=name,
        version=version,
        sha256={},
        max_length=max_length,
        pad_token_id=tokenizer.token_to_id(PAD),
        precision="fp32",
        base_model="toy",
        neutral_score=offset - 5.0,
        calibration=Calibration((offset - 10.0, offset), (200.0, 100.0), (400.0, 150.0)),
    )
    manifest = replace(manifest, **manifest_fields)  # type: ignore[arg-type]
    (folder / MANIFEST).write_text(manifest.to_json())
    restate_sha256(folder)
    return folder


def publish_three(repository: Path) -> None:
    """toy/1; toy/2, whose scores are 100 higher; plain/1 without calibration."""
    publish(repository, "toy", 1, max_length=64)
    publish(repository, "toy", 2, offset=100.0, max_length=64)
    publish(repository, "plain", 1, calibration=None, max_length=64)


def restate_sha256(folder: Path) -> None:
    """Makes the manifest's sums those of the files as they are."""
    document = json.loads((folder / MANIFEST).read_text())
    document["sha256"] = {name: sha256_of(folder / name) for name in (MODEL, TOKENIZER)}
    (folder / MANIFEST).write_text(json.dumps(document))
