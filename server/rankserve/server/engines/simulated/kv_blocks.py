"""The KV cache as a pool of blocks.

Freed blocks go to the end of a list, those of one request together, and blocks are taken from its front, as
in vLLM's block pool. A request's last block is freed first, so what is left of them for a while are its
leading ones, which it finds again when it resumes, if the engine caches prefixes.
"""

from collections import deque
from dataclasses import dataclass

from rankserve.server.scheduling.budget import blocks_for


@dataclass(slots=True, eq=False)
class _Freed:
    """Free blocks that were one request's.

    Attributes:
        request_id: whose; empty for those that were never anyone's.
        blocks: how many are left.
        computed_tokens: leading tokens of the request whose KV was in them.
    """

    request_id: str
    blocks: int
    computed_tokens: int = 0


class KvBlockPool:
    """Counts the blocks each request holds. Which block it is does not matter to a simulation.

    Args:
        total: blocks in the engine.
        block_size: tokens a block holds.
        shared: leading blocks that all requests have in common; held once, from the start.
        prefix_caching: whether freed blocks can be taken again by the request that had them.
    """

    def __init__(self, total: int, block_size: int, *, shared: int = 0, prefix_caching: bool = False) -> None:
        self.total = total - shared
        self.block_size = block_size
        self.shared = shared
        self.free = self.total
        self._held: dict[str, int] = {}
        self._caches = prefix_caching
        self._freed: deque[_Freed] = deque([_Freed("", self.total)])
        self._freed_of: dict[str, _Freed] = {}

    @property
    def used(self) -> int:
        return self.total - self.free

    def own_blocks(self, tokens: int) -> int:
        """Blocks that a request with this many tokens holds for itself."""
        return max(0, blocks_for(tokens, self.block_size) - self.shared)

    def room_of(self, tokens: int) -> int:
        """Tokens that the blocks have room for which hold so many, with those that all requests share."""
        return max(self.shared, blocks_for(tokens, self.block_size)) * self.block_size

    def try_hold(self, request_id: str, tokens: int) -> bool:
        """Makes the request hold blocks for this many tokens, or changes nothing and returns False."""
        missing = self.own_blocks(tokens) - self._held.get(request_id, 0)
        if missing > self.free:
            return False
        if missing > 0:
            self._take(missing)
            self._hold(request_id, missing)
        return True

    def take_again(self, request_id: str, tokens: int) -> int:
        """Gives a request that resumes with this many tokens what is left of the blocks it had.

        Returns how many those are. The last token is always computed anew.
        """
        freed = self._freed_of.get(request_id)
        if freed is None:
            return 0
        useful = min(tokens - 1, freed.computed_tokens) // self.block_size - self.shared
        blocks = max(0, min(freed.blocks, useful))
        freed.blocks -= blocks
        self.free -= blocks
        self._hold(request_id, blocks)
        return blocks

    def release(self, request_id: str, computed_tokens: int = 0) -> None:
        """Frees a request's blocks, which hold the KV of so many leading tokens of it."""
        blocks = self._held.pop(request_id, 0)
        self.free += blocks
        if self._caches and blocks:
            freed = _Freed(request_id, blocks, computed_tokens)
            self._freed.append(freed)
            self._freed_of[request_id] = freed

    def check_integrity(self) -> None:
        """Raises RuntimeError unless every block is free or held exactly once."""
        held = sum(self._held.values())
        if self.free < 0 or self.free + held != self.total:
            raise RuntimeError(f"KV blocks: {self.free} free and {held} held of {self.total}")
        if self._caches and sum(freed.blocks for freed in self._freed) != self.free:
            raise RuntimeError(f"KV blocks: the list of free ones does not have {self.free}")

    def _hold(self, request_id: str, blocks: int) -> None:
        self._held[request_id] = self._held.get(request_id, 0) + blocks

    def _take(self, blocks: int) -> None:
        """Takes free blocks, those that were freed first."""
        self.free -= blocks
        while self._caches and blocks:
            first = self._freed[0]
            taken = min(blocks, first.blocks)
            first.blocks -= taken
            blocks -= taken
            if not first.blocks:
                self._freed.popleft()
                if self._freed_of.get(first.request_id) is first:
                    del self._freed_of[first.request_id]
