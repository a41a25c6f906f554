"""`rankserve models show`: all that is known of one version."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rankserve.cli.ranker_versions.options import (
    DEFAULT_REPOSITORY,
    AsJson,
    Repository,
    Version,
    chosen,
    refusals,
    size,
    text,
)
from rankserve.records.active_pointer import Reference, read_active
from rankserve.records.manifest_checks import check_manifest
from rankserve.records.ranker_version import (
    Calibration,
    Coverage,
    RankerManifest,
    RankerVersionError,
    read_manifest,
    verify_files,
)


def show(
    name: Annotated[
        str | None, typer.Argument(help="The ranker's name, or name/version; default: the active version.")
    ] = None,
    version: Version = None,
    repository: Repository = DEFAULT_REPOSITORY,
    as_json: AsJson = False,
) -> None:
    """Show what a version is, how well it orders, what lengths it expects and how often they hold.

    Exit status 1 if it is damaged; what a sound manifest says is shown all the same.
    """
    with refusals():
        active = read_active(repository)
        reference = _asked(repository, active, name, version)
        folder = repository / reference[0] / str(reference[1])
        manifest = read_manifest(folder)
        check_manifest(folder, manifest)
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    problem = _problem(folder, manifest)
    if as_json:
        document = {
            **asdict(manifest),
            "active": reference == active,
            "problem": problem,
            "file_bytes": sizes,
        }
        typer.echo(json.dumps(document))
    else:
        typer.echo("\n".join(_lines(manifest, sizes, is_active=reference == active)))
    if problem:
        typer.echo(f"error: {problem}", err=True)
        raise typer.Exit(1)


def _asked(repository: Path, active: Reference | None, name: str | None, version: int | None) -> Reference:
    if name is not None:
        return chosen(repository, name, version)
    if active is None:
        raise RankerVersionError(f"{repository} has no active version: name one; see `models list`")
    return chosen(repository, *active)


def _problem(folder: Path, manifest: RankerManifest) -> str:
    try:
        verify_files(folder, manifest)
    except RankerVersionError as error:
        return str(error)
    return ""


def _lines(manifest: RankerManifest, sizes: dict[str, int], *, is_active: bool) -> Iterator[str]:
    side = "end" if manifest.truncation_side == "left" else "beginning"
    optimized = f", graph optimised to {manifest.optimization}" if manifest.optimization else ""
    yield text((manifest.name, manifest.version)) + (" (active)" if is_active else "")
    yield f"  base model     {manifest.base_model}"
    yield f"  precision      {manifest.precision}{optimized}"
    yield f"  reads          the {side} of a prompt, up to {manifest.max_length} tokens"
    yield f"  files          {', '.join(f'{name} {size(count)}' for name, count in sizes.items())}"
    yield f"  made           {manifest.created_at or 'not stated'}"
    yield f"  made with      {', '.join(map(' '.join, manifest.versions.items())) or 'not stated'}"
    yield f"  licence        {manifest.licence or 'not stated'}"
    yield f"  training data  {'; '.join(manifest.training_data) or 'not stated'}"
    yield f"  neutral score  {manifest.neutral_score:.4g}"
    yield f"  probes         {len(manifest.probes)} prompts with recorded scores; `models verify` checks them"
    if manifest.metrics:
        width = max(map(len, manifest.metrics))
        yield "metrics"
        yield from (f"  {name:<{width}}  {value:.6g}" for name, value in manifest.metrics.items())
    yield from _calibration_lines(manifest.calibration)
    yield from _coverage_lines(manifest.coverage)


def _calibration_lines(calibration: Calibration | None) -> Iterator[str]:
    if calibration is None:
        yield "expected output tokens: none (exported without a calibration)"
        return
    yield "expected output tokens"
    yield f"  {'score':>10}  {'p50':>8}  {'p90':>8}"
    for score, p50, p90 in zip(
        calibration.scores, calibration.tokens_p50, calibration.tokens_p90, strict=True
    ):
        yield f"  {score:>10.4g}  {p50:>8.1f}  {p90:>8.1f}"


def _coverage_lines(coverage: Coverage | None) -> Iterator[str]:
    if coverage is None:
        yield "coverage: not measured (exported by an older release)"
        return
    yield f"coverage: {coverage}"
    yield f"  {'by score':>10}  {'<= p50':>8}  {'<= p90':>8}"
    groups = zip(coverage.p50_by_score, coverage.p90_by_score, strict=True)
    for number, (p50, p90) in enumerate(groups, start=1):
        label = f"{number}{' (longest)' if number == 1 else ''}"
        yield f"  {label:>10}  {p50:>8.1%}  {p90:>8.1%}"
