"""Does a version still score as it did where it was exported?"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rankserve.records.ranker_version import RankerManifest, RankerVersionError
from rankserve.server.ranking.errors import OtherScoresError, ScoringError

# Of a score; of the largest where scores exceed 1. Hardware that rounds otherwise moves an int8 or fp16 score
# by less than this, a wrong kernel, tokenizer or provider by more.
_TOLERANCES = {"fp32": 1e-3}
_COARSE_TOLERANCE = 2e-2


def check_probes(
    folder: Path, manifest: RankerManifest, score: Callable[[Sequence[str]], npt.NDArray[np.float64]]
) -> float | None:
    """Scores the manifest's probe prompts and compares with what the exporter recorded.

    Each alone, and then all together: there are kernels that are wrong only where a batch is padded.

    Args:
        folder: of the version, for the message.
        manifest: its manifest.
        score: its loaded model.

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
    largest = max(1.0, float(np.abs(recorded).max()))
    tolerance = _TOLERANCES.get(manifest.precision, _COARSE_TOLERANCE) * largest
    if not difference <= tolerance:
        raise OtherScoresError(
            f"{folder}: scores here differ from those recorded at export by {difference:.2g}, allowed are "
            f"{tolerance:.2g}: ONNX Runtime runs this model wrongly here; serve another version "
            "(`rankserve models rollback`), try another release or provider of ONNX Runtime, or export with "
            "--precision fp32"
        )
    return difference
