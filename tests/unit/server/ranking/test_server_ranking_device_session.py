"""Batches in buckets with bound inputs score as plain runs do. I/O binding works on the CPU too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankserve.records.ranker_version import MODEL, read_manifest
from rankserve.server.ranking import device_session
from rankserve.server.ranking.device_session import (
    DeviceSession,
    Ids,
    batch_bucket,
    execution,
    length_bucket,
)
from rankserve.server.ranking.session import OnnxScorer

Publish = Callable[..., Path]
LONGEST = 100
PAD = 0
TOKEN = 3


@pytest.fixture
def session(publish_version: Publish) -> onnxruntime.InferenceSession:
    model = publish_version(max_length=LONGEST) / MODEL
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def batch(generator: np.random.Generator, rows: int, length: int) -> tuple[Ids, Ids]:
    """Random words that the toy ranker scores -1 each, padded on the right."""
    lengths = generator.integers(1, length + 1, size=rows)
    lengths[0] = length
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    return np.where(mask == 1, TOKEN, PAD), mask


def test_scores_are_those_of_plain_runs_in_whatever_order_shapes_come(
    session: onnxruntime.InferenceSession,
) -> None:
    bound = DeviceSession(session, "cpu", max_length=LONGEST, pad_token_id=PAD)
    plain = execution(session, "CPUExecutionProvider", max_length=LONGEST, pad_token_id=PAD)
    generator = np.random.default_rng(0)
    for _ in range(200):
        ids, mask = batch(generator, int(generator.integers(1, 20)), int(generator.integers(1, LONGEST + 1)))
        scores = bound.run(ids, mask)
        assert scores.tolist() == plain(ids, mask).tolist() == (-mask.sum(axis=1)).tolist()
    # 200 batches in 1,900 possible shapes.
    assert len(bound.shapes) <= 6 * 7
    assert all(length <= LONGEST for _, length in bound.shapes)


def test_a_shape_is_allocated_once(session: onnxruntime.InferenceSession) -> None:
    bound = DeviceSession(session, "cpu", max_length=LONGEST, pad_token_id=PAD)
    generator = np.random.default_rng(0)
    for rows, length in ((5, 33), (8, 48), (6, 40)):
        bound.run(*batch(generator, rows, length))
    assert bound.shapes == {(8, 48)}


def test_scores_of_an_earlier_run_stay_as_they_were(session: onnxruntime.InferenceSession) -> None:
    bound = DeviceSession(session, "cpu", max_length=LONGEST, pad_token_id=PAD)
    ids = np.full((1, 4), TOKEN, dtype=np.int64)
    first = bound.run(ids, np.array([[1, 1, 1, 1]]))
    second = bound.run(ids, np.array([[1, 0, 0, 0]]))
    assert (first.tolist(), second.tolist()) == ([-4.0], [-1.0])


def test_a_scorer_on_a_device_scores_prompts_as_on_the_cpu(
    publish_version: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = publish_version(max_length=64)
    prompts = [" ".join(["one"] * count) for count in (3, 50, 1, 17, 2, 60, 33, 63)]
    expected = OnnxScorer(folder, read_manifest(folder)).score(prompts)
    used: list[DeviceSession] = []
    real = DeviceSession.run

    def watched(self: DeviceSession, input_ids: Ids, attention_mask: Ids) -> Any:
        used.append(self)
        return real(self, input_ids, attention_mask)

    monkeypatch.setattr(device_session, "_DEVICES", {"CPUExecutionProvider": "cpu"})
    monkeypatch.setattr(DeviceSession, "run", watched)
    assert OnnxScorer(folder, read_manifest(folder)).score(prompts).tolist() == expected.tolist()
    assert used


@given(st.integers(1, 70_000), st.integers(1, 70_000))
def test_a_length_is_padded_by_half_at_most_and_never_beyond_the_longest(length: int, longest: int) -> None:
    longest = max(length, longest)
    bucket = length_bucket(length, longest)
    assert length <= bucket <= longest
    assert bucket <= max(16, length * 1.5)


def test_there_are_few_lengths() -> None:
    buckets = sorted({length_bucket(length, 512) for length in range(1, 513)})
    assert buckets == [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]
    assert [batch_bucket(rows) for rows in (1, 2, 3, 5, 8, 9, 64)] == [1, 2, 4, 8, 8, 16, 64]
