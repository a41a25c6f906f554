import numpy as np
import pytest
from numpy.typing import NDArray

from rankserve.trainer.evaluation import bootstrap
from rankserve.trainer.evaluation.bootstrap import tau_intervals
from rankserve.trainer.evaluation.metrics import tau_report


def made(count: int, samples: int = 3, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and lengths with ties."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=count).round(1)
    return scores, np.ceil(5 * np.exp(-scores[:, None] + rng.normal(size=(count, samples))))


def test_the_two_ways_to_resample_agree() -> None:
    scores, lengths = made(70)
    times = np.random.default_rng(1).multinomial(70, np.full(70, 1 / 70), size=20)
    found = bootstrap._over_all_pairs(scores, lengths[:, 0], times)
    np.testing.assert_allclose(found, bootstrap._one_by_one(scores, lengths[:, 0], times), atol=1e-12)


def test_an_interval_holds_its_figure_and_is_the_same_each_time() -> None:
    scores, lengths = made(200)
    found, report = tau_intervals(scores, lengths), tau_report(scores, lengths)
    for name in ("kendall_tau", "kendall_tau_mean"):
        assert found[f"{name}_low"] < report[name] < found[f"{name}_high"]
    assert found == tau_intervals(scores, lengths)
    assert found != tau_intervals(scores, lengths, seed=1)
    assert "kendall_tau_mean_low" not in tau_intervals(scores, lengths[:, :1])


def test_more_prompts_make_it_narrower_as_the_square_root() -> None:
    def width(count: int) -> float:
        found = tau_intervals(*made(count, samples=1))
        return found["kendall_tau_high"] - found["kendall_tau_low"]

    assert width(100) / width(1600) == pytest.approx(4, rel=0.3)


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    truth = tau_report(*made(20_000, samples=1, seed=99))["kendall_tau"]
    covered = []
    for seed in range(50):
        found = tau_intervals(*made(80, samples=1, seed=seed))
        covered.append(found["kendall_tau_low"] <= truth <= found["kendall_tau_high"])
    assert np.mean(covered) >= 0.86


@pytest.mark.parametrize("count", [2, 5])
def test_where_tau_is_undefined_it_counts_as_0(count: int) -> None:
    found = tau_intervals(np.zeros(count), np.arange(count, dtype=np.float64)[:, None])
    assert found == {"kendall_tau_low": 0, "kendall_tau_high": 0}


def test_many_prompts_are_resampled_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, lengths = made(60)
    few = tau_intervals(scores, lengths)
    monkeypatch.setattr(bootstrap, "_FEW_PROMPTS", 50)
    many = tau_intervals(scores, lengths)
    assert many["kendall_tau_low"] == pytest.approx(few["kendall_tau_low"], abs=0.05)
    assert many != few
