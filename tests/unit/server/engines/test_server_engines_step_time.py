"""Step times: linear fits and measured grids through one function, and lines over context for sums."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankserve.server.engines.simulated.linear_fit import LinearFit
from rankserve.server.engines.simulated.step_time import StepTimes, decode_line, step_ms

FIT = LinearFit(8.91, 0.0484, 0.0415, 7.86e-5)


def measured(seed: int = 0, straggler_ms: float = 0.0, prefill_pair_ms: float = 0.0) -> StepTimes:
    """Random times on uneven axes."""
    random = np.random.default_rng(seed)
    chunks, histories, sequences, contexts = (
        np.array(axis, float) for axis in ((0, 16, 64), (0, 100, 900), (0, 1, 2, 8), (16, 64, 200, 1000))
    )
    return StepTimes(
        chunk_axis=chunks,
        history_axis=histories,
        sequences_axis=sequences,
        context_axis=contexts,
        attention_ms=random.uniform(1, 9, (3, 3, 4, 4)),
        tokens_axis=np.array([1.0, 8.0, 100.0]),
        tokens_ms=np.array([1.0, 2.0, 7.0]),
        sampled_axis=np.array([1.0, 8.0]),
        sampled_ms=np.array([0.5, 0.75]),
        straggler_ms=straggler_ms,
        prefill_pair_ms=prefill_pair_ms,
        overhead_ms=0.25,
    )


# The first call compiles.
@settings(deadline=None)
@given(
    prefill=st.integers(0, 20_000),
    history=st.integers(0, 100_000),
    sequences=st.integers(0, 1000),
    context=st.integers(1, 100_000),
)
def test_a_linear_fit_comes_out_exactly_within_and_beyond_its_grid(
    prefill: int, history: int, sequences: int, context: int
) -> None:
    total = sequences * context
    expected = 8.91 + 0.0484 * prefill + 0.0415 * sequences + 7.86e-5 * total
    found = step_ms(FIT.step_times(), prefill, prefill * history, prefill**2, sequences, total, 0, sequences)
    assert found == pytest.approx(expected, rel=1e-10)


def test_grid_points_are_reproduced() -> None:
    times = measured()
    for (i, j, k, m), attention in np.ndenumerate(times.attention_ms):
        chunk, history, sequences, context = (
            int(axis[at]) for axis, at in zip(times[:4], (i, j, k, m), strict=True)
        )
        if chunk == 0 or sequences == 0:
            continue
        rest = np.interp(chunk + sequences, times.tokens_axis, times.tokens_ms) + 0.5 + 0.25
        found = step_ms(times, chunk, chunk * history, chunk**2, sequences, sequences * context, context, 1)
        assert found == pytest.approx(attention + rest, rel=1e-12)


def test_between_points_times_are_linear_and_before_the_first_constant() -> None:
    times = measured()

    def at(context: float) -> float:
        return step_ms(times, 0, 0, 0, 8, int(8 * context), 0, 8)

    assert at(132) == pytest.approx((at(64) + at(200)) / 2)
    assert at(1) == pytest.approx(at(16))
    assert at(1800) == pytest.approx(2 * at(1000) - at(200))
    # Three sequences lie a sixth of the way from two to eight.
    grid = times.attention_ms[0, 0, :, 1]
    tokens = np.interp(3, times.tokens_axis, times.tokens_ms) + np.interp(3, (1, 8), (0.5, 0.75)) + 0.25
    assert step_ms(times, 0, 0, 0, 3, 3 * 64, 0, 3) == pytest.approx(
        grid[2] + (grid[3] - grid[2]) / 6 + tokens
    )


@settings(deadline=None)
@given(sequences=st.integers(1, 20), context=st.integers(1, 30_000))
def test_a_decode_line_holds_up_to_its_last_context_and_meets_the_next(sequences: int, context: int) -> None:
    times = measured()
    intercept, slope, last = decode_line(times, sequences, context)
    assert last > context
    for total in {context, (context + min(last, context + 1000)) // 2}:
        found = step_ms(times, 0, 0, 0, sequences, int(total), 0, sequences)
        assert found == pytest.approx(intercept + slope * int(total), rel=1e-12)
    if last < math.inf:
        following, next_slope, _ = decode_line(times, sequences, int(last))
        assert intercept + slope * last == pytest.approx(following + next_slope * last, rel=1e-12)


def test_a_step_that_prefills_waits_for_its_longest_decoding_sequence() -> None:
    even, straggling = measured(), measured(straggler_ms=0.01)
    args = (16, 0, 256, 4, 400)
    assert step_ms(straggling, *args, 100, 4) == pytest.approx(step_ms(even, *args, 100, 4))
    assert step_ms(straggling, *args, 250, 4) == pytest.approx(step_ms(even, *args, 250, 4) + 1.5)
    assert step_ms(straggling, 0, 0, 0, 4, 400, 250, 4) == step_ms(even, 0, 0, 0, 4, 400, 250, 4)
    assert step_ms(straggling, 16, 0, 256, 0, 0, 0, 1) == step_ms(even, 16, 0, 256, 0, 0, 0, 1)


def test_a_token_attends_to_those_before_it_in_its_own_prompt() -> None:
    """Of one prompt of 64 tokens, or 4 of 16 each that find 100 already."""
    without, with_pairs = measured(), measured(prefill_pair_ms=0.01)
    for history, squares, pairs in ((0, 64 * 64, 2048), (64 * 100, 4 * 16 * 16, 6400 + 512)):
        args = (64, history, squares, 4, 400, 100, 5)
        assert step_ms(with_pairs, *args) == pytest.approx(step_ms(without, *args) + 0.01 * pairs)
    assert step_ms(with_pairs, 0, 0, 0, 4, 400, 100, 4) == step_ms(without, 0, 0, 0, 4, 400, 100, 4)


PROGRAM = """
import json
from test_server_engines_step_time import measured
from rankserve.server.engines.simulated.step_time import step_ms
steps = [(p, 50 * p, 20 * p, n, 333 * n, 400, n + 1) for p in (0, 7, 40, 90) for n in (0, 1, 3, 12) if p + n]
print(json.dumps([step_ms.machine_code(measured(3, 0.01, 1e-4), *step) for step in steps]))
"""


def test_compiled_and_interpreted_give_the_same() -> None:
    pytest.importorskip("numba", reason="compares with code that numba compiled")
    found = []
    for disabled in ("0", "1"):
        environment = os.environ | {"NUMBA_DISABLE_JIT": disabled, "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout))
    assert found[0] == pytest.approx(found[1], rel=1e-12)
