"""What a manifest must satisfy beyond being readable; a JSON document may hold any type, and NaN."""

from itertools import pairwise
from pathlib import Path

from rankserve.records.json_values import is_finite, is_integer
from rankserve.records.ranker_version import (
    MANIFEST,
    Calibration,
    RankerManifest,
    RankerVersionError,
    read_manifest,
    verify_files,
)

# Beyond any ranker's; tokenizers without a limit state 10**30.
LONGEST = 65_536


def read_version(folder: Path) -> RankerManifest:
    """Reads a version folder's manifest and checks it and every file it lists.

    Raises:
        RankerVersionError: what is missing, damaged or out of range.
    """
    manifest = read_manifest(folder)
    check_manifest(folder, manifest)
    verify_files(folder, manifest)
    return manifest


def check_manifest(folder: Path, manifest: RankerManifest) -> None:
    """Checks a manifest alone; only one that passes has fields of the types that it declares.

    Raises:
        RankerVersionError: which field is out of range.
    """
    problem = _problem(folder, manifest)
    if problem:
        raise RankerVersionError(f"{folder}: {MANIFEST} {problem}")


def _problem(folder: Path, manifest: RankerManifest) -> str:
    calibration = manifest.calibration
    knots = (
        () if calibration is None else (calibration.scores, calibration.tokens_p50, calibration.tokens_p90)
    )
    texts = (
        manifest.precision,
        manifest.base_model,
        manifest.created_at,
        manifest.licence,
        manifest.optimization,
    )
    if not is_integer(manifest.version) or (manifest.name, str(manifest.version)) != (
        folder.parent.name,
        folder.name,
    ):
        return f"names itself {manifest.name}/{manifest.version}; a version may not be moved or renamed"
    if not all(isinstance(text, str) for text in texts):
        return "states a precision, base_model, created_at, licence or optimization that is not text"
    if not isinstance(manifest.sha256, dict) or not all(isinstance(v, str) for v in manifest.sha256.values()):
        return "states no sha256 by file name"
    if not all(isinstance(text, str) for text in manifest.training_data):
        return "states training_data that is not a list of texts"
    if not isinstance(manifest.versions, dict) or not all(
        isinstance(text, str) for text in manifest.versions.values()
    ):
        return "states no versions by package name"
    if not is_integer(manifest.max_length) or not 1 <= manifest.max_length <= LONGEST:
        return f"states max_length {manifest.max_length!r}, not an integer from 1 to {LONGEST}"
    if not is_integer(manifest.pad_token_id) or not 0 <= manifest.pad_token_id < 2**31:
        return f"states pad_token_id {manifest.pad_token_id!r}, not a token id"
    if manifest.truncation_side not in ("left", "right"):
        return f"states truncation_side {manifest.truncation_side!r}, not 'left' or 'right'"
    if not is_finite(manifest.neutral_score):
        return f"states neutral_score {manifest.neutral_score!r}, not a finite number"
    if not all(is_finite(value) for values in knots for value in values):
        return "states a calibration with values that are not finite numbers"
    if calibration is not None and (problem := _calibration_problem(calibration)):
        return f"states a calibration {problem}; export the ranker again"
    if (coverage := manifest.coverage) is not None and not all(
        0 <= share <= 1
        for share in (coverage.p50, coverage.p90, *coverage.p50_by_score, *coverage.p90_by_score)
    ):
        return "states a coverage with shares that are not from 0 to 1"
    if not isinstance(manifest.metrics, dict) or not all(map(is_finite, manifest.metrics.values())):
        return "states metrics that are not finite numbers"
    return ""


def _calibration_problem(calibration: Calibration) -> str:
    p50, p90 = calibration.tokens_p50, calibration.tokens_p90
    for name, tokens in (("p50", p50), ("p90", p90)):
        if min(tokens) < 0:
            return f"whose {name} is negative ({min(tokens):g} tokens)"
        for longer, shorter in pairwise(tokens):
            if shorter > longer:
                return (
                    f"whose {name} rises from {longer:g} to {shorter:g} tokens, but a higher score means a "
                    "shorter answer"
                )
    for score, median, high in zip(calibration.scores, p50, p90, strict=True):
        if median > high:
            return f"whose p50 ({median:g} tokens) is above its p90 ({high:g}) at score {score:g}"
    return ""
