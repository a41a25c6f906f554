"""What a measurement leaves: a table of steps, and the command that makes a profile of it."""

import csv
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

from rankserve.server.engines.measuring.engine import About
from rankserve.server.engines.measuring.plan import Limits
from rankserve.server.engines.measuring.timing import MeasuredStep


def write_steps(path: Path, steps: Iterable[MeasuredStep]) -> None:
    """Writes the CSV that `rankserve profile add --steps` reads. Raises OSError."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(MeasuredStep)], lineterminator="\n")
        writer.writeheader()
        for step in steps:
            row = asdict(step)
            writer.writerow({key: round(value, 4) for key, value in row.items()})


def add_command(path: Path, about: About, limits: Limits, source: str) -> list[str]:
    """The command to run next; KV_BLOCKS stands for what the engine does not tell."""
    name = path.with_name(about.model.rsplit("/", 1)[-1] + ".toml")
    command = ["rankserve", "profile", "add", str(name), "--steps", str(path)]
    command += ["--kv-blocks", "KV_BLOCKS" if about.kv_blocks is None else str(about.kv_blocks)]
    if about.block_size is not None:
        command += ["--block-size", str(about.block_size)]
    command += ["--max-sequences", str(limits.max_sequences)]
    command += ["--max-batched-tokens", str(limits.max_batched_tokens)]
    if about.max_model_len is not None:
        command += ["--max-model-len", str(about.max_model_len)]
    if about.prefix_caching is False:
        command.append("--no-prefix-caching")
    return [*command, "--source", source]
