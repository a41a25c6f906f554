import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rankserve.exporter.agreement import agreements, discordant_share, kendall_tau, mean_ceiling, mean_tau
from rankserve.exporter.errors import GateError
from rankserve.exporter.gates import check_batch_effect, check_prompts, check_tau, check_tau_drop
from rankserve.exporter.session import GraphScorer
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


def _infinite_where_the_first_column_is_padding() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["mask", "first"], ["start"], axis=1),
        helper.make_node("Log", ["start"], ["zero"]),
        helper.make_node("ReduceSum", ["mask", "axis"], ["tokens"], keepdims=0),
        helper.make_node("Add", ["tokens", "zero"], ["score"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(0), "first"),
        numpy_helper.from_array(np.array([1]), "axis"),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"])]
    graph = helper.make_graph(nodes, "ranker", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_scores_that_are_not_finite_in_some_batches_are_refused() -> None:
    """Kendall's tau of such scores is undefined, which must not pass for an order that nothing disturbs."""
    scorer = GraphScorer(_infinite_where_the_first_column_is_padding(), 0)
    rows = [[1] * (1 + number % 7) for number in range(40)]

    assert np.isfinite(scorer.score(rows)).all()
    with pytest.raises(GateError, match=r"not finite \(batches padded on the left"):
        check_batch_effect(scorer, rows, seed=0)
