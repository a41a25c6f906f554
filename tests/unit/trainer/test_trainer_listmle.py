import itertools
import math

import pytest
import torch

from rankserve.trainer.losses import list_mle


def plackett_luce(scores: list[float]) -> float:
    """Negative log-probability of drawing the items in the order given, per item."""
    total = sum(
        math.log(sum(math.exp(score) for score in scores[i:])) - scores[i] for i in range(len(scores))
    )
    return total / len(scores)


def test_equals_the_plackett_luce_likelihood_worked_out_by_hand() -> None:
    # Order by label: score 2, then 1, then 0.
    # ln(e^2 + e + 1) - 2 = 0.40761, ln(e + 1) - 1 = 0.31326, 0.
    scores = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    loss = list_mle(scores, torch.tensor([20.0, 10.0, 30.0]))
    assert loss.item() == pytest.approx((0.40760596 + 0.31326169) / 3, abs=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_without_ties_it_is_plain_list_mle(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(8, generator=generator, dtype=torch.float64)
    labels = torch.randperm(8, generator=generator).double()
    by_label = scores[labels.argsort(descending=True)].tolist()
    assert list_mle(scores, labels).item() == pytest.approx(plackett_luce(by_label))


def test_the_probabilities_of_all_orders_add_up_to_one() -> None:
    scores = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)
    probabilities = [
        math.exp(-4 * list_mle(scores, torch.tensor(order, dtype=torch.float64)).item())
        for order in itertools.permutations(range(4))
    ]
    assert sum(probabilities) == pytest.approx(1.0)


def test_the_order_in_which_a_list_is_given_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(12, generator=generator, dtype=torch.float64)
    labels = torch.tensor([3.0, 1, 1, 2, 3, 3, 0, 2, 1, 5, 4, 4])
    expected = list_mle(scores, labels)
    for _ in range(5):
        order = torch.randperm(12, generator=generator)
        torch.testing.assert_close(list_mle(scores[order], labels[order]), expected)


def test_ties_worked_out_by_hand() -> None:
    # Two tied at the top, one below: both tied items are charged with all three in the denominator.
    scores = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    whole = math.log(math.e + 1 + math.exp(0.5))
    expected = ((whole - 1.0) + (whole - 0.0) + 0.0) / 3
    assert list_mle(scores, torch.tensor([7.0, 7.0, 1.0])).item() == pytest.approx(expected)


def test_equal_labels_are_drawn_to_equal_scores() -> None:
    scores = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64, requires_grad=True)
    torch.autograd.backward(list_mle(scores, torch.zeros(3)))
    assert scores.grad is not None
    assert scores.grad[0] > 0 > scores.grad[1]
    even = torch.full((3,), 1.5, dtype=torch.float64, requires_grad=True)
    torch.autograd.backward(list_mle(even, torch.zeros(3)))
    torch.testing.assert_close(even.grad, torch.zeros(3, dtype=torch.float64))


def test_gradient() -> None:
    scores = torch.tensor([0.1, 1.3, -0.4, 0.9, -2.0], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([2.0, 5.0, 2.0, 1.0, 9.0])
    assert torch.autograd.gradcheck(lambda values: list_mle(values, labels), (scores,))


@pytest.mark.parametrize("scale", [1e4, -1e4, 1e30])
def test_large_scores_overflow_neither_loss_nor_gradient(scale: float) -> None:
    scores = (torch.tensor([1.0, 2.0, 3.0, 4.0]) * scale).requires_grad_()
    loss = list_mle(scores, torch.tensor([1.0, 2.0, 2.0, 4.0]))
    torch.autograd.backward(loss)
    assert torch.isfinite(loss)
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
