"""Coverage says how a calibration does on prompts it has not seen, not on its own."""

import numpy as np
import pytest

from rankserve.exporter.coverage import measure_coverage
from rankserve.records.prompts import PromptRecord


def _made_up(count: int, answers: int = 1, *, seed: int = 0) -> tuple[np.ndarray, list[PromptRecord]]:
    """Lengths that the score explains, with noise."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=count)
    lengths = np.exp(4 - scores[:, None] + generator.normal(0, 0.5, (count, answers))).astype(int) + 1
    records = [PromptRecord(str(n), f"prompt {n}", tuple(map(int, each))) for n, each in enumerate(lengths)]
    return scores, records


def test_a_calibration_of_like_prompts_covers_what_it_says() -> None:
    coverage = measure_coverage(*_made_up(4000, 2), seed=0)

    assert (coverage.prompts, coverage.answers, coverage.censored) == (4000, 8000, 0)
    assert coverage.p50 == pytest.approx(0.5, abs=0.02)
    assert coverage.p90 == pytest.approx(0.9, abs=0.02)
    assert len(coverage.p50_by_score) == len(coverage.p90_by_score) == 10
    assert all(0.4 < share < 0.6 for share in coverage.p50_by_score)
    assert np.mean(coverage.p50_by_score) == pytest.approx(coverage.p50, abs=1e-3)


def test_the_first_group_has_the_lowest_scores() -> None:
    # The longest tenth is twice as long as each calibration can know: the knots reach no further.
    scores = np.arange(100.0)
    records = [PromptRecord(str(n), f"{n}", (1000 if n < 10 else 10,)) for n in range(100)]

    coverage = measure_coverage(scores, records, seed=0)

    assert coverage.p50_by_score[0] < 0.5
    assert coverage.p50_by_score[-1] == 1


def test_what_a_calibration_learnt_by_heart_does_not_count() -> None:
    # Each score has its own length, which says nothing of the others: within its knots a calibration fits.
    generator = np.random.default_rng(3)
    scores = generator.normal(size=40)
    records = [
        PromptRecord(str(n), f"{n}", (int(length),))
        for n, length in enumerate(generator.integers(1, 1000, 40))
    ]

    shares = [measure_coverage(scores, records, seed=seed).p90 for seed in range(20)]

    # Fitted to the same prompts it would be 0.9 or more each time.
    assert np.mean(shares) < 0.9


def test_copies_of_a_prompt_are_held_out_together() -> None:
    generator = np.random.default_rng(0)
    scores = np.repeat(generator.normal(size=30), 10)
    lengths = np.repeat(generator.integers(1, 10_000, 30), 10)
    records = [PromptRecord(str(n), f"prompt {n // 10}", (int(length),)) for n, length in enumerate(lengths)]
    apart = [PromptRecord(str(n), f"prompt {n}", (int(length),)) for n, length in enumerate(lengths)]

    # With copies on both sides each length would be known.
    assert measure_coverage(scores, records, seed=0).p90 < measure_coverage(scores, apart, seed=0).p90


def test_answers_that_were_cut_off_count_as_longer() -> None:
    scores, records = _made_up(1000)
    cap = int(np.quantile([record.output_lengths[0] for record in records], 0.7))
    cut = [
        PromptRecord(r.id, r.prompt, (min(cap, r.output_lengths[0]),), censored=(r.output_lengths[0] >= cap,))
        for r in records
    ]

    coverage = measure_coverage(scores, cut, seed=0)

    assert coverage.censored == pytest.approx(300, abs=5)
    # The lowest scores expect the cap and most of their answers were cut there.
    assert coverage.p90_by_score[0] < 0.5
    assert coverage.p90_by_score[-1] == pytest.approx(0.9, abs=0.07)


def test_depends_on_nothing_but_its_seed() -> None:
    scores, records = _made_up(200)

    assert measure_coverage(scores, records, seed=1) == measure_coverage(scores, records, seed=1)
    assert measure_coverage(scores, records, seed=1) != measure_coverage(scores, records, seed=2)
