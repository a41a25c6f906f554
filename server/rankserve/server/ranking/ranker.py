"""The active ranker version and its replacement without a pause."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from rankserve.records.manifest_checks import read_version
from rankserve.server.ranking.errors import OtherScoresError, RankerVersionError, ScoringError
from rankserve.server.ranking.loaded_version import LoadedVersion, PromptScore
from rankserve.server.ranking.probes import check_probes
from rankserve.server.ranking.repository import ModelRepository
from rankserve.server.ranking.throttled_log import ThrottledLog
from rankserve.server.ranking.worker import Outcome

if TYPE_CHECKING:
    from rankserve.records.ranker_version import RankerManifest
    from rankserve.server.ranking.session import OnnxScorer

__all__ = ["LoadedVersion", "PromptScore", "Ranker", "RankerSettings"]

log = structlog.get_logger(__name__)


@dataclass(slots=True, frozen=True)
class RankerSettings:
    """How versions are run.

    Attributes:
        providers: ONNX Runtime execution providers, the preferred one first.
        threads: threads that one run of the model may use.
        max_batch: most prompts in one batch.
        timeout_ms: how long a prompt may take from arrival to score before it gets the neutral score. In a
            burst this is what a request waits for its score, so it should exceed the time the burst takes to
            score; a short one turns ranking into FCFS exactly when a queue forms.
        require_provider: refuse a version when a provider asked for is not to be had, instead of a warning.
    """

    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    threads: int = 1
    max_batch: int = 64
    timeout_ms: float = 2000.0
    require_provider: bool = False


class Ranker:
    """Scores prompts with the active version of a repository.

    Attributes:
        active: the version in use; None until the first `activate`.
        ready: a version that was loaded to be activated; None if there is none.
        trouble: why the last prompt got a neutral score; "" since one did not.
        neutral_total: prompts that got a neutral score because the active version failed or was late.
    """

    def __init__(self, repository: ModelRepository, settings: RankerSettings) -> None:
        self.repository = repository
        self.settings = settings
        self.active: LoadedVersion | None = None
        self.ready: LoadedVersion | None = None
        self.trouble = ""
        self.neutral_total = 0
        self._log = ThrottledLog(time.monotonic)
        self._pointer_lock = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def scores(self) -> bool:
        """Whether there is a version to score prompts with."""
        return self.active is not None

    async def make_ready(self, name: str, version: int | None) -> LoadedVersion:
        """Loads a version and keeps it for `take_ready`, not that of before. Raises as `load`."""
        loaded = await self.load(name, version)
        before, self.ready = self.ready, loaded
        if before is not None:
            await before.aclose()
        return loaded

    async def take_ready(self, name: str, version: int | None) -> LoadedVersion:
        """The version that was made ready, if it is this one; else it is loaded now. Raises as `load`."""
        ready = self.ready
        if ready is None:
            return await self.load(name, version)
        folder = await asyncio.to_thread(self.repository.resolve, name, version)
        if self.ready is not ready or (folder.parent.name, folder.name) != (
            ready.manifest.name,
            str(ready.manifest.version),
        ):
            return await self.load(name, version)
        self.ready = None
        return ready

    async def load(
        self, name: str | None = None, version: int | None = None, *, allow_other_scores: bool = False
    ) -> LoadedVersion:
        """Reads, verifies and warms a version, off the event loop. The active version stays as it is.

        Args:
            name, version: as in `ModelRepository.resolve`.
            allow_other_scores: whether a version whose files are intact and whose scores are finite, but not
                those recorded at export, is logged as an error (and says so in `problem`) instead of
                refused. For start-up, where to refuse is an outage after an upgrade of ONNX Runtime or on
                another CPU; at run time there is a version to stay with.

        Raises:
            RankerVersionError: what is wrong with it.
        """
        manifest, scorer, problem = await asyncio.to_thread(self._load, name, version, allow_other_scores)
        settings = self.settings
        return LoadedVersion(
            manifest,
            scorer.score,
            max_batch=settings.max_batch,
            timeout_ms=settings.timeout_ms,
            providers=scorer.providers,
            missing_providers=tuple(p for p in settings.providers if p not in scorer.providers),
            problem=problem,
        )

    async def activate(self, loaded: LoadedVersion, *, move_pointer: bool = True) -> None:
        """Makes a loaded version the active one; the one before closes once its prompts are scored.

        Args:
            loaded: from `load`; the ranker closes it from now on.
            move_pointer: whether the repository's pointer follows. A repository that cannot be written is
                only logged. False at start-up, where nobody has chosen a version for good.
        """
        before, self.active = self.active, loaded
        if before is not None and before is not loaded:
            closing = asyncio.create_task(before.aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        if move_pointer:
            await self.move_pointer()

    async def move_pointer(self) -> None:
        """Makes the repository's pointer follow the active version; see `activate`."""
        async with self._pointer_lock:
            # Read within the lock: of two activations at once, the one that won in memory must win on disk.
            active = self.active
            if active is None:
                return
            manifest = active.manifest
            try:
                await asyncio.to_thread(self.repository.set_active, manifest.name, manifest.version)
            except (OSError, RankerVersionError) as error:
                log.warning("ranker_pointer_not_moved", version=active.reference, reason=str(error))

    async def score(self, text: str) -> PromptScore:
        """Scores a prompt with the active version. A ranker that fails or is late gives the neutral score."""
        active = self.active
        if active is None:
            return PromptScore(0.0, "", None, None)
        return self.read(active, await active.submit(text))

    def read(self, version: LoadedVersion, outcome: Outcome) -> PromptScore:
        """What a version's outcome says of a prompt; takes note of failures."""
        self.trouble = ""
        if isinstance(outcome, ScoringError):
            self.neutral_total += 1
            self.trouble = str(outcome)
            self._log.warning(
                "prompt_scored_neutral", kind=outcome.kind, version=version.reference, reason=self.trouble
            )
        return version.read(outcome)

    async def aclose(self) -> None:
        """Closes every version once its prompts are scored; new prompts get the neutral score."""
        for loaded in (self.active, self.ready):
            if loaded is not None:
                await loaded.aclose()
        await asyncio.gather(*self._closing)

    def _load(
        self, name: str | None, version: int | None, allow_other_scores: bool
    ) -> "tuple[RankerManifest, OnnxScorer, str]":
        # ONNX Runtime takes a good part of a second to import: here it costs neither the event loop nor
        # those who import this module for its types.
        from rankserve.server.ranking.session import OnnxScorer

        folder: Path = self.repository.resolve(name, version)
        # Hashed again even if the repository knows it: what is loaded now is what must be right.
        manifest = read_version(folder)
        settings = self.settings
        scorer = OnnxScorer(
            folder,
            manifest,
            providers=settings.providers,
            threads=settings.threads,
            require_provider=settings.require_provider,
        )
        try:
            check_probes(folder, manifest, scorer.score, on_cpu=scorer.on_cpu)
        except OtherScoresError as error:
            if not allow_other_scores:
                raise
            log.error(
                "ranker_scores_differ_from_export",
                version=f"{manifest.name}/{manifest.version}",
                reason=str(error),
            )
            return manifest, scorer, str(error)
        return manifest, scorer, ""
