"""When live requests expire."""

from heapq import heapify, heappop, heappush

from rankserve.server.scheduling.request import Phase, Request

_STALE_ALLOWED = 64


class Deadlines:
    """A heap of deadlines with lazy deletion: entries of ended requests stay until they are due or many."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Request]] = []
        self._live = 0

    def watch(self, request: Request) -> None:
        if request.deadline_s is not None:
            heappush(self._heap, (request.deadline_s, request.sequence, request))
            self._live += 1

    def forget(self, request: Request) -> None:
        """The request has ended (its phase says so)."""
        if request.deadline_s is not None:
            self._live -= 1
            if len(self._heap) > 2 * self._live + _STALE_ALLOWED:
                self._heap = [entry for entry in self._heap if entry[2].phase is not Phase.ENDED]
                heapify(self._heap)

    def passed(self, now_s: float) -> list[Request]:
        """Live requests whose deadline has passed, earliest first. Each is returned until it ends."""
        late = []
        while self._next_s() <= now_s:
            late.append(heappop(self._heap))
        for entry in late:
            heappush(self._heap, entry)
        return [request for _, _, request in late]

    def next_s(self) -> float | None:
        """When the next live request expires."""
        next_s = self._next_s()
        return next_s if self._heap else None

    def check_integrity(self) -> None:
        """Raises RuntimeError if it miscounts live requests or keeps too many others."""
        live = sum(1 for _, _, request in self._heap if request.phase is not Phase.ENDED)
        if live != self._live:
            raise RuntimeError(f"scheduler integrity: {live} requests have a deadline, {self._live} counted")
        if len(self._heap) > 2 * live + _STALE_ALLOWED:
            raise RuntimeError(f"scheduler integrity: {len(self._heap)} deadlines kept for {live} requests")

    def _next_s(self) -> float:
        while self._heap and self._heap[0][2].phase is Phase.ENDED:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else float("inf")
