"""What a server takes and gives in a second, beside a bare grpc.aio echo in the same run.

The sides take turns, so that a busy machine slows both; figures are medians over the turns. Client and server
share the machine, as the echo and its client do. One request or event is one of ours; one call or message one
of the echo's: a message of ours carries many, which is the point.

    python -m benchmarks.service              # about four minutes
    python -m benchmarks.service --json

Needs `pip install '.[server,load]'`.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.service import load
from benchmarks.service.echo import echo_server, streamed_messages_per_s, unary_calls_per_s

from rankserve.cli.policy_runs import running_server
from rankserve.client.load.machine import describe_machine, package_versions

_RANKING: dict[str, object] = {"replay": True, "max_waiting": 200_000, "policy": "ranking"}
_FCFS: dict[str, object] = {"replay": True, "max_waiting": 200_000, "policy": "fcfs", "ranker": "none"}
_OFFERED = 4.5
# Of the LLM whose tokens are delivered.
_SLOTS = 1024
_DELIVERING = {**_FCFS, "max_sequences": _SLOTS, "max_batched_tokens": 4096}


def main() -> None:
    options = _options()
    rows = asyncio.run(_measure(options))
    figures = {
        "machine": describe_machine(),
        "versions": package_versions(),
        "seed": options.seed,
        "turns": options.turns,
        "requests": options.requests,
        "batch_cap": 256,
        "queue_depth": options.requests,
        "figures": rows,
    }
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    print(
        f"{figures['machine']}; {figures['versions']}; seed {options.seed}; medians of {options.turns} turns"
    )
    for name, value in rows.items():
        print(f"{name:<78}{value:>12,.1f}")


async def _measure(options: argparse.Namespace) -> dict[str, float]:
    turns: dict[str, list[float]] = {}

    def note(**values: float) -> None:
        for name, value in values.items():
            turns.setdefault(name, []).append(value)

    with echo_server() as echo, tempfile.TemporaryDirectory() as folder:
        steps_per_s = await _on_server(_DELIVERING, load.steps_per_s, _SLOTS, options.seed)
        for turn in range(options.turns):
            seed = options.seed + turn
            print(f"turn {turn + 1} of {options.turns}", file=sys.stderr)
            note(echo_1=await unary_calls_per_s(echo, 1), echo_32=await unary_calls_per_s(echo, 32))
            streamed = await streamed_messages_per_s(echo)
            note(streamed=streamed)
            journal = {"journal": Path(folder) / f"{turn}.db"}
            for name, settings in (
                ("fcfs", _FCFS),
                ("journal", {**_FCFS, **journal}),
                ("ranking", _RANKING),
            ):
                taken = await _on_server(settings, load.accept_all, options.requests, seed)
                note(**{f"{name}_accepted": taken.per_s})
                if name == "ranking":
                    note(backlog=taken.scoring, scored_s=taken.scored_s)
            # What the LLM would make, were it on time.
            offered = _OFFERED * streamed
            delivering = {**_DELIVERING, "time_scale": offered / (_SLOTS * steps_per_s)}
            given = await _on_server(delivering, load.deliver, _SLOTS, seed)
            delays_s = sorted(given.delays_s)
            note(delivered=given.per_s, delay_p50=_at(delays_s, 0.5), delay_p99=_at(delays_s, 0.99))
        for name, settings in (("fcfs", _FCFS), ("ranking", _RANKING)):
            standing = {**settings, "max_sequences": 1}
            taken_s = await _on_server(
                standing, load.acknowledgements, options.waiting, 1000, 500.0, options.seed
            )
            taken_s.sort()
            note(**{f"ack_{name}_p50": _at(taken_s, 0.5), f"ack_{name}_p99": _at(taken_s, 0.99)})
    return _rows({name: median(values) for name, values in turns.items()}, options)


async def _on_server(settings: Mapping[str, object], what: Callable[..., Any], *arguments: object) -> Any:
    with running_server(settings) as address:
        return await what(address, *arguments)


def _rows(m: Mapping[str, float], options: argparse.Namespace) -> dict[str, float]:
    standing = f"{options.waiting:,} waiting, 1,000 streams"
    return {
        "echo: unary calls/s, one at a time": m["echo_1"],
        "echo: unary calls/s, 32 at a time": m["echo_32"],
        "echo: streamed messages/s": m["streamed"],
        "accepted requests/s through one stream, FCFS": m["fcfs_accepted"],
        "  times the echo's calls, 32 at a time": m["fcfs_accepted"] / m["echo_32"],
        "the same with a journal": m["journal_accepted"],
        "  % of that without": 100 * m["journal_accepted"] / m["fcfs_accepted"],
        "the same with ranking": m["ranking_accepted"],
        "  requests not scored yet when the last was accepted": m["backlog"],
        "  seconds until the last was scored": m["scored_s"],
        f"delivered events/s, {_SLOTS:,} answers at once, offered {_OFFERED} times the echo's messages": m[
            "delivered"
        ],
        "  times the echo's messages": m["delivered"] / m["streamed"],
        "  delay of a result after its last token, p50 ms": 1000 * m["delay_p50"],
        "  delay of a result after its last token, p99 ms": 1000 * m["delay_p99"],
        f"acknowledgement, {standing}, FCFS, p50 ms": 1000 * m["ack_fcfs_p50"],
        f"acknowledgement, {standing}, FCFS, p99 ms": 1000 * m["ack_fcfs_p99"],
        f"acknowledgement, {standing}, ranking, p50 ms": 1000 * m["ack_ranking_p50"],
        f"acknowledgement, {standing}, ranking, p99 ms": 1000 * m["ack_ranking_p99"],
    }


def _at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.service",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20_000, help="for the figures of acceptance")
    parser.add_argument("--waiting", type=int, default=100_000, help="for the figures of acknowledgement")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
