import numpy as np
import pytest

from rankserve.records.prompts import PromptRecord
from rankserve.trainer.batches import pad, parts_by_length
from rankserve.trainer.evaluation.assessment import assess, weighted_mean
from rankserve.trainer.evaluation.metrics import ceilings, kendall_tau, lengths_matrix, tau_report


def test_a_good_ranker_is_positive() -> None:
    assert kendall_tau([3.0, 2.0, 1.0], [10, 20, 30]) == pytest.approx(1.0)
    assert kendall_tau([1.0, 2.0, 3.0], [10, 20, 30]) == pytest.approx(-1.0)


def test_tau_b_with_ties_worked_out_by_hand() -> None:
    # Predicted order 1 < 2 < 3 < 4 of lengths 10, 20, 20, 15: of 6 pairs 3 agree, 2 do not, 1 is tied.
    assert kendall_tau([4.0, 3.0, 2.0, 1.0], [10, 20, 20, 15]) == pytest.approx((3 - 2) / np.sqrt(6 * 5))


@pytest.mark.parametrize(("scores", "lengths"), [([1.0, 1.0], [3, 4]), ([1.0, 2.0], [3, 3]), ([1.0], [3])])
def test_an_undefined_tau_is_zero(scores: list[float], lengths: list[int]) -> None:
    assert kendall_tau(scores, lengths) == 0.0


def test_single_samples_and_their_mean_are_reported_apart() -> None:
    lengths = np.array([[10.0, 40.0], [20.0, 30.0], [30.0, 80.0]])
    report = tau_report([3.0, 2.0, 1.0], lengths)
    assert report["kendall_tau"] == pytest.approx((1.0 + 1 / 3) / 2)
    assert report["kendall_tau_mean"] == pytest.approx(2 / np.sqrt(2 * 3))


def test_ceilings_worked_out_by_hand() -> None:
    lengths = np.array([[10.0, 11.0, 30.0], [20.0, 21.0, 20.0], [30.0, 31.0, 10.0]])
    found = ceilings(lengths)
    assert found["ceiling_sample"] == pytest.approx((1 - 1 - 1) / 3)
    # Others of column 0: means 20.5, 20.5, 20.5: undefined; of column 1: 20, 20, 20; of column 2: rising.
    assert found["ceiling_mean"] == pytest.approx((0 + 0 - 1) / 3)
    assert ceilings(lengths[:, :1]) == {}


def records(count: int) -> list[PromptRecord]:
    """The first word says the length."""
    words = {"tiny": 5, "short": 40, "medium": 150, "long": 600}
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        word = list(words)[i % len(words)]
        filler = " ".join(f"w{number}" for number in rng.integers(0, 50, rng.integers(1, 20)))
        lengths = tuple(int(words[word] * factor) + 1 for factor in rng.uniform(0.8, 1.2, 2))
        made.append(PromptRecord(str(i), f"{word} {filler}", lengths))
    return made


@pytest.mark.parametrize("learn_elsewhere", [True, False])
def test_the_figures_of_a_source(learn_elsewhere: bool) -> None:
    train, judged = records(400)[:200], records(400)[200:]
    oracle = [-record.mean_length for record in judged]
    figures = assess(oracle, judged, train if learn_elsewhere else ())
    assert figures["prompts"] == 200
    assert figures["kendall_tau_mean"] == pytest.approx(1.0)
    assert figures["baseline_tfidf_ridge"] > 0.6
    assert abs(figures["baseline_prompt_length"]) < 0.2
    assert figures["ceiling_mean"] < figures["kendall_tau"] <= 1.0
    assert figures["kendall_tau_low"] < figures["kendall_tau"] < figures["kendall_tau_high"]


def test_an_order_needs_two_prompts() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        assess([1.0], records(1))


def test_sources_are_averaged_by_their_prompts() -> None:
    mean = weighted_mean(
        {
            "a": {"prompts": 10.0, "kendall_tau": 0.2, "kendall_tau_low": 0.1, "ceiling_mean": 0.7},
            "b": {"prompts": 30.0, "kendall_tau": 0.6, "kendall_tau_low": 0.5},
        }
    )
    assert mean == {"prompts": 40.0, "kendall_tau": pytest.approx(0.5)}


def test_samples_are_cut_to_what_every_prompt_has() -> None:
    rows = [PromptRecord("a", "p", (1, 2, 3)), PromptRecord("b", "q", (4, 5))]
    assert lengths_matrix(rows).tolist() == [[1, 2], [4, 5]]


def test_padding() -> None:
    input_ids, attention_mask = pad([[5, 6, 7], [8]], pad_token_id=1)
    assert input_ids.tolist() == [[5, 6, 7], [8, 1, 1]]
    assert attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_parts_hold_every_row_once_within_the_budget() -> None:
    lengths = [3, 50, 7, 7, 120, 1, 30, 64]
    parts = parts_by_length(lengths, max_tokens=64)
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    widths = [max(lengths[row] for row in part) for part in parts]
    assert all(len(part) == 1 or len(part) * width <= 64 for part, width in zip(parts, widths, strict=True))
    assert len(parts) == 5
