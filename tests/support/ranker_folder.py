"""A version folder whose model is a few bytes: for all that only reads manifests and sums."""

import json
from pathlib import Path

from rankserve.records.ranker_version import (
    MANIFEST,
    MODEL,
    TOKENIZER,
    Calibration,
    Coverage,
    Probe,
    RankerManifest,
    sha256_of,
)


def write_version(folder: Path) -> RankerManifest:
    """Writes a usable version named as its folder is."""
    folder.mkdir(parents=True)
    (folder / MODEL).write_bytes(b"model")
    (folder / TOKENIZER).write_bytes(b"tokenizer")
    manifest = RankerManifest(
        name=folder.parent.name,
        version=int(folder.name),
        sha256={name: sha256_of(folder / name) for name in (MODEL, TOKENIZER)},
        max_length=64,
        pad_token_id=1,
        precision="int8",
        base_model="opt-mini",
        neutral_score=-1.0,
        calibration=Calibration((0.0, 1.0), (90.0, 10.0), (200.0, 20.0)),
        metrics={"kendall_tau": 0.5},
        training_data=("synthetic (Apache-2.0)",),
        coverage=Coverage(40, 80, 3, 0.5, 0.9, (0.45, 0.55), (0.85, 0.95)),
        probes=(Probe("one two", -1.5),),
        optimization="O1",
    )
    (folder / MANIFEST).write_text(manifest.to_json())
    return manifest


def edit_manifest(folder: Path, **fields: object) -> None:
    """Replaces fields of a version's manifest."""
    document = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**document, **fields}))
