"""The figures of a run: the server and the echo take turns."""

import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.service import load, watched_server
from benchmarks.service.echo import echo_server, streamed_messages_per_s, unary_calls_s

from rankserve.cli.policy_runs import running_server
from rankserve.progress import stage, track

OFFERED = 4.2
_RANKING: dict[str, object] = {"replay": True, "max_waiting": 200_000, "policy": "ranking"}
_FCFS: dict[str, object] = {"replay": True, "max_waiting": 200_000, "policy": "fcfs", "ranker": "none"}


@dataclass(slots=True, frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        turns: of the echo and the server; figures are medians over them.
        echo_s: seconds for each figure of the echo's calls.
        requests: for the figures of acceptance.
        waiting: requests, and `streams` that are open, for the figures of acknowledgement.
        acknowledged_per_s: requests a second over all streams meanwhile.
        slots: answers at once, for the figures of delivery.
    """

    turns: int = 5
    echo_s: float = 2.0
    requests: int = 20_000
    waiting: int = 100_000
    streams: int = 1_000
    acknowledged_per_s: float = 500.0
    slots: int = 1_024


async def measure(sizes: Sizes, seed: int) -> dict[str, float]:
    """Figures by name: rates a second, times in seconds."""
    turns: dict[str, list[float]] = {}

    def note(**values: float) -> None:
        for name, value in values.items():
            turns.setdefault(name, []).append(value)

    # Of the LLM whose tokens are delivered.
    delivering = {**_FCFS, "max_sequences": sizes.slots, "max_batched_tokens": 4 * sizes.slots}
    with echo_server() as echo, tempfile.TemporaryDirectory() as folder:
        steps_per_s = await _on_server(delivering, load.steps_per_s, sizes.slots, seed)
        for turn in track(range(sizes.turns), "echo and server in turns", "turns"):
            for concurrency in (1, 32):
                taken_s = sorted(await unary_calls_s(echo, concurrency, sizes.echo_s))
                note(**{f"echo_{concurrency}": len(taken_s) / sizes.echo_s})
            note(echo_32_p99=_at(taken_s, 0.99))
            streamed = await streamed_messages_per_s(echo)
            note(streamed=streamed)
            journal = {"journal": Path(folder) / f"{turn}.db"}
            for name, settings in (
                ("fcfs", _FCFS),
                ("journal", {**_FCFS, **journal}),
                ("ranking", _RANKING),
            ):
                taken = await _on_server(settings, load.accept_all, sizes.requests, seed + turn)
                note(**{f"{name}_accepted": taken.per_s})
                if name == "ranking":
                    note(backlog=taken.scoring, scored_s=taken.scored_s)
            # What the LLM would make, were it on time.
            time_scale = OFFERED * streamed / (sizes.slots * steps_per_s)
            given = await _on_server(
                {**delivering, "time_scale": time_scale}, load.deliver, sizes.slots, seed + turn
            )
            delays_s = sorted(given.delays_s)
            note(delivered=given.per_s, delay_p50=_at(delays_s, 0.5), delay_p99=_at(delays_s, 0.99))
        for name, settings in (
            ("fcfs", _FCFS),
            ("default", {**_RANKING, "policy": None}),
            ("ranking", _RANKING),
        ):
            holds = Path(folder) / f"{name}.holds"
            with (
                stage(f"acknowledgements under {name}"),
                running_server(
                    {**settings, "max_sequences": 1}, (sys.executable, watched_server.__file__, str(holds))
                ) as address,
            ):
                given = await load.acknowledgements(
                    address, sizes.waiting, sizes.streams, sizes.acknowledged_per_s, seed
                )
            taken_s = sorted(given.taken_s)
            held_s = watched_server.longest_holds_s(holds, given.began, given.ended)
            note(
                **{
                    f"ack_{name}_p50": _at(taken_s, 0.5),
                    f"ack_{name}_p99": _at(taken_s, 0.99),
                    f"ack_{name}_scoring": given.scoring,
                    f"held_{name}_p999": _at(held_s, 0.999),
                    f"held_{name}_max": held_s[-1],
                }
            )
    return {name: median(values) for name, values in turns.items()}


async def _on_server(settings: Mapping[str, object], what: Callable[..., Any], *arguments: object) -> Any:
    with running_server(settings) as address:
        return await what(address, *arguments)


def _at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
