"""`rankserve collect`: output lengths for training, from the LLM that will be served."""

import json
import os
import random
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankserve.cli.extras import needs_extra
from rankserve.progress import stage

if TYPE_CHECKING:
    from rankserve.trainer.collection.collection import Collection
    from rankserve.trainer.collection.estimate import Prices
    from rankserve.trainer.collection.job import JobOptions
    from rankserve.trainer.collection.prompts import PromptSet

_REASONS_SHOWN = 3


def collect(
    url: Annotated[
        str,
        typer.Option(
            metavar="URL", help="An OpenAI-compatible endpoint with its version: http://127.0.0.1:8000/v1."
        ),
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="As the endpoint names it.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="What `rankserve train` reads: .jsonl, .jsonl.gz or .parquet. The log to resume from is kept"
            " beside it, as NAME.samples.",
        ),
    ],
    prompts: Annotated[
        Path | None,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="Prompts: .jsonl, .json, .txt (one a line), .csv, .tsv, each also with .gz, or .parquet.",
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="A Hugging Face dataset instead: hub id or folder.")
    ] = None,
    subset: Annotated[str | None, typer.Option(help="With --dataset: its configuration.")] = None,
    split: Annotated[str, typer.Option(help="With --dataset: train, or train[:1000].")] = "train",
    field: Annotated[
        str,
        typer.Option(help="What holds the prompt: a text, or a list of messages (up to the last user's)."),
    ] = "prompt",
    id_field: Annotated[
        str, typer.Option(help="What holds the id; a hash of the prompt where missing.")
    ] = "id",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first prompts.")] = None,
    samples: Annotated[
        int,
        typer.Option("--samples", "-n", min=1, max=1000, help="Answers for each prompt, one request each."),
    ] = 1,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0, help="Of the sampling.")] = 1.0,
    top_p: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Default: the endpoint's.")] = None,
    max_tokens: Annotated[
        int,
        typer.Option(
            min=1, max=2**31 - 1, help='Cap on an answer; one that reaches it counts as "at least".'
        ),
    ] = 2048,
    chat: Annotated[
        bool, typer.Option("--chat/--completions", help="With the model's chat template, or the bare text.")
    ] = True,
    seed: Annotated[int | None, typer.Option(help="Send seeds, another for each sample.")] = None,
    extra: Annotated[
        str,
        typer.Option(
            metavar="JSON",
            help='Further fields of each request: \'{"reasoning_effort": "low"}\'; null removes one.',
        ),
    ] = "{}",
    api_key_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Environment variable that holds the API key.")
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, max=4096, help="Requests at a time.")
    ] = 16,
    timeout_s: Annotated[
        float, typer.Option(min=0.1, help="For a whole request; too short a one loses the long answers.")
    ] = 600.0,
    retries: Annotated[
        int, typer.Option(min=0, help="Further tries of a request, waiting longer each time.")
    ] = 6,
    stop_after: Annotated[
        int, typer.Option(min=1, help="End the run when as many requests fail one after the other.")
    ] = 20,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again for prompts that the endpoint refused before.")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Ask nothing: write what is recorded so far, to train on it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what the rest will take, from what is collected so far.")
    ] = False,
    pilot: Annotated[
        int, typer.Option(min=0, help="With --dry-run: first ask this many prompts, drawn at random; kept.")
    ] = 0,
    price_input: Annotated[
        float | None, typer.Option(min=0.0, help="With --dry-run: price of a million prompt tokens.")
    ] = None,
    price_output: Annotated[
        float | None, typer.Option(min=0.0, help="With --dry-run: price of a million output tokens.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
) -> None:
    """Ask an LLM for answers to many prompts and keep how long they are, for `rankserve train`.

    Prompts go to an OpenAI-compatible endpoint (vLLM, SGLang, ...). Each answer's length is recorded as
    soon as it is there: run the same command again after a crash or Ctrl-C and it goes on where it was. Exit
    status 1 if samples are missing at the end, 130 after Ctrl-C.
    """
    with needs_extra("collect"):
        from rankserve.trainer.collection.collection import Collection
        from rankserve.trainer.collection.errors import CollectionError
        from rankserve.trainer.collection.estimate import Prices
        from rankserve.trainer.collection.job import JobOptions
        from rankserve.trainer.collection.retries import Backoff
        from rankserve.trainer.collection.sampling import Api, Sampling
    from rankserve.records.jsonl import RecordError

    if (prompts is None) == (dataset is None):
        raise typer.BadParameter("say either a file of PROMPTS or --dataset NAME")
    if subset is not None and dataset is None:
        raise typer.BadParameter("--subset is of a --dataset: leave it out for a file")
    if not dry_run and (pilot or price_input is not None or price_output is not None):
        raise typer.BadParameter("--pilot, --price-input and --price-output need --dry-run")
    if partial and (dry_run or retry_failed):
        raise typer.BadParameter("--partial asks nothing: leave out --dry-run and --retry-failed")
    try:
        sampling = Sampling(
            model=model,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            api=Api.CHAT if chat else Api.COMPLETIONS,
            extra=_extra(extra),
            seed=seed,
        )
        options = JobOptions(
            url=url,
            api_key=_api_key(api_key_env),
            concurrency=concurrency,
            timeout_s=timeout_s,
            backoff=Backoff(retries),
            stop_after=stop_after,
        )
        if samples > 1 and temperature == 0:
            _tell("note: at temperature 0 the samples of a prompt are (nearly) alike; --samples 1 costs less")
        with needs_extra("collect"):
            source = _read(prompts, dataset, subset, split, field=field, id_field=id_field, limit=limit)
            collection = Collection(source.prompts, sampling, samples, output)
        with collection:
            if retry_failed:
                collection.log.retry_failed()
            if dry_run:
                prices = Prices(price_input, price_output)
                status = _estimate(collection, options, pilot, prices, as_json=as_json)
            else:
                status = _collect(collection, options, ask=not partial, as_json=as_json)
    except (CollectionError, RecordError, OSError) as error:
        _tell(f"error: {error}")
        raise typer.Exit(1) from None
    raise typer.Exit(status)


def _read(
    path: Path | None,
    dataset: str | None,
    subset: str | None,
    split: str,
    *,
    field: str,
    id_field: str,
    limit: int | None,
) -> "PromptSet":
    from rankserve.trainer.collection.files import read_rows
    from rankserve.trainer.collection.hub import read_dataset
    from rankserve.trainer.collection.prompts import prompt_set

    with stage(f"reading {path or dataset}"):
        if path is not None:
            rows = read_rows(path, field=field)
        else:
            rows = read_dataset(str(dataset), subset=subset, split=split)
        found = prompt_set(path or str(dataset), rows, field=field, id_field=id_field, limit=limit)
    if found.repeats:
        _tell(f"note: {found.repeats:,} records repeat a prompt that stands before them; it is asked once")
    return found


def _extra(text: str) -> dict[str, Any]:
    from rankserve.trainer.collection.errors import CollectionError

    try:
        extra = json.loads(text)
    except ValueError as error:
        raise CollectionError(f"--extra is not valid JSON ({error})") from None
    if not isinstance(extra, dict):
        raise CollectionError(f"--extra must be a JSON object, got {text!r:.80}")
    return extra


def _api_key(variable: str | None) -> str:
    from rankserve.trainer.collection.errors import CollectionError

    if variable is None:
        return ""
    if not (key := os.environ.get(variable, "").strip()):
        raise CollectionError(f"the environment variable {variable!r} of --api-key-env is not set")
    return key


def _collect(collection: "Collection", options: "JobOptions", *, ask: bool, as_json: bool) -> int:
    """Asks for what is left, writes the file, says how it stands. Returns the exit status."""
    from rankserve.trainer.collection.job import run_job

    pending = list(collection.pending()) if ask else []
    asked_again = collection.asked_again(pending)
    before = collection.tally()
    if before.samples:
        _tell(f"resuming: {before.samples:,} samples are recorded, {before.samples_left:,} are left")
    if asked_again:
        _tell(f"{asked_again:,} of them were sent before and brought no answer: asked again")
    result = run_job(collection, options, pending) if pending else None
    with stage(f"writing {collection.output}"):
        written = collection.write()
    tally = collection.tally()
    refusals = collection.refusals()
    _tell_failures(refusals, result.progress.last_failure if result else "")
    if as_json:
        document = {
            "output": str(collection.output),
            "complete": tally.is_complete,
            "written_prompts": written,
            **asdict(tally),
            "run": None
            if result is None
            else {
                "answered": result.progress.answered,
                "unanswered": result.progress.unanswered,
                "asked_again": asked_again,
                "retries": result.retries,
                "elapsed_s": round(result.progress.elapsed_s, 3),
                "stopped": result.stopped or None,
            },
        }
        typer.echo(json.dumps(document))
    else:
        typer.echo(
            f"{written:,} prompts with {tally.samples:,} lengths ({tally.censored_samples:,} at the cap), "
            f"{tally.output_tokens:,} output tokens: {collection.output}"
        )
    if tally.is_complete:
        return 0
    why = f"stopped: {result.stopped}\n" if result is not None and result.stopped else ""
    _tell(f"{why}{tally.samples_left:,} samples are missing: run the same command again to go on")
    return 130 if result is not None and result.interrupted else 1


def _tell_failures(refusals: list[tuple[str, str]], last_failure: str) -> None:
    for prompt_id, reason in refusals[:_REASONS_SHOWN]:
        _tell(f"refused: prompt {prompt_id}: {reason}")
    if len(refusals) > _REASONS_SHOWN:
        _tell(f"refused: {len(refusals) - _REASONS_SHOWN:,} more; the log has the reasons")
    if not refusals and last_failure:
        _tell(f"the last failure: {last_failure}")


def _estimate(
    collection: "Collection", options: "JobOptions", pilot: int, prices: "Prices", *, as_json: bool
) -> int:
    from rankserve.trainer.collection.estimate import estimate, render
    from rankserve.trainer.collection.job import pilot_samples, run_job

    if pilot:
        # The same prompts each time, so that repeating the command costs nothing.
        drawn = pilot_samples(collection, pilot, random.Random(0))
        result = run_job(collection, options, drawn) if drawn else None
        if result is not None and result.stopped:
            _tell(f"stopped: {result.stopped}")
            return 130 if result.interrupted else 1
    figures = estimate(collection, concurrency=options.concurrency, prices=prices)
    typer.echo(json.dumps(asdict(figures)) if as_json else render(figures))
    return 0


def _tell(line: str) -> None:
    typer.echo(line, err=True)
