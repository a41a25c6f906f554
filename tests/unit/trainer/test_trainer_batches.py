import numpy as np
import pytest

from rankserve.trainer.batches import parts_by_length


def test_parts_hold_each_row_once_by_rising_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 300, 200).tolist()
    parts = parts_by_length(lengths, 512)
    rows = [row for part in parts for row in part]
    assert sorted(rows) == list(range(200))
    assert [lengths[row] for row in rows] == sorted(lengths)
    for part in parts:
        assert len(part) == 1 or len(part) * max(lengths[row] for row in part) <= 512


def test_a_row_longer_than_a_part_stands_alone() -> None:
    assert parts_by_length([900, 5, 4], 64) == [[2, 1], [0]]


@pytest.mark.parametrize("outlier", [100, 400])
def test_little_of_a_part_is_padding(outlier: int) -> None:
    lengths = [8] * 31 + [outlier]
    parts = parts_by_length(lengths, 100_000)
    assert parts == [list(range(31)), [31]]
    assert parts_by_length([8, 9, 10, 20], 100_000) == [[0, 1, 2, 3]], "a forward pass costs more than that"
