"""Does a version still score as it did where it was exported?"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rankserve.records.ranker_version import RankerManifest, RankerVersionError
from rankserve.server.ranking.errors import OtherScoresError, ScoringError

# Of the scale of the version's scores, as `_scale` says. Hardware that rounds otherwise moves an int8 or fp16
# score by less than this, a wrong kernel, tokenizer or provider by more. GPUs multiply fp32 as TF32, with the
# ten bits of fp16.
_FP32_ON_CPU = 1e-3
_FP32_ELSEWHERE = 1e-2
_COARSE = 2e-2


def check_probes(
    folder: Path,
    manifest: RankerManifest,
    score: Callable[[Sequence[str]], npt.NDArray[np.float64]],
    *,
    on_cpu: bool = True,
) -> float | None:
    """Scores the manifest's probe prompts and compares with what the exporter recorded.

    Each alone, and then all together: there are kernels that are wrong only where a batch is padded. Allowed
    is a share of the range of the calibration's knots (without one, of the recorded probes): what a
    difference does to the order of prompts depends on how far apart scores are, not on how large.

    Args:
        folder: of the version, for the message.
        manifest: its manifest.
        score: its loaded model.
        on_cpu: whether ONNX Runtime's CPU provider runs it.

    Returns:
        The largest difference; None if the version was exported without probes.

    Raises:
        RankerVersionError: a probe has no finite score.
        OtherScoresError: a probe has another score than was recorded.
    """
    if not manifest.probes:
        return None
    recorded = np.array([probe.score for probe in manifest.probes])
    try:
        alone = np.array([score([probe.prompt])[0] for probe in manifest.probes])
        together = score([probe.prompt for probe in manifest.probes])
    except ScoringError as error:
        raise RankerVersionError(f"{folder}: fails on a prompt it was exported with: {error}") from error
    difference = float(np.abs([alone - recorded, together - recorded]).max())
    tolerance = _share(manifest.precision, on_cpu) * _scale(manifest)
    if not difference <= tolerance:
        raise OtherScoresError(
            f"{folder}: scores here differ from those recorded at export by {difference:.2g}, allowed are "
            f"{tolerance:.2g}: ONNX Runtime runs this model wrongly here; serve another version "
            "(`rankserve models rollback`), try another release or provider of ONNX Runtime, or export with "
            "--precision fp32"
        )
    return difference


def _share(precision: str, on_cpu: bool) -> float:
    if precision != "fp32":
        return _COARSE
    return _FP32_ON_CPU if on_cpu else _FP32_ELSEWHERE


def _scale(manifest: RankerManifest) -> float:
    """Range of the calibration's knots, else of the recorded scores; their size if both are one point."""
    recorded = [probe.score for probe in manifest.probes]
    knots = () if manifest.calibration is None else manifest.calibration.scores
    for scores in (knots, recorded):
        if scores and max(scores) > min(scores):
            return max(scores) - min(scores)
    return max(1.0, *map(abs, recorded))
