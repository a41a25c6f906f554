"""A ranker version in memory, ready to score."""

from collections.abc import Sequence
from dataclasses import dataclass

from rankserve.records.ranker_version import RankerManifest
from rankserve.server.ranking.calibration import expected_tokens
from rankserve.server.ranking.errors import ScoringError
from rankserve.server.ranking.micro_batcher import MicroBatcher, Waiter
from rankserve.server.ranking.worker import Outcome, ScoreFunction


@dataclass(slots=True, frozen=True)
class PromptScore:
    """What the ranker thinks of a prompt.

    Attributes:
        score: higher = shorter answer expected. Comparable only within one `ranker_version`.
        ranker_version: "name/3"; empty if no ranker scored the prompt and the score is neutral.
        expected_tokens_p50: median of the output length to expect, in tokens; None without a calibration.
        expected_tokens_p90: its 90th percentile.
    """

    score: float
    ranker_version: str
    expected_tokens_p50: float | None
    expected_tokens_p90: float | None


class LoadedVersion:
    """A version whose model is in memory. Whoever loaded it closes it, unless `Ranker.activate` took it.

    Args:
        manifest: of the version.
        score: blocking score function of its model.
        max_batch: most prompts in one call of `score`.
        timeout_ms: how long a single prompt may take from arrival to score.
        providers: ONNX Runtime execution providers that run the model, the preferred one first.
        missing_providers: those that were asked for and not obtained.
        problem: what is wrong with it though it is served; "" if nothing is.
    """

    def __init__(
        self,
        manifest: RankerManifest,
        score: ScoreFunction,
        *,
        max_batch: int,
        timeout_ms: float,
        providers: tuple[str, ...] = (),
        missing_providers: tuple[str, ...] = (),
        problem: str = "",
    ) -> None:
        self.manifest = manifest
        self.providers = providers
        self.missing_providers = missing_providers
        self.problem = problem
        self.reference = f"{manifest.name}/{manifest.version}"
        self._batcher = MicroBatcher(score, max_batch=max_batch, timeout_ms=timeout_ms)

    def submit(self, text: str) -> Waiter:
        """Asks for the score of one prompt, batched with others that arrive meanwhile; see `MicroBatcher`."""
        return self._batcher.submit(text)

    async def score_many(self, texts: Sequence[str]) -> list[PromptScore]:
        """Scores many prompts, without the timeout of single ones and without starving those.

        A prompt that fails gets the neutral score.

        Raises:
            ScoringError: the model hangs, or the version is closed.
        """
        return [self.read(outcome) for outcome in await self._batcher.score_many(texts)]

    def read(self, outcome: Outcome) -> PromptScore:
        """What an outcome of its model says of the prompt; the neutral score if that failed."""
        if isinstance(outcome, ScoringError):
            return self.neutral()
        return self._prompt_score(outcome, self.reference)

    def neutral(self) -> PromptScore:
        """What a prompt gets that could not be scored: the median score, and no version."""
        return self._prompt_score(self.manifest.neutral_score, "")

    async def aclose(self) -> None:
        """Refuses new prompts and releases the model once those being scored are done."""
        await self._batcher.aclose()

    def _prompt_score(self, score: float, ranker_version: str) -> PromptScore:
        if self.manifest.calibration is None:
            return PromptScore(score, ranker_version, None, None)
        p50, p90 = expected_tokens(self.manifest.calibration, score)
        return PromptScore(score, ranker_version, p50, p90)
