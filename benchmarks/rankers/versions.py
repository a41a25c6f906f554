"""Exported versions of runs, in int8."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from benchmarks.rankers.bench import Bench, relative
from benchmarks.rankers.runs import Run
from numpy.typing import NDArray

from rankserve.exporter.errors import GateError
from rankserve.exporter.export import ExportSettings, export_ranker
from rankserve.progress import tell
from rankserve.records.manifest_checks import read_version
from rankserve.records.ranker_version import MODEL, RankerManifest, version_numbers
from rankserve.server.ranking.session import OnnxScorer


@dataclass(slots=True, frozen=True)
class Version:
    """An exported version."""

    folder: Path
    manifest: RankerManifest

    @property
    def model_bytes(self) -> int:
        return (self.folder / MODEL).stat().st_size

    def score(self, prompts: list[str]) -> NDArray[np.float64]:
        """As the server does, [prompts]."""
        return OnnxScorer(self.folder, self.manifest).score(prompts)


def published(bench: Bench, run: Run) -> Version | str:
    """The int8 version of a run, exported if there is none; or why a check refused it.

    Raises:
        SourceError, ExportError, RankerVersionError, OSError: as of ``export.export_ranker``.
    """
    name = run.folder.name
    numbers = version_numbers(bench.models, name)
    if numbers:
        folder = bench.models / name / str(numbers[-1])
        # The run may have been trained anew since.
        if folder.stat().st_mtime >= (run.folder / "run.json").stat().st_mtime:
            return Version(folder, read_version(folder))
    tell(f"exporting {relative(run.folder)}")
    try:
        done = export_ranker(run.folder, ExportSettings(bench.models, name))
    except GateError as error:
        tell(f"not exported: {error}")
        return str(error)
    return Version(done.folder, done.manifest)
