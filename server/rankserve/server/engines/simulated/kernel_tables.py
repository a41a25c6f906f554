"""Step times from a model's kernels, measured one layer at a time (the tables of LLMServingSim's profiler).

Three tables in microseconds: ``attention`` over mixed batches (prefill_chunk, kv_prefill, n_decode,
kv_decode), ``dense`` over tokens and ``per_sequence`` over sequences, these two for each kind of layer.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rankserve.server.engines.simulated.csv_table import TableError, read_table
from rankserve.server.engines.simulated.measured_grid import MeasuredGrid, Numbers, piecewise, two_points
from rankserve.server.engines.simulated.step_time import StepTimes

# Everything else in the dense table runs once in each layer of the model.
ONCE = frozenset({"embedding", "final_layernorm"})
TWICE_A_LAYER = frozenset({"layernorm"})
_MICROSECONDS = 1e-3


@dataclass(slots=True, frozen=True)
class ModelShape:
    """What the tables of single layers do not say.

    Attributes:
        layers: transformer blocks.
        hidden_size: width of the activations; needed with tensor parallelism only.
        tensor_parallel: GPUs that the layers are split over.
        link_gb_per_s: bandwidth between two GPUs, one way.
        link_latency_us: time until an exchange between GPUs begins to flow.
        kernel_gap_us: pause between two kernels of a CUDA graph.
        cpu_overhead_ms: pause between two steps.

    Raises:
        ValueError: something that is needed is missing.
    """

    layers: int
    hidden_size: int = 0
    tensor_parallel: int = 1
    link_gb_per_s: float = 0.0
    link_latency_us: float = 0.0
    kernel_gap_us: float = 0.0
    cpu_overhead_ms: float = 0.0

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ValueError("how many layers has the model? Give --layers, or its --config")
        if self.tensor_parallel > 1 and (self.hidden_size < 1 or self.link_gb_per_s <= 0):
            raise ValueError(
                "tensor parallelism exchanges activations between GPUs in each layer: give --link-gb-per-s"
                " above 0, and --hidden-size or --config"
            )

    def all_reduce_ms(self, tokens: Numbers) -> Numbers:
        """Of bf16 activations in a ring, two in each layer, in ms for these tokens of a step."""
        gpus = self.tensor_parallel
        if gpus == 1:
            return np.zeros_like(tokens)
        # A ring of n passes n-ths of the data on 2 (n - 1) times.
        share_bytes = tokens * self.hidden_size * 2 / gpus
        exchange_ms = self.link_latency_us * _MICROSECONDS + share_bytes / (self.link_gb_per_s * 1e6)
        return 2 * self.layers * 2 * (gpus - 1) * exchange_ms


def kernel_step_times(attention: Path, dense: Path, per_sequence: Path, shape: ModelShape) -> StepTimes:
    """The step times of a model whose layers were measured.

    Raises:
        TableError: a table cannot be used.
    """

    def times_a_step(layer: str) -> int:
        return 1 if layer in ONCE else shape.layers * (2 if layer in TWICE_A_LAYER else 1)

    tokens_axis, tokens_ms, dense_kernels = _layers(dense, "tokens", times_a_step)
    sampled_axis, sampled_ms, sampled_kernels = _layers(per_sequence, "sequences", lambda _: 1)
    kernels = dense_kernels + sampled_kernels + shape.layers
    grid = _attention(attention)
    chunks, histories, counts, contexts = grid.axes
    attention_ms = grid.times * (_MICROSECONDS * shape.layers)
    straggler_ms = _straggler_ms(grid) * shape.layers
    histories, attention_ms = two_points(histories, attention_ms, 1)
    return StepTimes(
        chunk_axis=chunks,
        history_axis=histories,
        sequences_axis=counts,
        context_axis=contexts,
        attention_ms=attention_ms,
        tokens_axis=tokens_axis,
        tokens_ms=tokens_ms + shape.all_reduce_ms(tokens_axis),
        sampled_axis=sampled_axis,
        sampled_ms=sampled_ms,
        straggler_ms=straggler_ms,
        prefill_pair_ms=0.0,
        overhead_ms=shape.cpu_overhead_ms + kernels * shape.kernel_gap_us * _MICROSECONDS,
    )


def _attention(path: Path) -> MeasuredGrid:
    numbers, _ = read_table(
        path,
        {name: (name,) for name in ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us")},
    )
    points = zip(*(numbers[name] for name in list(numbers)[:4]), strict=True)
    grid = MeasuredGrid(zip(points, numbers["time_us"], strict=True))
    if any(len(axis) < 2 for axis in (grid.axes[0], grid.axes[2], grid.axes[3])):
        raise TableError(
            f"{path}: needs chunks, decodes and contexts of several sizes; measure a grid of them"
        )
    grid.set_empty(0.0)
    grid.extend_over_sequences()
    if missing := grid.pairs_missing():
        raise TableError(
            f"{path}: nothing measured for prefill_chunk {missing[0][0]:g}; measure it or remove its chunk"
        )
    return grid


def _straggler_ms(grid: MeasuredGrid) -> float:
    """What one more token of the fewest decoding sequences costs beside the smallest prefill chunk, a layer.

    Over the upper half of the contexts, where it has settled.
    """
    contexts = grid.axes[3]
    alone = grid.times[1, 0, 1]
    middle = (len(contexts) - 1) // 2
    slope = (alone[-1] - alone[middle]) / (contexts[-1] - contexts[middle])
    return float(max(0.0, slope)) * _MICROSECONDS


def _layers(path: Path, key: str, times_a_step: Callable[[str], int]) -> tuple[Numbers, Numbers, int]:
    """(axis, ms of all layers together, kernels in a step) of a table over one size."""
    numbers, labels = read_table(path, {key: (key,), "time_us": ("time_us",)}, ("layer",))
    curves: dict[str, dict[float, float]] = defaultdict(dict)
    for layer, size, time in zip(labels["layer"], numbers[key], numbers["time_us"], strict=True):
        curves[layer][size] = time
    for layer, curve in curves.items():
        if len(curve) < 2:
            raise TableError(f"{path}: layer {layer!r} has one size of {key}; measure at least two")
    axis = np.array(sorted({size for curve in curves.values() for size in curve}))
    total = np.zeros(len(axis))
    kernels = 0
    for layer, curve in curves.items():
        sizes = np.array(sorted(curve))
        values = np.array([curve[size] for size in sorted(curve)])
        total += times_a_step(layer) * piecewise(sizes, values, axis)
        kernels += times_a_step(layer)
    return axis, total * _MICROSECONDS, kernels
