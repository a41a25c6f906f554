"""Scores of a workload: from a ranker version, or true lengths made worse."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rankserve.client.evaluation.columns import Integers, Numbers
from rankserve.client.evaluation.degraded import TOLERANCE, degraded_scores
from rankserve.progress import stage
from rankserve.server.ranking.calibration import expected_tokens
from rankserve.server.ranking.repository import ModelRepository, bundled_repository

_CHUNK = 256


@dataclass(slots=True, frozen=True, eq=False)
class Scores:
    """What is predicted for each request, arrays of shape [requests].

    Attributes:
        score: higher = served sooner.
        expected_tokens: median output length; None without a calibration.
        expected_tokens_p90: its 90th percentile.
        ranker_version: "name/number"; empty for degraded lengths.
        notes: what a reader must know of them.
    """

    score: Numbers
    expected_tokens: Numbers | None
    expected_tokens_p90: Numbers | None
    ranker_version: str = ""
    notes: tuple[str, ...] = ()

    def take(self, which: Integers) -> "Scores":
        """Of these requests alone."""
        p50, p90 = self.expected_tokens, self.expected_tokens_p90
        return Scores(
            self.score[which],
            None if p50 is None else p50[which],
            None if p90 is None else p90[which],
            self.ranker_version,
            self.notes,
        )


def ranker_scores(
    prompts: Sequence[str],
    *,
    repository: Path | None,
    name: str | None,
    version: int | None,
    threads: int,
) -> Scores:
    """Scores of the prompts by a ranker version; one that cannot be scored gets the neutral score.

    Args:
        prompts: equal ones are scored once.
        repository: folder of ranker versions; None: the bundled one.
        name, version: as in `ModelRepository.resolve`.
        threads: that the model may use.

    Raises:
        RankerVersionError: no such version, or it cannot be used.
    """
    # ONNX Runtime takes a good part of a second to import.
    from rankserve.records.manifest_checks import read_version
    from rankserve.server.ranking.session import OnnxScorer
    from rankserve.server.ranking.worker import score_each

    folder = ModelRepository(repository or bundled_repository()).resolve(name, version)
    manifest = read_version(folder)
    scorer = OnnxScorer(folder, manifest, threads=threads)
    # In order of length, so that little of a batch is padding.
    distinct = sorted(set(prompts), key=len)
    scores: dict[str, float] = {}
    failed = 0
    with stage(f"scoring with {manifest.name}/{manifest.version}", len(distinct), "prompts") as scoring:
        for start in range(0, len(distinct), _CHUNK):
            chunk = distinct[start : start + _CHUNK]
            outcomes = score_each(scorer.score, chunk)
            good = [outcome if isinstance(outcome, float) else None for outcome in outcomes]
            failed += good.count(None)
            for prompt, known in zip(chunk, good, strict=True):
                scores[prompt] = manifest.neutral_score if known is None else known
            scoring.advance(len(chunk))
    notes = (f"{failed} prompts could not be scored and got the neutral score",) if failed else ()
    score = np.array([scores[prompt] for prompt in prompts])
    reference = f"{manifest.name}/{manifest.version}"
    if manifest.calibration is None:
        return Scores(score, None, None, reference, notes)
    calibration = manifest.calibration
    with stage(f"looking up expected lengths of {len(prompts):,} requests"):
        expected = np.array([expected_tokens(calibration, value) for value in score.tolist()])
    return Scores(score, expected[:, 0], expected[:, 1], reference, notes)


def degraded(output_tokens: Integers, tau: float, seed: int) -> Scores:
    """True lengths made worse until Kendall's tau is `tau`, with expected lengths calibrated on themselves.

    Raises:
        ValueError: `tau` cannot be, or all lengths are equal.
    """
    made = degraded_scores(output_tokens, tau, seed)
    notes = ["expected lengths are calibrated on the workload itself: no real ranker's would be as good"]
    if abs(made.tau - tau) > TOLERANCE:
        notes.append(f"tau {tau:g} cannot be met with these lengths; the scores have {made.tau:.3f}")
    return Scores(made.score, made.expected_tokens, made.expected_tokens_p90, notes=tuple(notes))
