"""Promise: one stream takes five times and gives four times what a bare gRPC server does.

And with 100,000 requests waiting and 1,000 streams open, nothing holds the event loop for long.

Here a small run that times nothing: everything is accepted, delivered and acknowledged. All of it, with the
ratios, by `make promises`; `python -m benchmarks.service` prints the same as a table.
"""

import sys
from pathlib import Path

from support.promises import FULL, note

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.service.measure import Sizes, measure

SEED = 0
SIZES = (
    Sizes()
    if FULL
    else Sizes(
        turns=1,
        echo_s=0.2,
        requests=500,
        waiting=1000,
        streams=50,
        acknowledged_per_s=500.0,
        slots=32,
    )
)


async def test_several_times_a_bare_echo() -> None:
    # It raises where anything is refused, fails or does not wait as it should.
    figures = await measure(SIZES, SEED)
    note("throughput", seed=SEED, **{name: f"{value:.4g}" for name, value in figures.items()})
    assert min(figures.values()) >= 0
    if FULL:
        assert figures["fcfs_accepted"] >= 5 * figures["echo_32"]
        assert figures["ranking_accepted"] >= 4 * figures["echo_32"]
        assert figures["journal_accepted"] >= 0.8 * figures["fcfs_accepted"]
        assert figures["delivered"] >= 4 * figures["streamed"]
        for policy in ("fcfs", "default", "ranking"):
            assert figures[f"ack_{policy}_p99"] <= 10 * figures["echo_32_p99"]
            assert figures[f"held_{policy}_p999"] <= 0.010
