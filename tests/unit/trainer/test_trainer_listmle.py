import itertools
import math

import pytest
import torch
from torch import Tensor

from rankserve.trainer.labels import ListLabels
from rankserve.trainer.losses.listmle import ListMLE


def list_mle(scores: Tensor, lengths: Tensor) -> Tensor:
    return ListMLE()(scores, ListLabels(lengths[:, None], torch.zeros(len(lengths), 1, dtype=torch.bool)))


def plackett_luce(scores: list[float]) -> float:
    """Negative log-probability of drawing the items in the order given, per item."""
    total = sum(
        math.log(sum(math.exp(score) for score in scores[i:])) - scores[i] for i in range(len(scores))
    )
    return total / len(scores)


def test_equals_the_plackett_luce_likelihood_worked_out_by_hand() -> None:
    # Shortest first: score 2, then 1, then 0.
    # ln(e^2 + e + 1) - 2 = 0.40761, ln(e + 1) - 1 = 0.31326, 0.
    scores = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    loss = list_mle(scores, torch.tensor([20.0, 30.0, 10.0]))
    assert loss.item() == pytest.approx((0.40760596 + 0.31326169) / 3, abs=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_without_ties_it_is_plain_list_mle(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(8, generator=generator, dtype=torch.float64)
    lengths = torch.randperm(8, generator=generator).double()
    shortest_first = scores[lengths.argsort()].tolist()
    assert list_mle(scores, lengths).item() == pytest.approx(plackett_luce(shortest_first))


def test_the_probabilities_of_all_orders_add_up_to_one() -> None:
    scores = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)
    probabilities = [
        math.exp(-4 * list_mle(scores, torch.tensor(order, dtype=torch.float64)).item())
        for order in itertools.permutations(range(4))
    ]
    assert sum(probabilities) == pytest.approx(1.0)


def test_ties_worked_out_by_hand() -> None:
    # Two tied as the shortest, one longer: both tied items are charged with all three in the denominator.
    scores = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    whole = math.log(math.e + 1 + math.exp(0.5))
    expected = ((whole - 1.0) + (whole - 0.0) + 0.0) / 3
    assert list_mle(scores, torch.tensor([7.0, 7.0, 30.0])).item() == pytest.approx(expected)


def test_equal_lengths_are_drawn_to_equal_scores() -> None:
    scores = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64, requires_grad=True)
    torch.autograd.backward(list_mle(scores, torch.zeros(3)))
    assert scores.grad is not None
    assert scores.grad[0] > 0 > scores.grad[1]
    even = torch.full((3,), 1.5, dtype=torch.float64, requires_grad=True)
    torch.autograd.backward(list_mle(even, torch.zeros(3)))
    torch.testing.assert_close(even.grad, torch.zeros(3, dtype=torch.float64))


def test_a_cut_answer_worked_out_by_hand() -> None:
    # Lengths 10, at least 20, 30: the cut one is left when 10 is drawn, and gone when 30 is.
    scores = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    labels = ListLabels.of([[10], [20], [30]], [[False], [True], [False]])
    expected = (math.log(math.e + 1 + math.exp(0.5)) - 1.0 + 0.0) / 2
    assert ListMLE()(scores, labels).item() == pytest.approx(expected)


def test_several_samples_are_as_many_draws_of_the_list() -> None:
    scores = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    lengths = torch.tensor([[10.0, 90.0], [20.0, 5.0], [30.0, 7.0]])
    both = ListMLE()(scores, ListLabels(lengths, torch.zeros(3, 2, dtype=torch.bool)))
    expected = (list_mle(scores, lengths[:, 0]) + list_mle(scores, lengths[:, 1])) / 2
    torch.testing.assert_close(both, expected)


@pytest.mark.parametrize("scale", [1e4, -1e4, 1e30])
def test_large_scores_overflow_neither_loss_nor_gradient(scale: float) -> None:
    scores = (torch.tensor([1.0, 2.0, 3.0, 4.0]) * scale).requires_grad_()
    loss = list_mle(scores, torch.tensor([1.0, 2.0, 2.0, 4.0]))
    torch.autograd.backward(loss)
    assert torch.isfinite(loss)
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
