"""What the waiting queue costs: against a bare `heapq`, and against sorting again at each step.

At each size the queue is filled, then each operation submits a new request and takes the first, so the size
stays. The keys are those of a queue in a steady state: they rise by one an operation and lie up to twice the
size ahead, so new entries land all over it. `heapq` holds (key, id), the re-sorted list the same entries,
which Python's sort finds sorted but for one. All get the same keys; requests and keys are made before the
clock starts, a block's worth at a time. The sides take turns, block by block. The garbage collector is off
throughout, on every side: an operation frees as many objects as it makes, so there is nothing to collect.
Figures are medians over blocks, of CPU time, so that a busy machine changes them little.

    python benchmarks/queue_speed.py            # 1k, 100k and a million waiting: about a minute
    python benchmarks/queue_speed.py --json

Also prints the same through `Scheduler.submit`, `plan` and `end`, and the memory of a million waiting, each
measured in a process of its own. Needs `pip install '.[server]'`; memory is read on Linux only.
"""

import argparse
import gc
import heapq
import json
import multiprocessing
import os
import platform
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from rankserve.client.load.machine import describe_machine
from rankserve.progress import report_on, stage, track
from rankserve.server.scheduling.budget import EngineRoom
from rankserve.server.scheduling.policies import Ranking
from rankserve.server.scheduling.queue import RankedQueue
from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.scheduler import Scheduler, SchedulerSettings
from rankserve.server.scheduling.starvation import Starvation, StarvationSettings

SIZES = (1_000, 100_000, 1_000_000)
RESORT_SIZE = 100_000
LARGEST = 1_000_000
# A re-sort of 100,000 entries costs as much as thousands of queue operations.
RESORT_OPERATIONS, RESORT_BLOCKS = 20, 15
BOUNDS = StarvationSettings(threshold_steps=200, max_wait_s=60.0)

Block = Callable[[], None]


class Keys:
    """Keys under which a queue that takes one and gets one at each operation stays at n."""

    def __init__(self, n: int, seed: int) -> None:
        self._n = n
        self._random = random.Random(seed)
        self._operation = 0

    def waiting(self) -> list[float]:
        """The n keys in the queue at the start."""
        # A new key lies uniformly up to 2n ahead, so those still waiting thin out linearly.
        return [2 * self._n * (1 - self._random.random() ** 0.5) for _ in range(self._n)]

    def following(self, count: int) -> list[float]:
        """The keys of the next operations' new requests."""
        first = self._operation
        self._operation += count
        return [i + 2 * self._n * self._random.random() for i in range(first, self._operation)]


class Side(Protocol):
    """Something that is filled and gives blocks of operations to time."""

    def block(self, keys: list[float]) -> Block: ...


@dataclass(slots=True, frozen=True)
class Row:
    """Attributes:
    n: requests waiting.
    heapq_us: one submit + pop of a bare `heapq`, in microseconds.
    queue_us: of the project's queue.
    ratio: queue_us / heapq_us.
    queue_us_with_bounds: with both starvation bounds on, nobody due.
    scheduler_us: one submit + plan + end through the scheduler; `_with_bounds` with both starvation bounds.
    """

    n: int
    heapq_us: float
    queue_us: float
    ratio: float
    queue_us_with_bounds: float
    scheduler_us: float
    scheduler_us_with_bounds: float


def main() -> None:
    options = parse_options()
    # Filling a queue with the collector on costs more than everything that is measured.
    gc.disable()
    rows = [measure(n, options) for n in options.sizes]
    resort_us = measure_resort(options)
    with stage("memory of a million requests"):
        memory = {name: in_fresh_process(name) for name in ("queue", "scheduler", "scheduler_with_bounds")}
    results = {
        "machine": machine(),
        "seed": options.seed,
        "operations_per_block": options.operations,
        "blocks": options.blocks,
        "rows": [asdict(row) for row in rows],
        "worst_ratio": max(row.ratio for row in rows),
        "resort_n": RESORT_SIZE,
        "resort_us": resort_us["resort"],
        "resort_ratio": resort_us["resort"] / resort_us["queue"],
        "rss_gb_at_1m": memory["queue"],
        "rss_gb_at_1m_scheduler": memory["scheduler"],
        "rss_gb_at_1m_scheduler_with_bounds": memory["scheduler_with_bounds"],
    }
    if options.json:
        print(json.dumps(results))
    else:
        show(results, rows)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="requests waiting")
    parser.add_argument("--operations", type=int, default=2_000, help="submit + pop in one block")
    parser.add_argument("--blocks", type=int, default=101, help="blocks of each side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def measure(n: int, options: argparse.Namespace) -> Row:
    keys = Keys(n, options.seed)
    waiting_keys = keys.waiting()
    sides: dict[str, Side] = {
        "heapq": BareHeap(waiting_keys),
        "queue": FilledQueue(waiting_keys),
        "bounded": FilledQueue(waiting_keys, BOUNDS),
        "scheduler": FilledScheduler(waiting_keys, StarvationSettings()),
        "bounded scheduler": FilledScheduler(waiting_keys, BOUNDS),
    }
    us = take_turns(sides, keys, options, f"{n:,} requests waiting")
    del sides
    gc.collect()
    return Row(
        n=n,
        heapq_us=us["heapq"],
        queue_us=us["queue"],
        ratio=us["queue"] / us["heapq"],
        queue_us_with_bounds=us["bounded"],
        scheduler_us=us["scheduler"],
        scheduler_us_with_bounds=us["bounded scheduler"],
    )


def take_turns(
    sides: dict[str, Side], keys: Keys, options: argparse.Namespace, what: str
) -> dict[str, float]:
    """Microseconds of one operation of each side."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in track(range(options.blocks), what, "blocks"):
        following = keys.following(options.operations)
        for name, side in sides.items():
            block = side.block(following)
            started = time.process_time()
            block()
            seconds[name].append(time.process_time() - started)
    return {name: median(times) / options.operations * 1e6 for name, times in seconds.items()}


def measure_resort(options: argparse.Namespace) -> dict[str, float]:
    """Microseconds of one submit + pop with RESORT_SIZE waiting: by sorting again, and by the queue."""
    keys = Keys(RESORT_SIZE, options.seed)
    waiting_keys = keys.waiting()
    sides: dict[str, Side] = {"resort": ResortedList(waiting_keys), "queue": FilledQueue(waiting_keys)}
    effort = argparse.Namespace(operations=RESORT_OPERATIONS, blocks=RESORT_BLOCKS)
    return take_turns(sides, keys, effort, f"sorting {RESORT_SIZE:,} at each step")


class BareHeap:
    """The baseline: (key, id) in a list that `heapq` keeps."""

    def __init__(self, keys: list[float]) -> None:
        self._heap = [(key, number) for number, key in enumerate(keys)]
        self._next_id = len(keys)
        heapq.heapify(self._heap)

    def block(self, keys: list[float]) -> Block:
        arrivals = list(zip(keys, range(self._next_id, self._next_id + len(keys)), strict=True))
        self._next_id += len(keys)

        def run() -> None:
            heap, push, pop = self._heap, heapq.heappush, heapq.heappop
            for key, number in arrivals:
                push(heap, (key, number))
                pop(heap)

        return run


class ResortedList:
    """A list of (-key, id), sorted again at each step; the first to serve is at its end."""

    def __init__(self, keys: list[float]) -> None:
        self._entries = sorted((-key, number) for number, key in enumerate(keys))

    def block(self, keys: list[float]) -> Block:
        def run() -> None:
            entries = self._entries
            for number, key in enumerate(keys):
                entries.append((-key, number))
                entries.sort()
                entries.pop()

        return run


class FilledQueue:
    def __init__(self, keys: list[float], bounds: StarvationSettings | None = None) -> None:
        self._requests = Requests()
        self._queue = RankedQueue(Ranking(), None if bounds is None else Starvation(bounds))
        for request in self._requests.make(keys):
            self._queue.add(request)

    def block(self, keys: list[float]) -> Block:
        arrivals = self._requests.make(keys)

        def run() -> None:
            add, pop = self._queue.add, self._queue.pop
            for request in arrivals:
                add(request)
                pop()

        return run


class FilledScheduler:
    def __init__(self, keys: list[float], bounds: StarvationSettings) -> None:
        self._requests = Requests()
        self._scheduler = Scheduler(Ranking(), SchedulerSettings(starvation=bounds))
        for request in self._requests.make(keys):
            self._scheduler.submit(request)

    def block(self, keys: list[float]) -> Block:
        arrivals = self._requests.make(keys)
        room = EngineRoom(sequences=1, batched_tokens=2048, kv_blocks=100_000)

        def run() -> None:
            submit, plan, end = self._scheduler.submit, self._scheduler.plan, self._scheduler.end
            for request in arrivals:
                submit(request)
                end(plan(0.0, room).started[0])

        return run


class Requests:
    """Makes requests that ranking serves in the order of the given keys.

    Keeps them, as whoever runs what was popped does: to free them is not the queue's work.
    """

    def __init__(self) -> None:
        self._made: list[Request] = []

    def make(self, keys: list[float]) -> list[Request]:
        first = len(self._made)
        made = [
            Request(
                f"request-{number}",
                arrival_s=0.0,
                prompt_tokens=100,
                max_tokens=1000,
                sequence=number,
                score=-key,
            )
            for number, key in enumerate(keys, first)
        ]
        self._made += made
        return made


def in_fresh_process(what: str) -> float | None:
    """GB of resident memory that LARGEST waiting requests take, the requests included."""
    if not sys.platform.startswith("linux"):
        return None
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        used: float = pool.apply(fill, (what,))
    return used


def fill(what: str) -> float:
    gc.disable()
    before = resident_gb()
    keys = Keys(LARGEST, seed=0).waiting()
    filled = (
        FilledQueue(keys)
        if what == "queue"
        else FilledScheduler(keys, BOUNDS if what == "scheduler_with_bounds" else StarvationSettings())
    )
    del keys
    gc.collect()
    used = resident_gb() - before
    del filled
    return used


def resident_gb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


def machine() -> str:
    return f"{describe_machine()}, {platform.python_implementation()} {platform.python_version()}"


def show(results: dict[str, Any], rows: list[Row]) -> None:
    print(f"{results['machine']}; seed {results['seed']}; medians of {results['blocks']} blocks of")
    print(f"{results['operations_per_block']} submit + pop each, in microseconds\n")
    print("| waiting | heapq | queue | ratio | queue, bounds | scheduler | scheduler, bounds |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.n:,} | {row.heapq_us:.2f} | {row.queue_us:.2f} | {row.ratio:.2f} |"
            f" {row.queue_us_with_bounds:.2f} |"
            f" {row.scheduler_us:.2f} | {row.scheduler_us_with_bounds:.2f} |"
        )
    print(f"\nworst ratio to heapq: {results['worst_ratio']:.2f}")
    print(f"a re-sort at each step of {RESORT_SIZE:,}: {results['resort_ratio']:.0f}x the queue")
    if results["rss_gb_at_1m"] is not None:
        print(
            f"a million waiting, requests included: {results['rss_gb_at_1m']:.2f} GB in the queue,"
            f" {results['rss_gb_at_1m_scheduler']:.2f} in the scheduler,"
            f" {results['rss_gb_at_1m_scheduler_with_bounds']:.2f} with both starvation bounds"
        )


if __name__ == "__main__":
    with report_on(sys.stderr):
        main()
