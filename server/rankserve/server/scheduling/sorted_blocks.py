"""A sorted list that takes an item in, and gives any item up, without moving more than a block of others.

The items lie in blocks of some hundred, so every call costs O(log n) comparisons and moves at most a block
of pointers and one for each block, which costs less than the comparisons up to millions of items. Nothing is
put off: no stale items, no rebuilding, hence no pauses.
"""

from bisect import bisect, bisect_left, insort
from collections.abc import Callable, Iterator
from itertools import chain, islice, pairwise
from typing import Any, Generic, TypeVar

_Item = TypeVar("_Item", bound=tuple[Any, ...])

# A block that grows beyond this is split in two.
_LONGEST = 512
# Blocks that `rank` counts one by one.
_COUNTED = 512


class SortedBlocks(Generic[_Item]):
    """Tuples in order, of which no two compare equal.

    Attributes:
        blocks: the items; none is empty, unless it is the only one.
    """

    __slots__ = ("_starts", "blocks")

    def __init__(self) -> None:
        self.blocks: list[list[_Item]] = [[]]
        # The smallest item that belongs into each block but the first. It need not be there any more.
        self._starts: list[_Item] = []

    def __len__(self) -> int:
        return sum(map(len, self.blocks))

    def __bool__(self) -> bool:
        return bool(self.blocks[0])

    def __iter__(self) -> Iterator[_Item]:
        """The items, the smallest first. Must not outlive a change."""
        return chain.from_iterable(self.blocks)

    def add(self, item: _Item) -> None:
        index = bisect(self._starts, item)
        block = self.blocks[index]
        insort(block, item)
        if len(block) > _LONGEST:
            # Whoever only appends fills the blocks: all but the last item stay.
            keep = len(block) - 1 if block[-1] is item else len(block) // 2
            self.blocks.insert(index + 1, block[keep:])
            self._starts.insert(index, block[keep])
            del block[keep:]

    def remove(self, item: _Item) -> None:
        """Raises RuntimeError if it is not there."""
        index = place = 0
        block = self.blocks[0]
        if not block or block[0] is not item:
            index = bisect(self._starts, item)
            block = self.blocks[index]
            place = bisect_left(block, item)
            if place == len(block) or block[place] != item:
                raise RuntimeError("not in the sorted list")
        del block[place]
        if not block:
            self._drop(index)

    def drop_first_block(self) -> bool:
        """Whoever took the last item out of the first block calls this. False if there are no others."""
        self._drop(0)
        return bool(self.blocks[0])

    def rank(self, place: Any, key: Callable[[_Item], Any] | None = None) -> int:
        """About how many items are before a place.

        Exact, but for a place behind 512 blocks, which are then taken to be equally long.

        Args:
            place: is compared with items; if there is a `key`, with the keys of items.
            key: grows with the items.
        """
        if key is None:
            index = bisect(self._starts, place)
        else:
            index = max(bisect(self.blocks, place, key=lambda block: key(block[0])) - 1, 0) if self else 0
        if index <= _COUNTED:
            before = sum(map(len, islice(self.blocks, index)))
        else:
            before = index * len(self) // len(self.blocks)
        return before + bisect_left(self.blocks[index], place, key=key)

    def check_integrity(self) -> None:
        """Raises RuntimeError if items are out of order or a block is empty."""
        items = list(self)
        if any(not before < after for before, after in pairwise(items)):
            raise RuntimeError("scheduler integrity: sorted items are out of order")
        if len(self._starts) != len(self.blocks) - 1 or (self._starts and not all(self.blocks)):
            raise RuntimeError("scheduler integrity: sorted items have an empty block")

    def _drop(self, index: int) -> None:
        """Takes out an empty block, unless it is the only one. What belonged there goes to a neighbour."""
        if self._starts:
            del self.blocks[index]
            del self._starts[max(index - 1, 0)]
