"""The ranker as an ONNX graph.

Inputs `input_ids` and `attention_mask`, int64 [batch, length]; output `score`, float32 [batch].

torch's exporter folds constants itself, and ONNX Runtime fuses for its execution provider when it opens the
file. Fusing in the file as well would tie it to one provider (docs/decisions/0004).
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx
import torch

from rankserve.exporter.errors import ExportError
from rankserve.trainer.model import RankerModel

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "score"
# The newest that the oldest ONNX Runtime of pyproject.toml reads, so that ranker versions travel.
OPSET = 20
# Protobuf's limit for one file.
_MAX_BYTES = 2**31 - 1


def export_graph(model: RankerModel, *, max_length: int) -> onnx.ModelProto:
    """Traces the ranker with dynamic batch and length.

    Args:
        model: the ranker, of any floating-point type; put into evaluation mode.
        max_length: longest prompt in tokens.

    Raises:
        ExportError: torch cannot export this architecture, or it is too large for one ONNX file.
    """
    parameters = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    if parameters > _MAX_BYTES:
        raise ExportError(
            f"the model has {parameters / 2**30:.1f} GiB of weights and an ONNX file holds 2: "
            "export it with --precision fp16, or use a smaller ranker"
        )
    # torch.export treats sizes 0 and 1 as constants in its example inputs.
    example = torch.full((2, min(8, max_length)), 3, dtype=torch.int64)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=max_length)}
    model.eval()
    with _quiet():
        try:
            program = torch.onnx.export(
                model,
                (example, torch.ones_like(example)),
                dynamo=True,
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                dynamic_shapes=(axes, axes),
                opset_version=OPSET,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(
                f"torch cannot export {type(model.classifier).__name__} to ONNX "
                f"({str(error).strip().splitlines()[0]})"
            ) from error
    if program is None:
        raise ExportError("torch.onnx.export gave no program")
    return without_traces(program.model_proto)


def without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drops what the exporter notes for debugging: paths of this machine, and half a megabyte."""
    graph = model.graph
    items: tuple[Any, ...] = (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer)
    for item in items:
        del item.metadata_props[:]
        item.doc_string = ""
    # Not needed to run, and wrong for initializers that the exporter merged.
    del graph.value_info[:]
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on torch's own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
