"""What holds for every loss; the values of each are in test_trainer_loss_values.py."""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from rankserve.trainer.config import LossConfig, LossName
from rankserve.trainer.labels import ListLabels
from rankserve.trainer.losses import Loss, make_loss

TRAINING_LENGTHS = [12, 30, 44, 60, 91, 140, 200, 310, 512, 700]
LABELS = ("mean", "sample", "distribution")
OPTIONS: dict[str, dict[str, Any]] = {
    "listmle": {},
    "listnet": {},
    "ranknet": {"near_tie": 0.1},
    "margin": {"near_tie": 0.1, "margin": 0.8},
    "approx_ndcg": {"rank_temperature": 0.5},
    "log_length": {},
    "classification": {"classes": 5},
}
NAMES = get_args(LossName)


def loss_named(name: str, **settings: Any) -> Loss:
    return make_loss(LossConfig.model_validate({"name": name, **settings}), TRAINING_LENGTHS)


def mixed_list() -> ListLabels:
    """Ties, near ties, cut answers, and fewer samples of some."""
    lengths = [[50, 70, 61], [300, 512, 512], [52, 70], [20], [512, 400, 512], [700, 120, 90], [20, 25, 24]]
    censored = [[length == 512 for length in row] for row in lengths]
    return ListLabels.of(lengths, censored)


def scores_for(labels: ListLabels, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(labels), generator=generator, dtype=torch.float64).requires_grad_()


def gradient(loss: Loss, scores: Tensor, labels: ListLabels) -> Tensor:
    leaf = scores.detach().clone().requires_grad_()
    value = loss(leaf, labels)
    assert value.shape == ()
    assert torch.isfinite(value)
    torch.autograd.backward(value)
    assert leaf.grad is not None
    return leaf.grad


def reordered(labels: ListLabels, order: Tensor) -> ListLabels:
    return ListLabels(labels.lengths[order], labels.censored[order])


def test_every_loss_is_tested() -> None:
    assert set(OPTIONS) == set(NAMES)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_the_loss(name: str, label: str) -> None:
    loss, labels = loss_named(name, label=label, **OPTIONS[name]), mixed_list()
    assert torch.autograd.gradcheck(lambda values: loss(values, labels), (scores_for(labels),))


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("name", NAMES)
def test_the_order_in_which_a_list_is_given_does_not_matter(name: str, label: str) -> None:
    loss, labels = loss_named(name, label=label, **OPTIONS[name]), mixed_list()
    scores = scores_for(labels).detach()
    value, slope = loss(scores, labels), gradient(loss, scores, labels)
    for seed in range(3):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(loss(scores[order], reordered(labels, order)), value)
        torch.testing.assert_close(gradient(loss, scores[order], reordered(labels, order)), slope[order])


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_a_prompts_samples_matters_only_to_the_label_that_takes_the_first(name: str) -> None:
    labels = ListLabels.of([[50, 70, 61], [300, 90, 20], [52, 71, 20]])
    turned = ListLabels(labels.lengths.flip(1), labels.censored.flip(1))
    scores = scores_for(labels).detach()
    for label in ("mean", "sample"):
        loss = loss_named(name, label=label, **OPTIONS[name])
        same = torch.isclose(loss(scores, labels), loss(scores, turned))
        assert bool(same) == (label == "mean")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_extreme_scores_overflow_neither_loss_nor_gradient(name: str, dtype: torch.dtype) -> None:
    labels = mixed_list()
    loss = loss_named(name, label="distribution", **OPTIONS[name])
    for scores in (torch.linspace(-50, 50, len(labels)), torch.linspace(50, -50, len(labels))):
        slope = gradient(loss, scores.to(dtype), labels)
        assert slope.dtype == dtype
        assert torch.isfinite(slope).all()


@pytest.mark.parametrize("name", NAMES)
def test_descending_the_gradient_orders_the_list(name: str) -> None:
    lengths = [[30, 31], [210, 200], [14, 15], [600, 610], [90, 92]]
    loss, labels = loss_named(name, label="distribution", **OPTIONS[name]), ListLabels.of(lengths)
    scores = torch.zeros(5, dtype=torch.float64)
    for _ in range(200):
        scores -= 0.3 * gradient(loss, scores, labels)
    assert scores.argsort(descending=True).tolist() == [2, 0, 4, 1, 3]


RELATIVE = [name for name in NAMES if name not in ("log_length", "classification")]


@pytest.mark.parametrize("name", RELATIVE)
def test_a_single_item_has_no_order(name: str) -> None:
    loss = loss_named(name, label="distribution")
    for labels in (ListLabels.of([[7, 9]]), ListLabels.of([[7]], [[True]])):
        scores = torch.tensor([3.0])
        assert loss(scores, labels).item() == 0
        assert gradient(loss, scores, labels).tolist() == [0]


@pytest.mark.parametrize("name", RELATIVE)
def test_a_shift_of_all_scores_changes_nothing(name: str) -> None:
    loss, labels = loss_named(name, label="distribution", **OPTIONS[name]), mixed_list()
    scores = scores_for(labels).detach()
    torch.testing.assert_close(loss(scores + 3, labels), loss(scores, labels))
    assert gradient(loss, scores, labels).sum().item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", RELATIVE)
def test_equal_lengths_and_equal_scores_have_no_gradient(name: str) -> None:
    labels = ListLabels.of([[40, 40]] * 4)
    for label in LABELS:
        slope = gradient(loss_named(name, label=label), torch.full((4,), 1.5), labels)
        torch.testing.assert_close(slope, torch.zeros(4))


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_cut_before_another_ended_says_nothing_of_their_order(name: str) -> None:
    """Cut at 512, against one whole at 700; and against one cut at 600."""
    for lengths, censored in (([[512], [700]], [[True], [False]]), ([[512], [600]], [[True], [True]])):
        labels = ListLabels.of(lengths, censored)
        loss = loss_named(name, **OPTIONS[name])
        scores = torch.tensor([0.3, -1.1], dtype=torch.float64)
        # Pointwise, each has its own; no score may feel the other's.
        first, second = (
            gradient(loss, scores, labels),
            gradient(loss, scores + torch.tensor([0.0, 0.2]), labels),
        )
        assert first[0] == second[0]
        if name in RELATIVE:
            assert first.tolist() == [0, 0]


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_cut_after_another_ended_is_the_longer_one(name: str) -> None:
    """Cut at 512, against one whole at 300; and against one whole at 512."""
    loss = loss_named(name)
    for whole in (300, 512):
        slope = gradient(loss, torch.zeros(2), ListLabels.of([[512], [whole]], [[True], [False]]))
        assert slope[0] > 0
        if name in RELATIVE:
            assert slope[1] == -slope[0]


@pytest.mark.parametrize("name", ["ranknet", "margin"])
def test_in_a_longer_list_too_a_pair_of_unknown_order_has_no_part(name: str) -> None:
    """Of 300, 512 or more, and 700."""
    labels = ListLabels.of([[300], [512], [700]], [[False], [True], [False]])
    loss = loss_named(name, **OPTIONS[name])
    scores = torch.tensor([0.4, 0.1, -0.2], dtype=torch.float64)
    curvature = torch.func.hessian(lambda values: loss(values, labels))(scores)
    assert curvature[1, 2] == 0
    pairs = [ListLabels.of([[300], [512]], [[False], [True]]), ListLabels.of([[300], [700]])]
    expected = [loss(scores[[0, 1]], pairs[0]), loss(scores[[0, 2]], pairs[1])]
    torch.testing.assert_close(loss(scores, labels), torch.stack(expected).mean())


@pytest.mark.parametrize("name", NAMES)
def test_a_list_of_cut_answers_only(name: str) -> None:
    labels = ListLabels.of([[512], [512], [300]], [[True], [True], [True]])
    slope = gradient(loss_named(name), torch.tensor([1.0, 0.0, -1.0]), labels)
    assert torch.isfinite(slope).all()
    if name in RELATIVE:
        assert slope.tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_sample_is_no_sample(name: str) -> None:
    """A column of absent samples changes nothing, whatever its marks of censoring."""
    lengths = torch.tensor([[30.0], [90], [512]])
    censored = torch.tensor([[False], [False], [True]])
    absent = torch.full((3, 1), torch.nan)
    loss, scores = loss_named(name, label="distribution", **OPTIONS[name]), torch.tensor([0.1, 0.5, -0.3])
    expected = gradient(loss, scores, ListLabels(lengths, censored))
    padded = ListLabels(torch.cat([lengths, absent], 1), torch.cat([censored, ~censored], 1))
    torch.testing.assert_close(gradient(loss, scores, padded), expected)


def test_buckets_make_lengths_equal() -> None:
    labels = ListLabels.of([[39, 12], [31, 8], [40, 39]], [[False, False], [False, False], [True, True]])
    found = labels.bucketed(10)
    assert found.lengths.tolist() == [[35, 15], [35, 5], [40, 30]]
    assert labels.bucketed(0) is labels
    first = ListLabels.of([[4]], [[True]]).bucketed(10)
    assert first.lengths.tolist() == [[1]]


def test_labels_are_reduced() -> None:
    labels = ListLabels.of([[10, 20, 60], [30, 512], [7]], [[False] * 3, [False, True], [False]], [1, 2, 3])
    assert labels.present.sum(dim=1).tolist() == [3, 2, 1]
    mean, sample = labels.reduced("mean"), labels.reduced("sample")
    assert (mean.lengths.tolist(), mean.censored.tolist()) == ([[30], [271], [7]], [[False], [True], [False]])
    assert (sample.lengths.tolist(), sample.censored.any().item()) == ([[10], [30], [7]], False)
    assert labels.reduced("distribution") is labels
    assert mean.teacher is labels.teacher
    assert labels.to("cpu").teacher is not None


def test_a_pointwise_loss_asks_for_training_lengths() -> None:
    for name in ("log_length", "classification"):
        with pytest.raises(ValueError, match=f"{name} takes its scale from training lengths"):
            make_loss(LossConfig.model_validate({"name": name}))
