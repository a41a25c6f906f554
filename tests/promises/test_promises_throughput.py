"""Promise: one stream takes and gives three times what a bare gRPC server does, whatever waits and is open.

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


async def test_three_times_a_bare_echo() -> None:
    # It raises where anything is refused, fails or does not wait as it should.
    figures = await measure(SIZES, SEED)
    note("throughput", seed=SEED, **{name: f"{value:.4g}" for name, value in figures.items()})
    assert min(figures.values()) >= 0
    if FULL:
        assert figures["fcfs_accepted"] >= 3 * figures["echo_32"]
        assert figures["journal_accepted"] >= 0.7 * figures["fcfs_accepted"]
        assert figures["delivered"] >= 3 * figures["streamed"]
        assert figures["delay_p99"] <= 0.050
        assert figures["ack_fcfs_p99"] < 0.050
        assert figures["ack_ranking_p99"] < 0.050
