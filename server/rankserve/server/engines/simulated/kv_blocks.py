"""The KV cache as a pool of blocks."""

from rankserve.server.scheduling.budget import blocks_for


class KvBlockPool:
    """Counts the blocks each request holds. Which block it is does not matter to a simulation."""

    def __init__(self, total: int, block_size: int) -> None:
        self.total = total
        self.block_size = block_size
        self.free = total
        self._held: dict[str, int] = {}

    @property
    def used(self) -> int:
        return self.total - self.free

    def try_hold(self, request_id: str, tokens: int) -> bool:
        """Makes the request hold blocks for this many tokens, or changes nothing and returns False."""
        missing = blocks_for(tokens, self.block_size) - self._held.get(request_id, 0)
        if missing > self.free:
            return False
        if missing > 0:
            self.free -= missing
            self._held[request_id] = self._held.get(request_id, 0) + missing
        return True

    def release(self, request_id: str) -> None:
        self.free += self._held.pop(request_id, 0)

    def check_integrity(self) -> None:
        """Raises RuntimeError unless every block is free or held exactly once."""
        if self.free < 0 or self.free + sum(self._held.values()) != self.total:
            raise RuntimeError(
                f"KV blocks: {self.free} free and {sum(self._held.values())} held of {self.total}"
            )
