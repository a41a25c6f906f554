"""Changing the ranker version under load."""

import asyncio

import structlog

from rankserve.server.dispatcher import Dispatcher
from rankserve.server.ranking.errors import RankerVersionError, ScoringError
from rankserve.server.ranking.ranker import LoadedVersion, PromptScore
from rankserve.server.requests import LiveRequest
from rankserve.server.scheduling.policies import Policy
from rankserve.server.scheduling.request import Phase
from rankserve.server.scheduling.scheduler import SchedulerSettings, needs_expected_tokens
from rankserve.server.slices import in_slices

log = structlog.get_logger(__name__)

# Requests that may remain without a score of the new version when the swap happens.
_FEW = 32
_CHUNK = 512


def check_policy_fits(policy: Policy, settings: SchedulerSettings, loaded: LoadedVersion | None) -> None:
    """Raises RankerVersionError if a policy needs what the ranker, if there is one, does not give."""
    who = needs_expected_tokens(policy, settings)
    if loaded is None:
        if who or policy.needs_scores:
            raise RankerVersionError(
                f"{who or f'policy {policy.name!r}'} needs a ranker, and the server has none;"
                " start it with one, or take policy 'fcfs'"
            )
    elif who and loaded.manifest.calibration is None:
        raise RankerVersionError(
            f"{who} needs expected lengths, but the server has {loaded.reference}, which has no calibration;"
            " export a version with validation data, or do without (policy 'ranking' needs only scores)"
        )


class RankerSwap:
    """Activates versions one at a time.

    The old version goes on serving while the new one scores everything that is live. Then the new version
    becomes the active one, and all get their new scores. Nobody starts for the moment that takes: no choice
    is ever made between scores of two versions.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._lock = asyncio.Lock()

    async def activate(self, name: str, version: int | None) -> tuple[LoadedVersion, int]:
        """Returns the version now active and how many waiting requests were re-scored.

        Raises:
            RankerVersionError: the version cannot be used; nothing has changed.
        """
        async with self._lock:
            loaded = await self._dispatcher.ranker.take_ready(name, version)
            try:
                scheduler = self._dispatcher.scheduler
                check_policy_fits(scheduler.policy, scheduler.settings, loaded)
                scores = await self._score_live(loaded)
            except BaseException:
                await loaded.aclose()
                raise
            queued = self._queued()
            swapping = asyncio.create_task(self._swap(loaded, queued, scores))
            try:
                await asyncio.shield(swapping)
            except asyncio.CancelledError:
                # Whoever asked is gone; half of a swap would leave scores of two versions in the queue.
                await swapping
                raise
            await self._dispatcher.ranker.move_pointer()
            # Those that were queued while the last chunk was scored have a neutral score so far.
            late = [live for live in queued if live.spec.id not in scores and live.outcome is None]
            await self._rescore_late(loaded, late)
            return loaded, sum(live.request.phase is Phase.WAITING for live in queued)

    async def load(self, name: str, version: int | None) -> LoadedVersion:
        """Keeps a version ready, for `activate`. Raises RankerVersionError if it cannot be used."""
        async with self._lock:
            return await self._dispatcher.ranker.make_ready(name, version)

    async def _swap(
        self, loaded: LoadedVersion, queued: list[LiveRequest], scores: dict[str, PromptScore]
    ) -> None:
        with self._dispatcher.no_starts():
            await self._dispatcher.ranker.activate(loaded, move_pointer=False)
            async for some in in_slices(queued):
                left = [live for live in some if live.outcome is None]
                self._dispatcher.rescore({live: scores.get(live.spec.id, loaded.neutral()) for live in left})

    def _queued(self) -> list[LiveRequest]:
        return [live for live in self._dispatcher.live_requests() if live.scoring is None]

    async def _score_live(self, loaded: LoadedVersion) -> dict[str, PromptScore]:
        scores: dict[str, PromptScore] = {}
        missing = self._queued()
        while missing:
            for start in range(0, len(missing), _CHUNK):
                chunk = missing[start : start + _CHUNK]
                scored = await loaded.score_many([live.spec.ranking_text for live in chunk])
                scores.update(zip((live.spec.id for live in chunk), scored, strict=True))
            before = len(missing)
            missing = [live for live in self._queued() if live.spec.id not in scores]
            if len(missing) <= _FEW or len(missing) >= before:
                break
        return scores

    async def _rescore_late(self, loaded: LoadedVersion, late: list[LiveRequest]) -> None:
        try:
            scored = await loaded.score_many([live.spec.ranking_text for live in late])
        except ScoringError as error:
            log.warning(
                "neutral_scores_kept", version=loaded.reference, requests=len(late), reason=str(error)
            )
            return
        self._dispatcher.rescore(
            {live: score for live, score in zip(late, scored, strict=True) if live.outcome is None}
        )
