"""Scoring of requests that wait already, each in a task of its own."""

import asyncio
from collections.abc import Callable

from rankserve.server.ranking.ranker import PromptScore, Ranker
from rankserve.server.requests import LiveRequest


class LiveScoring:
    """Asks the ranker for scores, and lets go of those that are not needed any more.

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
        self.pending += 1
        live.scoring = asyncio.create_task(self._score_live(live))

    def stop(self, live: LiveRequest) -> None:
        """It needs no score any more, if it ever did."""
        if live.scoring is not None:
            live.scoring.cancel()
            self._over(live)

    async def _score_live(self, live: LiveRequest) -> None:
        asked_s = self._clock()
        try:
            score = await self._score(live.spec.ranking_text)
            self._over(live)
            self._scored(live, score, self._clock() - asked_s)
        except Exception:
            self._over(live)
            self._failed(live)
            raise

    async def _score(self, ranking_text: str) -> PromptScore:
        while True:
            score = await self._ranker.score(ranking_text)
            active = self._ranker.active
            if active is None or score.ranker_version == active.reference:
                return score
            if score.ranker_version == "":
                return active.neutral()
            # The version was swapped meanwhile, and scores of two versions must not meet in one queue.

    def _over(self, live: LiveRequest) -> None:
        if live.scoring is not None:
            live.scoring = None
            self.pending -= 1
