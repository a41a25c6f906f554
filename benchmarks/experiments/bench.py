"""What every experiment is given, and what it returns."""

from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure

from rankserve.server.engines.simulated.profiles import Profile, find_profile

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
OUTPUT = ROOT / "out" / "experiments"
PAGE = ROOT / "docs" / "results.md"

BATCH_CAP = 64
# Sums of kernels leave out what a real engine's CPU does in a step: 1 to 4 ms.
CPU_OVERHEAD_MS = 1.5


@dataclass(slots=True, frozen=True)
class Bench:
    """Attributes:
    data: folder with ``lengths/`` and ``traces/``.
    output: where results, scores and rankers go.
    repository: where rankers are looked for, ``<repository>/<data set>/<version>``.
    seeds: one run each; arrivals, the choice of prompts and noise are drawn with them.
    scale: fraction of each experiment's number of requests; 1 but in tests.
    threads: simulations at a time.
    """

    data: Path
    output: Path
    repository: Path
    seeds: tuple[int, ...]
    scale: float
    threads: int

    def count(self, requests: int) -> int:
        """This many requests, scaled."""
        return max(round(requests * self.scale), 1)


@dataclass(slots=True, frozen=True)
class Section:
    """One experiment's results.

    Attributes:
        shows: what they show, in two plain sentences, with the figures of this run.
        paper: what the paper has instead.
        setting: requests, batch cap, KV and all else a figure depends on.
        tables: Markdown.
        figure: the plot.
        rows: for the CSV file.
    """

    shows: str
    paper: str
    setting: str
    tables: str
    figure: Figure
    rows: list[dict[str, object]]


def engine(name: str, batch_cap: int = BATCH_CAP, kv_blocks: int | None = None) -> Profile:
    """A built-in profile with this batch cap, CPU overhead, and these KV blocks where given."""
    profile = find_profile(name)
    return replace(
        profile,
        max_sequences=batch_cap,
        kv_blocks=kv_blocks or profile.kv_blocks,
        step_times=profile.step_times._replace(overhead_ms=CPU_OVERHEAD_MS),
    )


def describe(profile: Profile) -> str:
    """The limits of an engine, for a table's caption."""
    return (
        f"`{profile.name}`: batch cap {profile.max_sequences} sequences, token budget"
        f" {profile.max_batched_tokens:,} a step, {profile.kv_blocks:,} KV blocks of {profile.block_size}"
        f" tokens, {CPU_OVERHEAD_MS} ms of CPU overhead a step"
    )
