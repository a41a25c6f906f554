"""The ranker, as what scores requests on their way to an engine."""

import asyncio
from collections.abc import Sequence

import structlog

from rankserve.records.ranker_version import RankerVersionError
from rankserve.server.gateway.settings import GatewaySettings
from rankserve.server.ranking.ranker import PromptScore, Ranker
from rankserve.server.ranking.repository import ModelRepository, bundled_repository
from rankserve.server.scheduling.policies import Policy

log = structlog.get_logger(__name__)


class PromptScorer:
    """Scores the texts of requests, in batches of what arrives together.

    Args:
        settings: which ranker, and how it runs.
        policy: what the scores are for.

    Attributes:
        reference: of the version in use, "name/3"; "" before `start`, and without one.
        scored_total: requests that were scored.
        neutral_total: requests that had nothing to score, or whose scoring failed or was late.
    """

    def __init__(self, settings: GatewaySettings, policy: Policy) -> None:
        self.reference = ""
        self.scored_total = 0
        self.neutral_total = 0
        self._settings = settings
        self._policy = policy
        repository = ModelRepository(settings.repository or bundled_repository())
        self._ranker = Ranker(repository, settings.ranker_settings)

    async def start(self) -> None:
        """Loads the version, if the policy has any use for one.

        Raises:
            RankerVersionError: it cannot be used, or gives no lengths and the policy needs them.
        """
        if not (self._policy.needs_scores or self._policy.needs_expected_tokens):
            return
        loaded = await self._ranker.load(
            self._settings.ranker, self._settings.ranker_version, allow_other_scores=True
        )
        if self._policy.needs_expected_tokens and loaded.manifest.calibration is None:
            await loaded.aclose()
            raise RankerVersionError(
                f"policy {self._policy.name!r} needs expected lengths, and {loaded.reference} has no"
                " calibration; export a version with validation data, or take policy 'ranking'"
            )
        await self._ranker.activate(loaded, move_pointer=False)
        self.reference = loaded.reference

    async def score(self, texts: Sequence[str]) -> PromptScore | None:
        """The score of a request: of several texts that of the one that takes longest.

        Never fails: what cannot be scored in time gets the neutral score. None without a ranker.
        """
        active = self._ranker.active
        if active is None:
            return None
        try:
            scores = await asyncio.gather(*map(self._ranker.score, texts))
        except Exception as error:
            # Only its type: the text of an unknown error may quote the prompt.
            log.error("scoring_failed", error=type(error).__name__)
            scores = []
        known = [score for score in scores if score.ranker_version]
        if known:
            self.scored_total += 1
            return min(known, key=lambda score: score.score)
        self.neutral_total += 1
        return active.neutral()

    async def aclose(self) -> None:
        await self._ranker.aclose()
