"""When live requests expire."""

from collections.abc import Iterator
from itertools import takewhile

from rankserve.server.scheduling.request import Phase, Request
from rankserve.server.scheduling.sorted_blocks import SortedBlocks


class Deadlines:
    """The live requests that have a deadline, the earliest first."""

    def __init__(self) -> None:
        self._entries: SortedBlocks[tuple[float, int, Request]] = SortedBlocks()

    def watch(self, request: Request) -> None:
        if request.deadline_s is not None:
            self._entries.add((request.deadline_s, request.sequence, request))

    def forget(self, request: Request) -> None:
        """The request has ended."""
        if request.deadline_s is not None:
            self._entries.remove((request.deadline_s, request.sequence, request))

    def passed(self, now_s: float) -> Iterator[Request]:
        """Live requests whose deadline has passed, earliest first. Must not outlive a change."""
        return (entry[2] for entry in takewhile(lambda entry: entry[0] <= now_s, self._entries))

    def next_s(self) -> float | None:
        """When the next live request expires."""
        return next((entry[0] for entry in self._entries), None)

    def check_integrity(self) -> None:
        """Raises RuntimeError if it watches a request that has ended."""
        self._entries.check_integrity()
        if any(request.phase is Phase.ENDED for _, _, request in self._entries):
            raise RuntimeError("scheduler integrity: the deadline of a request that has ended is watched")
