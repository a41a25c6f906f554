"""`rankserve models verify`: does a version work on this machine?"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from rankserve.cli.extras import needs_extra
from rankserve.cli.ranker_versions.options import (
    DEFAULT_REPOSITORY,
    AsJson,
    Repository,
    chosen,
    refusals,
    tell_active_is_gone,
    text,
)
from rankserve.progress import track
from rankserve.records.active_pointer import Reference, read_active
from rankserve.records.ranker_version import RankerVersionError, ranker_names, version_numbers


@dataclass(slots=True, frozen=True)
class _Result:
    name: str
    version: int
    problem: str
    providers: tuple[str, ...] = ()
    probes: int = 0
    max_difference: float | None = None


def verify(
    name: Annotated[
        str | None,
        typer.Argument(help="Check only this ranker's versions, or name/version; default: every version."),
    ] = None,
    version: Annotated[int | None, typer.Argument(min=1, help="Check only this version of it.")] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    provider: Annotated[
        str, typer.Option(help="ONNX Runtime provider that must run it, e.g. CUDAExecutionProvider.")
    ] = "CPUExecutionProvider",
    as_json: AsJson = False,
) -> None:
    """Check that versions are whole and work on this machine; exit status 1 if one does not.

    Checked are sums, manifest, loading in ONNX Runtime, finite scores up to the longest prompt it promises,

    and that the prompts recorded at export get the scores they got there (older releases recorded none).
    """
    with needs_extra("server"):
        from rankserve.cli.logs import log_to_stderr
        from rankserve.server.ranking.verification import verify_version

    with log_to_stderr(), refusals():
        active = read_active(repository)
        references = _asked(repository, name, version)
        if not references:
            raise RankerVersionError(
                f"{repository} holds no ranker version; `rankserve export` publishes one"
            )
        results = []
        for reference in track(references, "verifying", "versions"):
            try:
                verified = verify_version(_folder(repository, reference), provider=provider)
            except RankerVersionError as error:
                results.append(_Result(*reference, problem=str(error)))
            else:
                results.append(_Result(*reference, problem="", **asdict(verified)))
    missing = name is None and active is not None and active not in references
    ok = not missing and not any(result.problem for result in results)
    if as_json:
        typer.echo(json.dumps({"ok": ok, "versions": [asdict(result) for result in results]}))
    else:
        for result in results:
            typer.echo(f"{text((result.name, result.version))}  {_verdict(result)}")
    if missing and active is not None:
        tell_active_is_gone(active)
    if not ok:
        raise typer.Exit(1)


def _asked(repository: Path, name: str | None, version: int | None) -> list[Reference]:
    if name is None:
        names = ranker_names(repository)
        return [(each, number) for each in names for number in version_numbers(repository, each)]
    newest = chosen(repository, name, version)
    if version is not None or "/" in name:
        return [newest]
    return [(name, number) for number in version_numbers(repository, name)]


def _verdict(result: _Result) -> str:
    if result.problem:
        return f"FAILED: {result.problem}"
    if result.max_difference is None:
        return "ok (exported without recorded scores)"
    return f"ok ({result.probes} recorded scores reproduced within {result.max_difference:.1e})"


def _folder(repository: Path, reference: Reference) -> Path:
    return repository / reference[0] / str(reference[1])
