"""How well the ranker orders the requests that finish, while it serves."""

from collections import OrderedDict, deque

from rankserve.server.errors import RequestError
from rankserve.server.events import Finished
from rankserve.server.metrics.kendall import kendall_tau_b
from rankserve.server.requests import LiveRequest

# Ranker versions remembered: the active one, what it replaced, and what a rollback went through.
_VERSIONS = 4


class _Window:
    """The latest results of one version."""

    __slots__ = ("_results", "_stale", "_tau")

    def __init__(self, size: int) -> None:
        self._results: deque[tuple[float, int]] = deque(maxlen=size)
        self._stale = False
        self._tau: float | None = None

    def __len__(self) -> int:
        return len(self._results)

    def add(self, score: float, output_tokens: int) -> None:
        self._results.append((-score, output_tokens))
        self._stale = True

    def tau(self) -> float | None:
        if self._stale:
            negated_scores, output_tokens = zip(*self._results, strict=True)
            self._tau = kendall_tau_b(negated_scores, output_tokens)
            self._stale = False
        return self._tau


class LiveTau:
    """Kendall's tau-b between the negated score and the output tokens of finished requests (an observer).

    1 is the perfect order, 0 none; a good ranker is positive. Over the last `window` requests that each
    ranker version scored. Requests with the neutral score say nothing of a version and do not count, nor do
    those that were cancelled or failed.

    An answer cut at `max_tokens` counts with the tokens it was cut at: that is what it cost. Answers cut at
    the same length are ties, which tau-b leaves out of the comparison. Where requests set different limits,
    one cut early counts as short though it would have gone on: tau is about the lengths that were *served*.

    Args:
        window: requests of each version.
    """

    def __init__(self, window: int = 1000) -> None:
        if window < 2:
            raise ValueError(f"a window of {window} requests has no order to look at; give 2 or more")
        self._size = window
        # The version whose request finished last is last.
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def values(self) -> list[tuple[str, float | None, int]]:
        """(ranker version, tau or None where there is no order, requests in its window), the latest first.

        Computed when asked for after a new result: about 0.5 ms for 1,000 requests.
        """
        return [(version, window.tau(), len(window)) for version, window in reversed(self._windows.items())]

    def ended(self, live: LiveRequest) -> None:
        outcome = live.outcome
        if not isinstance(outcome, Finished) or not outcome.ranker_version:
            return
        window = self._windows.get(outcome.ranker_version)
        if window is None:
            window = self._windows[outcome.ranker_version] = _Window(self._size)
            if len(self._windows) > _VERSIONS:
                self._windows.popitem(last=False)
        self._windows.move_to_end(outcome.ranker_version)
        window.add(outcome.score, outcome.output_tokens)

    def accepted(self, live: LiveRequest) -> None: ...

    def refused(self, error: RequestError) -> None: ...

    def scored(self, live: LiveRequest, duration_s: float) -> None: ...

    def started(self, live: LiveRequest) -> None: ...
