"""Indexed binary heaps of request numbers, many to one array, without stale entries.

A heap is the slice ``heap[low : low + size]``; it holds request numbers ordered by ``key``, ties by number.
``position[i]`` is where in its slice request ``i`` is, so that any request can be removed in O(log n). The
caller keeps the sizes.
"""

import numpy as np
from numpy.typing import NDArray

from rankserve.server.compiled import compiled

Integers = NDArray[np.int64]
Numbers = NDArray[np.float64]


@compiled
def push(heap: Integers, low: int, size: int, position: Integers, key: Numbers, item: int) -> None:
    """Adds a request to a heap of this size."""
    heap[low + size] = item
    position[item] = size
    _rise(heap, low, size, position, key)


@compiled
def remove(heap: Integers, low: int, size: int, position: Integers, key: Numbers, item: int) -> None:
    """Takes a request out of a heap of this size; `key` must be what it was when the request was added."""
    hole = position[item]
    last = heap[low + size - 1]
    if last != item:
        heap[low + hole] = last
        position[last] = hole
        _rise(heap, low, hole, position, key)
        _sink(heap, low, size - 1, position[last], position, key)


@compiled
def _rise(heap: Integers, low: int, at: int, position: Integers, key: Numbers) -> None:
    item = heap[low + at]
    while at > 0:
        parent = (at - 1) >> 1
        other = heap[low + parent]
        if key[other] < key[item] or (key[other] == key[item] and other < item):
            break
        heap[low + at] = other
        position[other] = at
        at = parent
    heap[low + at] = item
    position[item] = at


@compiled
def _sink(heap: Integers, low: int, size: int, at: int, position: Integers, key: Numbers) -> None:
    item = heap[low + at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        other = heap[low + child]
        if child + 1 < size:
            right = heap[low + child + 1]
            if key[right] < key[other] or (key[right] == key[other] and right < other):
                other = right
                child += 1
        if key[item] < key[other] or (key[item] == key[other] and item < other):
            break
        heap[low + at] = other
        position[other] = at
        at = child
    heap[low + at] = item
    position[item] = at
