"""Runs a ranker's graph on a device: in few shapes, its inputs bound to memory that stays there.

A GPU plans memory and picks kernels anew for each shape it has not seen. Prompts come in almost any number
and length, so batches are padded to a small set of shapes, and the buffers of each are kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

INPUT_IDS, ATTENTION_MASK = "input_ids", "attention_mask"
OUTPUT = "score"

Ids = npt.NDArray[np.int64]
# Scores [rows] of `input_ids` and `attention_mask`, each [rows, length].
Execute = Callable[[Ids, Ids], npt.NDArray[Any]]

# Where their buffers live.
_DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}
_SHORTEST = 16


def execution(session: Any, provider: str, *, max_length: int, pad_token_id: int) -> Execute:
    """How to run a session that the provider executes: bound to its device, or plainly on the CPU.

    Args:
        session: an `onnxruntime.InferenceSession` of a ranker's graph.
        provider: the first of its providers.
        max_length: longest prompt in tokens.
        pad_token_id: token id that pads a batch.
    """
    if provider in _DEVICES:
        device = _DEVICES[provider]
        return DeviceSession(session, device, max_length=max_length, pad_token_id=pad_token_id).run

    def run(input_ids: Ids, attention_mask: Ids) -> npt.NDArray[Any]:
        scores: npt.NDArray[Any]
        (scores,) = session.run([OUTPUT], {INPUT_IDS: input_ids, ATTENTION_MASK: attention_mask})
        return scores

    return run


def length_bucket(length: int, max_length: int) -> int:
    """The length that a batch is padded to: 16, 24, 32, 48, 64, ..., at most `max_length`.

    Two steps to a doubling: never more than half as long again, and 11 lengths reach 512.
    """
    bucket = _SHORTEST
    while bucket < length:
        middle = bucket + bucket // 2
        bucket = middle if middle >= length else bucket * 2
    return max(length, min(bucket, max_length))


def batch_bucket(rows: int) -> int:
    """The number of rows that a batch is padded to: a power of two."""
    return 1 << (rows - 1).bit_length()


@dataclass(slots=True, frozen=True)
class _Buffers:
    """Of one shape: on the host, on the device, and the binding of these to the session."""

    host: dict[str, Ids]
    device: dict[str, Any]
    binding: Any


class DeviceSession:
    """Runs batches padded to buckets through I/O binding.

    Args:
        session: an `onnxruntime.InferenceSession` of a ranker's graph.
        device: where its buffers live, "cuda" or "cpu".
        max_length: longest prompt in tokens; nothing is padded beyond it.
        pad_token_id: token id that pads a batch.
    """

    def __init__(self, session: Any, device: str, *, max_length: int, pad_token_id: int) -> None:
        self._session = session
        self._device = device
        self._max_length = max_length
        self._pad_token_id = pad_token_id
        self._buffers: dict[tuple[int, int], _Buffers] = {}

    @property
    def shapes(self) -> set[tuple[int, int]]:
        """[rows, length] of the buckets that were used so far."""
        return set(self._buffers)

    def run(self, input_ids: Ids, attention_mask: Ids) -> npt.NDArray[Any]:
        """Scores [rows]; padding rows are computed and dropped.

        Args:
            input_ids: [rows, length].
            attention_mask: [rows, length].
        """
        rows, length = input_ids.shape
        shape = batch_bucket(rows), length_bucket(length, self._max_length)
        buffers = self._buffers.get(shape)
        if buffers is None:
            buffers = self._buffers[shape] = self._allocate(shape)
        padding = {INPUT_IDS: self._pad_token_id, ATTENTION_MASK: 0}
        for name, values in ((INPUT_IDS, input_ids), (ATTENTION_MASK, attention_mask)):
            host = buffers.host[name]
            host[:rows, :length] = values
            host[:rows, length:] = padding[name]
            # A row without any attended token could be NaN; a copy of a prompt cannot unless that is.
            host[rows:] = host[0]
            buffers.device[name].update_inplace(host)
        self._session.run_with_iobinding(buffers.binding)
        scores: npt.NDArray[Any] = buffers.binding.copy_outputs_to_cpu()[0]
        return scores[:rows]

    def _allocate(self, shape: tuple[int, int]) -> _Buffers:
        host = {name: np.zeros(shape, dtype=np.int64) for name in (INPUT_IDS, ATTENTION_MASK)}
        device = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(values, self._device, 0)
            for name, values in host.items()
        }
        binding = self._session.io_binding()
        for name, value in device.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output(OUTPUT, self._device, 0)
        return _Buffers(host, device, binding)
