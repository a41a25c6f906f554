"""A sorted list that takes an item in, and gives any item up, without moving more than a block of others.

The items lie in blocks of some hundred, so every call costs O(log n) comparisons and moves at most a block
of pointers and one for each block, which costs less than the comparisons up to millions of items. Nothing is
put off: no stale items, no rebuilding, hence no pauses.
"""

from bisect import bisect, bisect_left, insort
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
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
        count: how many there are.
    """

    __slots__ = ("_starts", "blocks", "count")

    def __init__(self) -> None:
        self.count = 0
        self.blocks: list[list[_Item]] = [[]]
        # The smallest item that belongs into each block but the first. It need not be there any more.
        self._starts: list[_Item] = []

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[_Item]:
        """The items, the smallest first. Must not outlive a change."""
        return chain.from_iterable(self.blocks)

    def add(self, item: _Item) -> None:
        self.count += 1
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
        self.count -= 1
        del block[place]
        if not block:
            self.drop_block(index)

    def rank(self, place: Any, key: Callable[[_Item], Any] | None = None) -> int:
        """About how many items are before a place.

        Exact, unless 512 blocks lie before it and as many behind; those are taken to be equally long.

        Args:
            place: is compared with items; if there is a `key`, with the keys of items.
            key: grows with the items.
        """
        if key is None:
            index = bisect(self._starts, place)
        else:
            index = max(bisect(self.blocks, place, key=lambda block: key(block[0])) - 1, 0) if self else 0
        blocks = self.blocks
        if index <= _COUNTED and 2 * index <= len(blocks):
            before = sum(map(len, blocks[:index]))
        elif len(blocks) - index <= _COUNTED:
            before = self.count - sum(map(len, blocks[index:]))
        else:
            before = index * self.count // len(blocks)
        return before + bisect_left(self.blocks[index], place, key=key)

    def check_integrity(self) -> None:
        """Raises RuntimeError if items are out of order or a block is empty."""
        items = list(self)
        if any(not before < after for before, after in pairwise(items)):
            raise RuntimeError("scheduler integrity: sorted items are out of order")
        if len(items) != self.count:
            raise RuntimeError(f"scheduler integrity: {len(items)} sorted items, {self.count} counted")
        if len(self._starts) != len(self.blocks) - 1 or (self._starts and not all(self.blocks)):
            raise RuntimeError("scheduler integrity: sorted items have an empty block")

    def drop_block(self, index: int) -> None:
        """Takes out an empty block, unless it is the only one. What belonged there goes to a neighbour."""
        if self._starts:
            del self.blocks[index]
            del self._starts[max(index - 1, 0)]
