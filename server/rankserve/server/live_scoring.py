"""Scoring of requests that wait already."""

from collections.abc import Callable
from functools import partial

from rankserve.server.ranking.micro_batcher import Waiter
from rankserve.server.ranking.ranker import LoadedVersion, PromptScore, Ranker
from rankserve.server.requests import LiveRequest


class LiveScoring:
    """Asks the ranker for scores, and lets go of those that are not needed any more.

    Without a task for each request: there may be tens of thousands.

    Args:
        ranker: that is asked.
        scored: takes a request's score and how long it took in seconds.
        failed: told of a request whose scoring is broken; the ranker's own failures give neutral scores.
        clock: the server's.

    Attributes:
        pending: how many are being scored.
    """

    def __init__(
        self,
        ranker: Ranker,
        scored: Callable[[LiveRequest, PromptScore, float], None],
        failed: Callable[[LiveRequest], None],
        clock: Callable[[], float],
    ) -> None:
        self.pending = 0
        self._ranker = ranker
        self._scored = scored
        self._failed = failed
        self._clock = clock

    def start(self, live: LiveRequest) -> None:
        """Asks for the request's score. There must be an active version."""
        self.pending += 1
        self._ask(live, self._clock())

    def stop(self, live: LiveRequest) -> None:
        """It needs no score any more, if it ever did."""
        if live.scoring is not None:
            live.scoring.cancel()
            self._over(live)

    def _ask(self, live: LiveRequest, asked_s: float) -> None:
        version = self._ranker.active
        if version is None:
            raise RuntimeError("there is no ranker version to score with")
        live.scoring = version.submit(live.spec.ranking_text)
        live.scoring.add_done_callback(partial(self._answered, live, version, asked_s))

    def _answered(self, live: LiveRequest, version: LoadedVersion, asked_s: float, waiter: Waiter) -> None:
        if waiter.cancelled():
            return
        try:
            score = self._ranker.read(version, waiter.result())
            if version is not self._ranker.active:
                # It was swapped meanwhile, and scores of two versions must not meet in one queue.
                self._ask(live, asked_s)
                return
            self._over(live)
            self._scored(live, score, self._clock() - asked_s)
        except Exception:
            self._over(live)
            self._failed(live)
            raise

    def _over(self, live: LiveRequest) -> None:
        if live.scoring is not None:
            live.scoring = None
            self.pending -= 1
