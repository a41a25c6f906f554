"""`rankserve profile measure`: step times of a running engine, for a profile of it."""

import json
import os
import shlex
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankserve.cli.extras import needs_extra
from rankserve.progress import tell

if TYPE_CHECKING:
    from rankserve.server.engines.measuring.engine import About
    from rankserve.server.engines.measuring.plan import Limits
    from rankserve.server.engines.measuring.timing import MeasuredStep


def measure(
    url: Annotated[
        str,
        typer.Option(metavar="URL", help="OpenAI API of the engine, with its version: http://gpu-1:8000/v1."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", dir_okay=False, help="The CSV of steps to write.")
    ],
    max_sequences: Annotated[
        int, typer.Option(min=1, help="Sequences in one step, as it was started (vLLM: --max-num-seqs).")
    ],
    max_batched_tokens: Annotated[
        int,
        typer.Option(
            min=2, help="Tokens in one step (vLLM: --max-num-batched-tokens; it prints the one it takes)."
        ),
    ] = 2048,
    model: Annotated[
        str, typer.Option("--model", "-m", help="As the engine names it. Default: its first.")
    ] = "",
    sequences: Annotated[
        str,
        typer.Option(metavar="N,N,...", help="Decoding sequences to measure. Default: 1, 2, 4 ... the most."),
    ] = "",
    prefills: Annotated[
        str,
        typer.Option(metavar="N,N,...", help="Prefilled tokens to measure. Default: 16, 64, 256, 1024."),
    ] = "",
    contexts: Annotated[
        str,
        typer.Option(metavar="N,N", help="Prompt tokens of decoding sequences. Default: 32, 512."),
    ] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="A coarser grid with fewer repetitions, to try it out.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Measure though others use the engine: their work is counted.")
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the prompts. Default: another each time, so that no cache knows them."),
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Environment variable that holds the API key.")
    ] = None,
    timeout_s: Annotated[
        float, typer.Option(min=1, help="Silence after which the engine is given up.")
    ] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Measure how long the steps of a running engine take, for `rankserve profile add --steps`.

    Streams decode side by side, and prompts of random words come in beside them: the time between tokens is
    that of a step. Nobody else may use the engine meanwhile. Ctrl-C leaves nothing running.
    """
    with needs_extra("server"):
        import asyncio

        from rankserve.server.engines.measuring.errors import MeasureError
        from rankserve.server.engines.measuring.output import add_command, write_steps
    try:
        key = _api_key(api_key_env)
        grid = {
            "prefills": _numbers("--prefills", prefills),
            "counts": _numbers("--sequences", sequences),
            "contexts": _numbers("--contexts", contexts),
        }
        if not output.parent.is_dir():
            raise MeasureError(f"{output.parent} is not a folder")
        about, limits, steps = asyncio.run(
            _measure(url, model, key, timeout_s, max_sequences, max_batched_tokens, grid, quick, force, seed)
        )
        write_steps(output, steps)
    except (MeasureError, OSError) as error:
        _tell(f"error: {error}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        _tell("stopped: nothing was written, and nothing is left running")
        raise typer.Exit(130) from None
    source = f"{about.model} at {url}, measured {datetime.now(UTC):%Y-%m-%d} by rankserve profile measure"
    command = add_command(output, about, limits, source)
    if as_json:
        typer.echo(
            json.dumps({"output": str(output), "steps": [asdict(step) for step in steps], "command": command})
        )
        return
    typer.echo(f"{len(steps)} kinds of steps: {output}")
    if about.kv_blocks is None:
        typer.echo("the engine does not tell its KV blocks: put them for KV_BLOCKS")
    typer.echo(f"next:\n  {shlex.join(command)}")


async def _measure(
    url: str,
    model: str,
    api_key: str,
    timeout_s: float,
    max_sequences: int,
    max_batched_tokens: int,
    grid: dict[str, tuple[int, ...]],
    quick: bool,
    force: bool,
    seed: int | None,
) -> "tuple[About, Limits, list[MeasuredStep]]":
    import secrets

    from rankserve.server.engines.measuring.engine import MeasuredEngine
    from rankserve.server.engines.measuring.measure import Measurement
    from rankserve.server.engines.measuring.plan import Limits, make_plan
    from rankserve.server.engines.measuring.words import Prompts

    async with MeasuredEngine(url.rstrip("/"), model=model, api_key=api_key, timeout_s=timeout_s) as engine:
        about = await engine.about()
        limits = Limits(max_sequences, max_batched_tokens, about.max_model_len, about.kv_tokens)
        plan = make_plan(limits, quick=quick, **grid)
        prompts = Prompts(secrets.randbits(32) if seed is None else seed)
        tell(f"measuring {about.model} at {url}")
        measurement = Measurement(engine, about, limits, plan, prompts, force=force)
        return about, limits, await measurement.run()


def _numbers(option: str, text: str) -> tuple[int, ...]:
    from rankserve.server.engines.measuring.errors import MeasureError

    try:
        numbers = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = (0,)
    if not all(number > 0 for number in numbers):
        raise MeasureError(f"{option} must be whole numbers above 0 with commas between, got {text!r}")
    return numbers


def _api_key(variable: str | None) -> str:
    from rankserve.server.engines.measuring.errors import MeasureError

    if variable is None:
        return ""
    if not (key := os.environ.get(variable, "").strip()):
        raise MeasureError(f"the environment variable {variable!r} of --api-key-env is not set")
    return key


def _tell(line: str) -> None:
    typer.echo(line, err=True)
