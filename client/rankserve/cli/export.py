"""`rankserve export`: a trained ranker becomes an ONNX version that the server can use."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rankserve.cli.extras import needs_extra
from rankserve.cli.torch_threads import use_available_cores


class Precision(StrEnum):
    INT8 = "int8"
    FP32 = "fp32"
    FP16 = "fp16"


class Level(StrEnum):
    O1 = "O1"
    O2 = "O2"
    O3 = "O3"
    O4 = "O4"


def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            exists=True,
            file_okay=False,
            help="Run folder of `rankserve train`, or a Hugging Face sequence-classification folder.",
        ),
    ],
    name: Annotated[str, typer.Option("--name", "-n", help="The ranker's name in the repository.")],
    repository: Annotated[
        Path, typer.Option("--repository", "-r", file_okay=False, help="Folder of ranker versions.")
    ] = Path("models"),
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            exists=True,
            dir_okay=False,
            help="JSONL(.gz) prompts and lengths to check with; default: the run's validation split.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Whose lengths, where the data has those of several LLMs.")
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="int8 for CPUs, fp16 for GPUs, fp32 for comparisons.")
    ] = Precision.INT8,
    optimize: Annotated[
        Level | None,
        typer.Option(
            help="Optimise the graph in the file, as optimum's O1 to O4 do: O1 simplifies, O2 fuses, O3"
            " approximates GELU, O4 is O3 in fp16. Encoders have patterns to fuse, OPT has none; ONNX Runtime"
            " does much of it by itself when it opens the file. Default: none."
        ),
    ] = None,
    activate: Annotated[
        bool | None,
        typer.Option(
            "--activate/--no-activate",
            help="Make it the active version; default: only if the repository has none.",
        ),
    ] = None,
    minimum_tau: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Publish nothing that orders worse than this.")
    ] = 0.1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Publish a ranker: ONNX, checked against torch and on validation prompts, as the next version.

    Nothing is published when a check fails; its figures are printed and the exit status is 1.
    """
    with needs_extra("exporter"):
        from rankserve.exporter.errors import ExportError
        from rankserve.exporter.export import ExportSettings, export_ranker

    from rankserve.records.jsonl import RecordError
    from rankserve.records.ranker_version import MODEL, RankerVersionError

    use_available_cores()
    settings = ExportSettings(
        repository=repository,
        name=name,
        data=data,
        lengths_of=model,
        precision=precision.value,
        optimize=None if optimize is None else optimize.value,
        activate=activate,
        minimum_tau=minimum_tau,
    )
    try:
        published = export_ranker(run, settings)
    except (ExportError, RecordError, RankerVersionError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    manifest = published.manifest
    size_bytes = (published.folder / MODEL).stat().st_size
    if as_json:
        result = {
            "name": manifest.name,
            "version": manifest.version,
            "path": str(published.folder),
            "precision": manifest.precision,
            "model_bytes": size_bytes,
            "activated": published.activated,
            "active": None if published.active is None else "{}/{}".format(*published.active),
            "metrics": manifest.metrics,
            "optimization": manifest.optimization,
            "coverage": None if manifest.coverage is None else asdict(manifest.coverage),
        }
        typer.echo(json.dumps(result))
        return
    ceiling = manifest.metrics.get("kendall_tau_ceiling")
    tau = f"tau {manifest.metrics['kendall_tau']:.3f}" + (
        "" if ceiling is None else f" of at most {ceiling:.3f}"
    )
    size = f"{size_bytes / 1e6:.1f} MB"
    typer.echo(f"Published {manifest.name}/{manifest.version} ({manifest.precision}, {size}), {tau}")
    if manifest.coverage is not None:
        typer.echo(f"Expected lengths: {manifest.coverage}")
    if published.activated:
        typer.echo("It is the active version.")
    elif published.active is None:
        typer.echo(f"No version is active: rankserve models activate {manifest.name} -r {repository}")
    else:
        typer.echo(
            "The active version is still {}/{}. ".format(*published.active)
            + f"To change that: rankserve models activate {manifest.name} {manifest.version} -r {repository}"
        )
