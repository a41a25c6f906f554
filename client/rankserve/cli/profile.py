"""`rankserve profile`: what can be simulated, and profiles of one's own from measurements."""

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankserve.cli.extras import needs_extra
from rankserve.cli.profile_measure import measure

if TYPE_CHECKING:
    from rankserve.server.engines.simulated.profile import Profile

profile_app = typer.Typer(
    help="Simulated LLMs: list and show them, add one from measurements.", no_args_is_help=True
)

profile_app.command("measure")(measure)

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


class Method(StrEnum):
    """How measured steps become step times."""

    AUTO = "auto"
    INTERPOLATE = "interpolate"
    LINEAR = "linear"


# Pause between two steps of vLLM with asynchronous scheduling and CUDA graphs: 150-170 us (vllm PR 11133).
CPU_OVERHEAD_MS = 0.16
# A kernel of 2.9 us takes 3.4 us in a CUDA graph (NVIDIA, "Getting started with CUDA graphs").
KERNEL_GAP_US = 0.5
# Prefilled tokens, decoding sequences, context of each: what `show` gives the durations of.
_SHOWN = ((0, 1, 1024), (0, 32, 1024), (0, 128, 1024), (512, 32, 1024), (2048, 0, 0))


@profile_app.command("list")
def list_profiles(as_json: AsJson = False) -> None:
    """Name the profiles that come with the package."""
    with needs_extra("server"):
        from rankserve.server.engines.simulated.profiles import profiles
    if as_json:
        typer.echo(json.dumps([_described(profile) for profile in profiles().values()]))
        return
    for profile in profiles().values():
        typer.echo(f"{profile.name:34} {profile.kv_blocks:6} KV blocks  {profile.source}")


@profile_app.command()
def show(
    profile: Annotated[str, typer.Argument(help="A profile's name, or the path of a .toml file.")],
    as_json: AsJson = False,
) -> None:
    """Print a profile's limits and how long some steps take."""
    with needs_extra("server"):
        from rankserve.server.engines.simulated.profile_files import ProfileError
        from rankserve.server.engines.simulated.profiles import UnknownProfileError, find_profile
    try:
        found = find_profile(profile)
    except (ProfileError, UnknownProfileError) as error:
        raise _failed(error) from None
    values = _described(found)
    if as_json:
        typer.echo(json.dumps(values))
        return
    for name, value in values.items():
        if name != "steps":
            typer.echo(f"{name:22} {value}")
    _print_steps(found)


@profile_app.command()
def add(
    file: Annotated[Path, typer.Argument(help="The .toml file to write; its tables go beside it.")],
    kv_blocks: Annotated[
        int,
        typer.Option(
            min=1,
            help="KV blocks that the engine has (vLLM prints num_gpu_blocks as it starts), or: memory left"
            " beside the weights / bytes of a block.",
        ),
    ],
    steps: Annotated[
        Path | None,
        typer.Option(
            help="CSV of whole steps: prefill_tokens, decode_sequences, context_per_sequence, step_ms.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    method: Annotated[
        Method,
        typer.Option(
            help="For --steps: interpolate (needs a grid), linear, or auto: interpolate where it can."
        ),
    ] = Method.AUTO,
    attention: Annotated[
        Path | None,
        typer.Option(
            help="CSV of one layer's attention, as LLMServingSim's profiler writes it: prefill_chunk,"
            " kv_prefill, n_decode, kv_decode, time_us.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    dense: Annotated[
        Path | None,
        typer.Option(help="CSV of its other layers: layer, tokens, time_us.", exists=True, dir_okay=False),
    ] = None,
    per_sequence: Annotated[
        Path | None,
        typer.Option(
            help="CSV of LM head and sampler: layer, sequences, time_us.", exists=True, dir_okay=False
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="The model's config.json, for layers, hidden size and longest sequence.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    layers: Annotated[
        int | None, typer.Option(min=1, help="Layers of the model, where there is no --config.")
    ] = None,
    hidden_size: Annotated[
        int | None, typer.Option(min=1, help="Its width; only for --tensor-parallel.")
    ] = None,
    tensor_parallel: Annotated[
        int,
        typer.Option(min=1, help="GPUs that the layers are split over; the tables must be of one's share."),
    ] = 1,
    link_gb_per_s: Annotated[
        float,
        typer.Option(
            min=0,
            help="Bandwidth between two of them, one way. Default: LLMServingSim's for GPUs on PCIe, without"
            " NVLink; NVLink 4 has 370.",
        ),
    ] = 16.0,
    link_latency_us: Annotated[
        float, typer.Option(min=0, help="Until an exchange between them begins to flow; same source.")
    ] = 20.0,
    max_sequences: Annotated[int, typer.Option(min=1, help="Sequences in one step.")] = 256,
    max_batched_tokens: Annotated[int, typer.Option(min=1, help="Tokens in one step.")] = 2048,
    max_model_len: Annotated[
        int | None,
        typer.Option(
            min=1, help="Longest prompt plus answer; default: the model's, or what the KV blocks hold."
        ),
    ] = None,
    block_size: Annotated[int, typer.Option(min=1, help="Tokens a KV block holds.")] = 16,
    prefix_caching: Annotated[
        bool, typer.Option(help="A preempted request finds what is left of its KV blocks.")
    ] = True,
    watermark: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share of the KV blocks that admission leaves free.")
    ] = 0.0,
    cpu_overhead_ms: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Added to each step. Default: 0.16 for tables of layers (the pause of vLLM with asynchronous"
            " scheduling, its PR 11133), 0 for whole steps, which contain it.",
            show_default=False,
        ),
    ] = None,
    kernel_gap_us: Annotated[
        float,
        typer.Option(min=0, help="Pause between two kernels in a CUDA graph, for tables of layers."),
    ] = KERNEL_GAP_US,
    swap_ms_per_token: Annotated[
        float,
        typer.Option(
            min=0,
            help="Time to move one token's KV between GPU and host, one way: its bytes over the link's"
            " bandwidth. Without it, --preemption swap costs nothing.",
        ),
    ] = 0.0,
    shared_prefix_tokens: Annotated[
        int,
        typer.Option(
            min=0,
            help="Leading tokens that all prompts share (a chat template, in whole blocks), which an engine"
            " with prefix caching computes and holds once.",
        ),
    ] = 0,
    source: Annotated[str, typer.Option(help="Where the measurements come from.")] = "",
    as_json: AsJson = False,
) -> None:
    """Write a profile from measurements: of whole steps, or of one layer's kernels.

    Of own measurements: rankserve profile add my-llm.toml --kv-blocks 28000 --steps steps.csv
    """
    with needs_extra("server"):
        from rankserve.server.engines.simulated.csv_table import TableError
        from rankserve.server.engines.simulated.kernel_tables import ModelShape, kernel_step_times
        from rankserve.server.engines.simulated.profile import Profile
        from rankserve.server.engines.simulated.profile_files import write_profile
        from rankserve.server.engines.simulated.step_measurements import read_steps
    try:
        if file.suffix != ".toml":
            raise ValueError(f"{file}: a profile's file is named .toml")
        model = _model(config)
        fit, errors = None, None
        tables = [table for table in (attention, dense, per_sequence) if table is not None]
        if steps is not None and not tables:
            measured = read_steps(steps)
            if method is Method.LINEAR or (method is Method.AUTO and measured.gap()):
                fit, errors = measured.linear_fit(), measured.linear_errors()
            times = measured.interpolation() if fit is None else fit.step_times()
            times = times._replace(overhead_ms=cpu_overhead_ms or 0.0)
        elif steps is None and len(tables) == 3:
            shape = ModelShape(
                layers=layers or model.get("num_hidden_layers", 0),
                hidden_size=hidden_size or model.get("hidden_size", 0),
                tensor_parallel=tensor_parallel,
                link_gb_per_s=link_gb_per_s,
                link_latency_us=link_latency_us,
                kernel_gap_us=kernel_gap_us,
                cpu_overhead_ms=CPU_OVERHEAD_MS if cpu_overhead_ms is None else cpu_overhead_ms,
            )
            if tensor_parallel == 1 and (share := re.search(r"tp([2-9]|\d\d)(?!\d)", str(tables[0]))):
                typer.echo(
                    f"warning: {tables[0]} is named {share[0]}: if these are the times of one of"
                    f" {share[1]} GPUs, give --tensor-parallel {share[1]}",
                    err=True,
                )
            times = kernel_step_times(tables[0], tables[1], tables[2], shape)
        else:
            raise ValueError("give either --steps, or all of --attention, --dense and --per-sequence")
        held = kv_blocks * block_size
        profile = Profile(
            name=file.stem,
            step_times=times,
            kv_blocks=kv_blocks,
            max_model_len=max_model_len or min(held, model.get("max_position_embeddings", held)),
            max_sequences=max_sequences,
            max_batched_tokens=max_batched_tokens,
            block_size=block_size,
            watermark=watermark,
            prefix_caching=prefix_caching,
            shared_prefix_tokens=shared_prefix_tokens,
            swap_ms_per_token=swap_ms_per_token,
            source=source,
        )
        written = write_profile(file, profile, fit)
    except (TableError, ValueError, OSError) as error:
        raise _failed(error) from None
    result = _described(profile) | {"written": [str(path) for path in written]}
    result["method"] = "interpolate" if errors is None else "linear"
    if errors is not None:
        result["mean_error"], result["worst_error"] = float(errors.mean()), float(errors.max())
    if as_json:
        typer.echo(json.dumps(result))
        return
    typer.echo(f"wrote {' and '.join(str(path) for path in written)}")
    if errors is None:
        typer.echo("step times are interpolated between the measurements")
    else:
        typer.echo(
            f"step times are a linear fit: off by {errors.mean():.1%} on average, {errors.max():.1%} at worst"
        )
        if method is Method.AUTO and steps is not None:
            typer.echo(f"not interpolated: {steps} {measured.gap()}")
    _print_steps(profile)


def _model(config: Path | None) -> dict[str, int]:
    if config is None:
        return {}
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{config} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{config} is not a model's config.json")
    return {key: value for key, value in values.items() if type(value) is int}


def _described(profile: "Profile") -> dict[str, object]:
    values: dict[str, object] = {
        name: getattr(profile, name) for name in profile.__slots__ if name != "step_times"
    }
    values["overhead_ms"] = profile.step_times.overhead_ms
    values["prefill_pair_ms"] = profile.step_times.prefill_pair_ms
    values["steps"] = [
        {
            "prefill_tokens": prefill,
            "decode_sequences": sequences,
            "context_per_sequence": context,
            "step_ms": profile.step_ms(
                prefill_tokens=prefill,
                decode_sequences=sequences,
                context_tokens=sequences * context,
                longest_context=context,
            ),
        }
        for prefill, sequences, context in _shown(profile)
    ]
    return values


def _shown(profile: "Profile") -> list[tuple[int, int, int]]:
    """Steps that are within its limits."""
    fitting = []
    for prefill, most_sequences, context in _SHOWN:
        sequences = min(most_sequences, profile.max_sequences)
        room = profile.max_batched_tokens - sequences
        fitting.append((min(prefill, room), sequences, min(context, profile.max_model_len)))
    return list(dict.fromkeys(fitting))


def _print_steps(profile: "Profile") -> None:
    for step in _described(profile)["steps"]:  # type: ignore[attr-defined]
        typer.echo(
            f"{step['step_ms']:9.2f} ms  {step['prefill_tokens']} tokens prefilled,"
            f" {step['decode_sequences']} sequences at {step['context_per_sequence']} tokens"
        )


def _failed(error: Exception) -> typer.Exit:
    typer.echo(f"error: {error}", err=True)
    return typer.Exit(1)
