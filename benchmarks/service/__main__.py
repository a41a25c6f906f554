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
from collections.abc import Mapping

from benchmarks.service.measure import OFFERED, Sizes, measure

from rankserve.client.load.machine import describe_machine, package_versions
from rankserve.progress import report_on


def main() -> None:
    options = _options()
    sizes = Sizes(turns=options.turns, requests=options.requests, waiting=options.waiting)
    rows = _rows(asyncio.run(measure(sizes, options.seed)), sizes)
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


def _rows(m: Mapping[str, float], sizes: Sizes) -> dict[str, float]:
    offered = f"offered {OFFERED} times the echo's messages"
    standing = f"{sizes.waiting:,} waiting, {sizes.streams:,} streams"
    return {
        "echo: unary calls/s, one at a time": m["echo_1"],
        "echo: unary calls/s, 32 at a time": m["echo_32"],
        "echo: unary call, 32 at a time, p99 ms": 1000 * m["echo_32_p99"],
        "echo: streamed messages/s": m["streamed"],
        "accepted requests/s through one stream, FCFS": m["fcfs_accepted"],
        "  times the echo's calls, 32 at a time": m["fcfs_accepted"] / m["echo_32"],
        "the same with a journal": m["journal_accepted"],
        "  % of that without": 100 * m["journal_accepted"] / m["fcfs_accepted"],
        "the same with ranking": m["ranking_accepted"],
        "  times the echo's calls, 32 at a time, with ranking": m["ranking_accepted"] / m["echo_32"],
        "  requests not scored yet when the last was accepted": m["backlog"],
        "  seconds until the last was scored": m["scored_s"],
        f"delivered events/s, {sizes.slots:,} answers at once, {offered}": m["delivered"],
        "  times the echo's messages": m["delivered"] / m["streamed"],
        "  delay of a result after its last token, p50 ms": 1000 * m["delay_p50"],
        "  delay of a result after its last token, p99 ms": 1000 * m["delay_p99"],
        **{
            row: value
            for name, policy in (("fcfs", "FCFS"), ("default", "bounded_ranking"), ("ranking", "ranking"))
            for row, value in {
                f"acknowledgement, {standing}, {policy}, p50 ms": 1000 * m[f"ack_{name}_p50"],
                f"acknowledgement, {standing}, {policy}, p99 ms": 1000 * m[f"ack_{name}_p99"],
                f"  times the echo's p99, 32 at a time, {policy}": m[f"ack_{name}_p99"] / m["echo_32_p99"],
                f"  requests without a score at its end, {policy}": m[f"ack_{name}_scoring"],
                f"  a callback holds the event loop meanwhile, {policy}, p99.9 ms": 1000
                * m[f"held_{name}_p999"],
                f"  the longest, {policy}, ms": 1000 * m[f"held_{name}_max"],
            }.items()
        },
    }


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
    with report_on(sys.stderr):
        main()
