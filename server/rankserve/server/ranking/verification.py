"""Can this version be served here, and does it score as it was exported? The checks of a server's start."""

from dataclasses import dataclass
from pathlib import Path

from rankserve.records.manifest_checks import read_version
from rankserve.server.ranking.probes import check_probes
from rankserve.server.ranking.session import OnnxScorer


@dataclass(slots=True, frozen=True)
class Verified:
    """A version that passed.

    Attributes:
        providers: ONNX Runtime execution providers that ran it.
        probes: how many prompts had their scores compared with those recorded at export.
        max_difference: the largest difference; None without probes.
    """

    providers: tuple[str, ...]
    probes: int
    max_difference: float | None


def verify_version(folder: Path, *, provider: str = "CPUExecutionProvider") -> Verified:
    """Checks sums and manifest, loads the model, scores prompts up to the longest, compares the probes.

    Args:
        folder: of the version.
        provider: ONNX Runtime execution provider that must run it.

    Raises:
        RankerVersionError: what is wrong.
    """
    manifest = read_version(folder)
    scorer = OnnxScorer(folder, manifest, providers=(provider,), require_provider=True)
    difference = check_probes(folder, manifest, scorer.score, on_cpu=scorer.on_cpu)
    return Verified(scorer.providers, len(manifest.probes), difference)
