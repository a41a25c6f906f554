"""A sorted list in blocks holds what a plain sorted list would."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from rankserve.server.scheduling import sorted_blocks
from rankserve.server.scheduling.sorted_blocks import SortedBlocks


def drawn(low: int = 0, high: int = 99) -> st.SearchStrategy[int]:
    return st.integers(low, high)


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_blocks, "_LONGEST", 4)


@given(added=st.lists(drawn(), unique=True), removed=st.lists(drawn(), unique=True), place=drawn())
def test_it_holds_what_was_added_and_not_removed(added: list[int], removed: list[int], place: int) -> None:
    blocks: SortedBlocks[tuple[int]] = SortedBlocks()
    expected: list[tuple[int]] = []
    # An addition, a removal and so on, so that blocks are split and dropped in turns.
    for number in range(max(len(added), len(removed))):
        if number < len(added):
            blocks.add((added[number],))
            expected.append((added[number],))
        if number < len(removed) and (removed[number],) in expected:
            blocks.remove((removed[number],))
            expected.remove((removed[number],))
        expected.sort()
        blocks.check_integrity()
        assert list(blocks) == expected
        assert (len(blocks), bool(blocks)) == (len(expected), bool(expected))
    before = sum(item < (place,) for item in expected)
    assert blocks.rank((place,)) == before
    assert blocks.rank(2 * place, key=lambda item: 2 * item[0]) == before


def test_what_is_appended_fills_the_blocks() -> None:
    blocks: SortedBlocks[tuple[int]] = SortedBlocks()
    for number in range(40):
        blocks.add((number,))
    assert [len(block) for block in blocks.blocks] == [4] * 10


def test_behind_many_blocks_a_rank_is_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_blocks, "_COUNTED", 8)
    blocks: SortedBlocks[tuple[int]] = SortedBlocks()
    for number in range(1000):
        blocks.add((number * 389 % 1000,))
    assert all(abs(blocks.rank((number,)) - number) < 100 for number in range(1000))


def test_what_is_not_there_cannot_be_removed() -> None:
    blocks: SortedBlocks[tuple[int]] = SortedBlocks()
    blocks.add((1,))
    for missing in (0, 2):
        with pytest.raises(RuntimeError, match="not in the sorted list"):
            blocks.remove((missing,))
