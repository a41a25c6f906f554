import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rankserve.exporter.calibration import calibrate
from rankserve.records.prompts import PromptRecord
from rankserve.records.ranker_version import Calibration


def _records(lengths: list[tuple[int, ...]]) -> list[PromptRecord]:
    return [PromptRecord(str(index), "x", each) for index, each in enumerate(lengths)]


def _is_monotone(calibration: Calibration) -> bool:
    rising = all(a < b for a, b in itertools.pairwise(calibration.scores))
    falling = all(
        a >= b
        for tokens in (calibration.tokens_p50, calibration.tokens_p90)
        for a, b in itertools.pairwise(tokens)
    )
    return rising and falling


def test_recovers_quantiles_of_lengths_that_the_score_explains() -> None:
    generator = np.random.default_rng(0)
    scores = generator.uniform(-2, 2, 4000)
    lengths = [tuple(generator.exponential(np.exp(4 - s), 2).astype(int) + 1) for s in scores]

    calibration = calibrate(scores, _records([tuple(map(int, each)) for each in lengths]))

    assert _is_monotone(calibration)
    assert len(calibration.scores) == 24
    expected_p50 = np.log(2) * np.exp(4 - np.array(calibration.scores))
    expected_p90 = np.log(10) * np.exp(4 - np.array(calibration.scores))
    np.testing.assert_allclose(calibration.tokens_p50, expected_p50, rtol=0.25)
    np.testing.assert_allclose(calibration.tokens_p90, expected_p90, rtol=0.25)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-3, 3), st.lists(st.integers(1, 500), min_size=1, max_size=3)),
        min_size=1,
        max_size=150,
    )
)
def test_is_monotone_and_p90_is_not_below_p50(prompts: list[tuple[int, list[int]]]) -> None:
    scores = np.array([float(score) for score, _ in prompts])

    calibration = calibrate(scores, _records([tuple(lengths) for _, lengths in prompts]))

    assert _is_monotone(calibration)
    assert all(p50 <= p90 for p50, p90 in zip(calibration.tokens_p50, calibration.tokens_p90, strict=True))


def test_equal_scores_share_a_knot() -> None:
    calibration = calibrate(np.zeros(100), _records([(length,) for length in range(1, 101)]))

    assert calibration.scores == (0.0,)
    assert calibration.tokens_p50 == (50.0,)
    assert calibration.tokens_p90 == (90.0,)


def test_answers_that_were_cut_off_count_as_at_least_so_long() -> None:
    lengths = tuple(range(10, 101, 10))
    cut = [PromptRecord(str(n), "x", (length,), censored=(length == 30,)) for n, length in enumerate(lengths)]

    calibration = calibrate(np.zeros(10), cut)

    # Worked out by hand (Kaplan-Meier): 0.9, 0.8, then 7 at risk: 0.686, 0.571, 0.457 | ... 0.114, 0.
    assert calibration.tokens_p50 == (60.0,)
    assert calibration.tokens_p90 == (100.0,)


def test_a_percentile_beyond_the_cap_is_the_cap() -> None:
    records = [PromptRecord(str(n), "x", (min(n, 80),), censored=(n >= 80,)) for n in range(1, 101)]

    calibration = calibrate(np.zeros(100), records)

    assert (calibration.tokens_p50, calibration.tokens_p90) == ((50.0,), (80.0,))
