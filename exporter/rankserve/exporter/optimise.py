"""Graph optimisation by optimum's levels O1 to O4, which ONNX Runtime's transformer optimiser carries out.

Optional: ONNX Runtime fuses much of this by itself when it opens the file (docs/decisions/0004).
"""

import io
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
from transformers import BertConfig, PretrainedConfig

from rankserve.exporter.errors import ExportError

Level = Literal["O1", "O2", "O3", "O4"]

_FUSED_DOMAIN = "com.microsoft"
_NOISY = ("optimum", "onnxruntime", "onnxruntime.transformers", "fusion_base")


@dataclass(slots=True, frozen=True)
class Optimised:
    """Attributes:
    graph: the optimised one.
    fused: operators of ONNX Runtime's own that it has and the graph before had not, by name.
    configured_as: the model type whose patterns were looked for.
    applied: the level that describes what was done: "O1" where O2 or O3 fused nothing and only simplified, ""
        where the graph has the operators that it had.
    """

    graph: onnx.ModelProto
    fused: dict[str, int]
    configured_as: str
    applied: Level | Literal[""]


def optimise(graph: onnx.ModelProto, config: PretrainedConfig, level: Level) -> Optimised:
    """A graph with the level's fusions; O4 makes it fp16 as well.

    Args:
        graph: a ranker; stays as it is.
        config: of the model that it was exported from.
        level: O1 folds and simplifies; O2 fuses transformer patterns; O3 approximates GELU; O4 is O3 in
            fp16, for GPUs.

    Raises:
        ExportError: optimum is not installed, or cannot optimise this graph.
    """
    try:
        from optimum.onnxruntime import AutoOptimizationConfig, ORTOptimizer
        from optimum.onnxruntime.utils import ORTConfigManager
    except ImportError as error:
        raise ExportError(
            f"--optimize {level} needs optimum ({error}): pip install 'rankserve[exporter]', or export "
            "without it"
        ) from error
    known = config if config.model_type in ORTConfigManager._conf else _stand_in(config)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "model.onnx"
        onnx.save(graph, path)
        settings = AutoOptimizationConfig.with_optimization_level(level, for_gpu=level == "O4")
        try:
            ORTOptimizer([path], config=known).optimize(
                settings, save_dir=Path(folder) / "optimised", file_suffix=""
            )
        except Exception as error:  # optimum, transformers and ONNX Runtime share no narrower base
            raise ExportError(
                f"optimum cannot bring a {config.model_type} graph to {level} ({error}): export without "
                "--optimize"
            ) from error
        optimised = onnx.load(Path(folder) / "optimised" / "model.onnx")
    fused = dict(_own_operators(optimised) - _own_operators(graph))
    return Optimised(optimised, fused, known.model_type, _applied(graph, optimised, level, fused=bool(fused)))


def _applied(
    before: onnx.ModelProto, after: onnx.ModelProto, level: Level, *, fused: bool
) -> Level | Literal[""]:
    if _operators(before) == _operators(after):
        return ""
    # O4 has made it fp16, whatever it fused.
    return level if fused or level == "O4" else "O1"


def _stand_in(config: PretrainedConfig) -> PretrainedConfig:
    """optimum knows no OPT, for one; BERT's patterns (attention, skips, GELU) are the most general."""
    return BertConfig(  # type: ignore[no-untyped-call]
        hidden_size=config.hidden_size, num_attention_heads=config.num_attention_heads
    )


def _operators(graph: onnx.ModelProto) -> Counter[tuple[str, str]]:
    return Counter((node.domain, node.op_type) for node in graph.graph.node)


def _own_operators(graph: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in graph.graph.node if node.domain == _FUSED_DOMAIN)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the optimiser's remarks on its own steps; what matters is in the result."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        # It prints, too, and stdout is for the result of a command.
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, before in zip(loggers, levels, strict=True):
            logger.setLevel(before)
