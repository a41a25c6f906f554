"""`rankserve evaluate`: a trained ranker on a file of prompts."""

import json
from pathlib import Path
from typing import Annotated

import typer

from rankserve.cli.extras import needs_extra
from rankserve.cli.torch_threads import use_available_cores
from rankserve.progress import stage


def evaluate(
    ranker: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_CHECKPOINT",
            exists=True,
            file_okay=False,
            help="Run folder of `rankserve train`, or a Hugging Face sequence-classification folder.",
        ),
    ],
    data: Annotated[
        Path,
        typer.Option("--data", "-d", exists=True, dir_okay=False, help="JSONL(.gz) prompts and lengths."),
    ],
    model: Annotated[
        str | None, typer.Option("--model", help="Whose lengths, where the file has those of several LLMs.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=2, help="Read only so many records.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
) -> None:
    """Measure how well a ranker orders the prompts of a file, next to its ceilings and baselines.

    Prompts that a run was trained on are left out and counted.
    """
    with needs_extra("trainer"):
        from rankserve.trainer.data.loading import DataError
        from rankserve.trainer.evaluation.checkpoint import evaluate_checkpoint
        from rankserve.trainer.model import RankerModelError

    from rankserve.cli.train import describe
    from rankserve.records.jsonl import RecordError
    from rankserve.records.prompts import read_prompts

    use_available_cores()
    try:
        with stage(f"reading {data.name}"):
            records = list(read_prompts(data, model=model, limit=limit))
        figures = evaluate_checkpoint(ranker, records)
    except (RecordError, DataError, RankerModelError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps({"ranker": str(ranker), "data": str(data), **figures}))
        return
    if figures["trained_on"]:
        typer.echo(f"left out {figures['trained_on']:.0f} prompts that the ranker was trained on", err=True)
    typer.echo(describe(figures))
