"""A ranker version on disk.

``<repository>/<name>/<integer>/{model.onnx, tokenizer.json, ranker.json, README.md}``.

The exporter writes it, the server reads it, neither imports the other. A version is complete once its
``ranker.json`` is there and every file it lists has the sha256 it states. Which version is active is said by
``active_pointer``.
"""

import errno
import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rankserve.records.json_values import from_json
from rankserve.records.manifest_migration import SCHEMA_VERSION, NewerSchemaError, migrate

MANIFEST = "ranker.json"
MODEL = "model.onnx"
TOKENIZER = "tokenizer.json"
MODEL_CARD = "README.md"
# What the API can name: its version is a uint32, and 0 asks for the newest.
VERSIONS = range(1, 2**32)


class RankerVersionError(ValueError):
    """A ranker version that is missing, damaged or of another schema. The message says which and why."""


@dataclass(slots=True, frozen=True)
class Calibration:
    """Score to expected output tokens: piecewise linear between knots, constant beyond the ends.

    Attributes:
        scores: knots, strictly increasing. Higher score = shorter answer.
        tokens_p50: median output length at each knot, non-increasing.
        tokens_p90: 90th percentile at each knot, non-increasing.
    """

    scores: tuple[float, ...]
    tokens_p50: tuple[float, ...]
    tokens_p90: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.scores or not len(self.scores) == len(self.tokens_p50) == len(self.tokens_p90):
            raise ValueError("a calibration needs as many p50 and p90 values as scores, at least one")
        if any(left >= right for left, right in zip(self.scores, self.scores[1:], strict=False)):
            raise ValueError("calibration scores must be strictly increasing")


@dataclass(slots=True, frozen=True)
class Coverage:
    """How often answers were as short as the calibration says, on prompts that it was not fitted to.

    A calibrated p50 covers half of the answers and a p90 nine in ten. Censored answers (cut off at a limit)
    count as longer than what was calibrated, so with many of them the shares are lower bounds.

    Attributes:
        prompts: how many were held out, in turn.
        answers: to these prompts.
        censored: how many of the answers were cut off.
        p50: share of answers at or below the calibrated median.
        p90: share at or below the calibrated 90th percentile.
        p50_by_score: ``p50`` by group of prompts of equal size, the lowest scores (longest answers) first:
            ten groups, fewer where there are few prompts.
        p90_by_score: ``p90`` of the same groups.
    """

    prompts: int
    answers: int
    censored: int
    p50: float
    p90: float
    p50_by_score: tuple[float, ...]
    p90_by_score: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.p50_by_score) != len(self.p90_by_score):
            raise ValueError("a coverage needs as many p50 as p90 shares by score")

    def __str__(self) -> str:
        """One line for people."""
        groups = "; ".join(
            f"{name} {min(shares):.1%} to {max(shares):.1%} by score"
            for name, shares in (("p50", self.p50_by_score), ("p90", self.p90_by_score))
            if shares
        )
        cut = f", {self.censored} of them cut off" if self.censored else ""
        return (
            f"p50 covers {self.p50:.1%} and p90 {self.p90:.1%} of {self.answers} answers to {self.prompts} "
            f"held-out prompts{cut}" + (f" ({groups})" if groups else "")
        )


@dataclass(slots=True, frozen=True)
class Probe:
    """A fixed made-up prompt and the score that the exported files gave it."""

    prompt: str
    score: float


@dataclass(slots=True, frozen=True)
class RankerManifest:
    """What ``ranker.json`` holds.

    Attributes:
        name: the ranker's name, its folder under the repository.
        version: its integer version, from 1.
        sha256: of each file of the version except ``ranker.json`` itself, by file name.
        max_length: longest prompt in ranker tokens; the scorer keeps the end of a longer one (the last
            tokens) if ``truncation_side`` is "left", its beginning if "right".
        pad_token_id: token id used to pad a batch.
        precision: "int8", "fp16" or "fp32".
        base_model: what was fine-tuned, e.g. "opt-mini" or "facebook/opt-125m".
        neutral_score: the median score on the validation split; used when scoring fails or is late.
        calibration: score -> expected tokens; None if the version has none.
        coverage: how well the calibration holds; None if nobody measured it.
        probes: prompts whose scores every machine must reproduce.
        optimization: level of graph optimisation in the file, "O1" to "O4"; "" if there is none.
        metrics: figures such as kendall_tau, kendall_tau_fp32, kendall_tau_ceiling, parity_max_difference.
        training_data: names of the training data and their licences, for the model card.
        licence: SPDX id or a sentence.
        created_at: RFC 3339.
        versions: of the packages that made it.
    """

    name: str
    version: int
    sha256: dict[str, str]
    max_length: int
    pad_token_id: int
    precision: str
    base_model: str
    neutral_score: float
    calibration: Calibration | None = None
    truncation_side: str = "left"
    metrics: dict[str, float] = field(default_factory=dict)
    training_data: tuple[str, ...] = ()
    licence: str = ""
    created_at: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    coverage: Coverage | None = None
    probes: tuple[Probe, ...] = ()
    optimization: str = ""

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA_VERSION, **asdict(self)}, indent=2) + "\n"


def read_manifest(folder: Path) -> RankerManifest:
    """Reads ``ranker.json`` of a version folder, of this release or any before.

    Raises:
        RankerVersionError: missing, not JSON, made by a newer release, or fields missing.
    """
    path = folder / MANIFEST
    try:
        _check_regular(path)
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        document = migrate(document)
        calibration = document.pop("calibration", None)
        if calibration is not None:
            calibration = Calibration(**{key: tuple(values) for key, values in calibration.items()})
        coverage = document.pop("coverage")
        return RankerManifest(
            calibration=calibration,
            coverage=None if coverage is None else from_json(Coverage, coverage),
            probes=tuple(from_json(Probe, probe) for probe in document.pop("probes")),
            training_data=tuple(document.pop("training_data", ())),
            **document,
        )
    except FileNotFoundError:
        raise RankerVersionError(f"{folder}: no {MANIFEST}; not a ranker version, or half written") from None
    except NewerSchemaError as error:
        raise RankerVersionError(f"{path}: {error}") from None
    except KeyError as error:
        raise RankerVersionError(f"{path}: unreadable (it lacks {error})") from None
    except (OSError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise RankerVersionError(f"{path}: unreadable ({error})") from None


def verify_files(folder: Path, manifest: RankerManifest) -> None:
    """Checks that every file the manifest lists is there with its sha256.

    Raises:
        RankerVersionError: names the first file that is missing or damaged.
    """
    for required in (MODEL, TOKENIZER):
        if required not in manifest.sha256:
            raise RankerVersionError(f"{folder}: {MANIFEST} lists no {required}")
    for name, expected in manifest.sha256.items():
        if Path(name).name != name or "\0" in name:
            raise RankerVersionError(f"{folder}: {MANIFEST} lists {name!r}, which is not a plain file name")
        try:
            _check_regular(folder / name)
            actual = sha256_of(folder / name)
        except OSError as error:
            raise RankerVersionError(f"{folder}: {name} is unreadable ({error.strerror})") from None
        if actual != expected:
            raise RankerVersionError(f"{folder}: {name} is damaged (its sha256 is not the one in {MANIFEST})")


def _check_regular(path: Path) -> None:
    """A pipe or device would keep its reader for ever, and one thread of the server with it."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def version_numbers(repository: Path, name: str) -> list[int]:
    """The versions of a name that the API can name, ascending, damaged ones included.

    A folder `01` is none: there would be two of number 1, or none where its path is looked up.
    """
    folder = repository / name
    if not folder.is_dir():
        return []
    entries = {entry.name for entry in folder.iterdir() if entry.is_dir()}
    numbers = {int(name) for name in entries if name.isdecimal()}
    return sorted(number for number in numbers if number in VERSIONS and str(number) in entries)


def ranker_names(repository: Path) -> list[str]:
    """Names in a repository that have at least one version folder, sorted."""
    if not repository.is_dir():
        return []
    return sorted(
        entry.name
        for entry in repository.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and version_numbers(repository, entry.name)
    )


def write_atomically(path: Path, text: str) -> None:
    """Writes a small file so that a reader sees the old content or the new, also after a power cut."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames within a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
