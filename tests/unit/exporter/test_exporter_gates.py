import numpy as np
import pytest

from rankserve.exporter.agreement import agreements, discordant_share, kendall_tau, mean_ceiling, mean_tau
from rankserve.exporter.errors import GateError
from rankserve.exporter.gates import check_prompts, check_tau, check_tau_drop
from rankserve.exporter.validation import ValidationSet
from rankserve.records.prompts import PromptRecord


def _set(source: str, *lengths: tuple[int, ...]) -> ValidationSet:
    return ValidationSet(source, tuple(PromptRecord(str(i), "x", each) for i, each in enumerate(lengths)))


def test_tau_is_positive_when_high_scores_have_short_answers() -> None:
    assert kendall_tau([3.0, 2.0, 1.0], [10, 20, 30]) == 1
    assert kendall_tau([1.0, 2.0, 3.0], [10, 20, 30]) == -1
    assert kendall_tau([1.0, 1.0], [10, 20]) == 0


def test_each_source_is_ordered_on_its_own() -> None:
    # Ordered within each source; between them the longer answers have the higher scores.
    sets = [_set("a", (10,), (20,), (30,)), _set("b", (100,), (200,))]

    found = agreements(np.array([3.0, 2.0, 1.0, 9.0, 8.0]), sets)

    assert [each.tau for each in found] == [1, 1]
    assert mean_tau(found) == 1


def test_tau_is_averaged_over_answers_and_weighted_by_prompts() -> None:
    # Source a: answers agree (1) and disagree (-1) with the scores, so 0; source b: 1.
    sets = [_set("a", (10, 30), (20, 20), (30, 10)), _set("b", (1, 1), (2, 2))]

    found = agreements(np.array([3.0, 2.0, 1.0, 2.0, 1.0]), sets)

    assert mean_tau(found) == pytest.approx((3 * 0 + 2 * 1) / 5)
    assert mean_ceiling(found) == pytest.approx((3 * -1 + 2 * 1) / 5)


def test_ceiling_is_unknown_with_one_answer_a_prompt() -> None:
    found = agreements(np.array([3.0, 2.0, 2.0, 1.0]), [_set("a", (1, 2), (3, 4)), _set("b", (1,), (2,))])

    assert found[0].ceiling == 1
    assert found[1].ceiling is None
    assert mean_ceiling(found) is None


def test_discordant_share_counts_swapped_pairs() -> None:
    # One of three pairs is swapped.
    assert discordant_share(np.array([1.0, 2.0, 3.0]), np.array([2.0, 1.0, 3.0])) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("tau", "prompts", "minimum", "message"),
    [
        (-0.3, 1000, 0.1, "the sign seems inverted"),
        (0.05, 5000, 0.1, "at least 0.100 is needed"),
        (0.15, 50, 0.1, r"at least 0\.29\d is needed"),
        (0.3, 1000, 0.4, "at least 0.400 is needed"),
    ],
)
def test_bad_tau_is_refused(tau: float, prompts: int, minimum: float, message: str) -> None:
    with pytest.raises(GateError, match=message):
        check_tau(tau, prompts, minimum)


def test_too_few_prompts_are_refused() -> None:
    check_prompts(30)
    with pytest.raises(GateError, match="29 validation prompts cannot tell"):
        check_prompts(29)


def test_good_tau_passes() -> None:
    check_tau(0.5, 1000, 0.1)
    check_tau_drop(0.496, 0.5, "int8")


def test_tau_drop_is_refused() -> None:
    with pytest.raises(GateError, match=r"int8 lowers Kendall's tau from 0\.5000 to 0\.4800"):
        check_tau_drop(0.48, 0.50, "int8")
