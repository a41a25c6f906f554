"""Each loss against values worked out by hand; ListMLE has a file of its own."""

import math

import numpy as np
import pytest
import torch

from rankserve.trainer.labels import ListLabels
from rankserve.trainer.losses.approx_ndcg import ApproxNDCG
from rankserve.trainer.losses.classification import NOISE, Classification
from rankserve.trainer.losses.length_scale import LengthScale
from rankserve.trainer.losses.listnet import ListNet
from rankserve.trainer.losses.log_length import LogLength
from rankserve.trainer.losses.margin import Margin
from rankserve.trainer.losses.pairs import known_shorter, preferences
from rankserve.trainer.losses.ranknet import RankNet

SCORES = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
LENGTHS = ListLabels.of([[10], [20], [40]])
CUT = ListLabels.of([[10], [20], [40]], [[False], [True], [False]])


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def test_listnet() -> None:
    # 1/10, 1/20, 1/40 in proportion: 4/7, 2/7, 1/7. Of the scores, log softmax is score - log(e + 1 + e^.5).
    whole = math.log(math.e + 1 + math.exp(0.5))
    expected = -(4 * (1.0 - whole) + 2 * (0.0 - whole) + 1 * (0.5 - whole)) / 7
    assert ListNet(1.0)(SCORES, LENGTHS).item() == pytest.approx(expected)
    # Square roots, at temperature 2.
    shares = np.array([10, 20, 40]) ** -0.5 / np.sum(np.array([10, 20, 40]) ** -0.5)
    expected = whole - float(shares @ [1.0, 0.0, 0.5])
    assert ListNet(2.0)(SCORES, LENGTHS).item() == pytest.approx(expected)


def test_listnet_with_a_cut_answer() -> None:
    # 10 and 40 share the first place 4 : 1. The cut 20 stands behind 10 and is unknown beside 40.
    before_10 = math.log(math.e + 1 + math.exp(0.5)) - 1.0
    before_40 = math.log(math.e + math.exp(0.5)) - 0.5
    assert ListNet(1.0)(SCORES, CUT).item() == pytest.approx(0.8 * before_10 + 0.2 * before_40)


def test_listnet_of_several_samples_has_their_mean_target() -> None:
    labels = ListLabels.of([[10, 40], [20, 20], [40, 10]])
    whole = math.log(math.e + 1 + math.exp(0.5))
    expected = whole - (5 * 1.0 + 4 * 0.0 + 5 * 0.5) / 14
    assert ListNet(1.0)(SCORES, labels).item() == pytest.approx(expected)


def test_ranknet() -> None:
    # Pairs by length: first over second, first over third, second over third.
    expected = (softplus(-1.0) + softplus(-0.5) + softplus(0.5)) / 3
    assert RankNet(0.0)(SCORES, LENGTHS).item() == pytest.approx(expected)
    tied = ListLabels.of([[10], [20], [20]])
    expected = (softplus(-1.0) + softplus(-0.5) + softplus(0.5) / 2 + softplus(-0.5) / 2) / 3
    assert RankNet(0.0)(SCORES, tied).item() == pytest.approx(expected)


def test_ranknet_of_distributions() -> None:
    # Of the four pairs of samples: the first is shorter in three, and one is a tie.
    labels = ListLabels.of([[10, 20], [20, 40]])
    probability = 3.5 / 4
    expected = probability * softplus(-1.0) + (1 - probability) * softplus(1.0)
    assert RankNet(0.0)(SCORES[:2], labels).item() == pytest.approx(expected)
    at_optimum = torch.tensor([math.log(probability / (1 - probability)), 0.0], requires_grad=True)
    torch.autograd.backward(RankNet(0.0)(at_optimum, labels))
    assert at_optimum.grad is not None
    assert at_optimum.grad.tolist() == pytest.approx([0, 0], abs=1e-7)


def test_ranknet_with_a_cut_answer_leaves_out_the_pair_of_unknown_order() -> None:
    expected = (softplus(-1.0) + softplus(-0.5)) / 2
    assert RankNet(0.0)(SCORES, CUT).item() == pytest.approx(expected)


def test_near_ties_are_left_out() -> None:
    # 100 and 110 differ by 9 % of the longer one, the others by more.
    labels = ListLabels.of([[110], [100], [400]])
    expected = (softplus(-0.5) + softplus(0.5)) / 2
    assert RankNet(0.1)(SCORES, labels).item() == pytest.approx(expected)
    assert RankNet(0.8)(SCORES, labels).item() == 0
    shares = preferences(labels, near_tie=0.09, count_ties=True)
    assert shares.tolist() == [[0, 0, 1], [1, 0, 1], [0, 0, 0]]
    # Cut at 110 it may end anywhere from there: not known to differ by a tenth.
    cut = ListLabels.of([[110], [100]], [[True], [False]])
    assert preferences(cut, near_tie=0.1, count_ties=True).sum() == 0
    assert preferences(cut, near_tie=0.0, count_ties=True).sum() == 1


def test_margin() -> None:
    # Differences of the three pairs: 1, 0.5, -0.5.
    assert Margin(0.8, 0.0)(SCORES, LENGTHS).item() == pytest.approx((0 + 0.3 + 1.3) / 3)
    assert Margin(0.8, 0.6)(SCORES, LENGTHS).item() == pytest.approx(0.3)
    assert Margin(0.8, 0.0)(SCORES, CUT).item() == pytest.approx((0 + 0.3) / 2)
    # Three of four pairs of samples one way, the tie none.
    labels = ListLabels.of([[10, 20], [20, 40]])
    assert Margin(2.0, 0.0)(SCORES[:2], labels).item() == pytest.approx(1.0)
    labels = ListLabels.of([[10, 30], [20, 40]])
    assert Margin(2.0, 0.0)(SCORES[:2], labels).item() == pytest.approx((3 * 1.0 + 1 * 3.0) / 4)


def test_approx_ndcg() -> None:
    # Gains 2, 1, 0: how many are longer. Ranks: 1 + sums of sigmoids of differences at temperature 0.5.
    first = 1 + sigmoid(-2.0) + sigmoid(-1.0)
    second = 1 + sigmoid(2.0) + sigmoid(1.0)
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    expected = 1 - (2 / math.log2(1 + first) + 1 / math.log2(1 + second)) / ideal
    assert ApproxNDCG(0.5)(SCORES, LENGTHS).item() == pytest.approx(expected)
    # Cold, it is 1 - NDCG: the second and third by length change places.
    expected = 1 - (2 + 1 / math.log2(4)) / ideal
    assert ApproxNDCG(0.01)(SCORES, LENGTHS).item() == pytest.approx(expected)
    assert ApproxNDCG(0.01)(torch.tensor([2.0, 1.0, 0.0]), LENGTHS).item() == pytest.approx(0)


def test_approx_ndcg_with_a_cut_answer() -> None:
    # 10 is before both; 20 or more and 40 are compared with 10 alone. Only 10 gains anything.
    first = 1 + sigmoid(-2.0) + sigmoid(-1.0)
    assert ApproxNDCG(0.5)(SCORES, CUT).item() == pytest.approx(1 - math.log2(2) / math.log2(1 + first))


def test_approx_ndcg_of_several_samples_is_the_mean_and_leaves_out_those_without_order() -> None:
    labels = ListLabels.of([[10, 40, 5], [20, 20, 5], [40, 10, 5]])
    turned = ListLabels.of([[40], [20], [10]])
    loss = ApproxNDCG(0.5)
    expected = (loss(SCORES, LENGTHS) + loss(SCORES, turned)) / 2
    torch.testing.assert_close(loss(SCORES, labels), expected)


def test_the_scale_of_lengths() -> None:
    scale = LengthScale.of([[math.exp(3), math.exp(5)]])
    assert [scale.centre, scale.spread] == pytest.approx([4, 1])
    found = scale.standardised(torch.tensor([math.exp(4.5), torch.nan]))
    assert found.tolist() == [pytest.approx(0.5, abs=1e-6), 0]
    assert LengthScale.of([7, 7]).spread == 1


def test_log_length() -> None:
    # Standardised log lengths -0.5, 2, and at least 1, against predictions -score: -1, 0, -0.5.
    lengths = [[math.exp(3.5)], [math.exp(6)], [math.exp(5)]]
    labels = ListLabels.of(lengths, [[False], [False], [True]])
    scale = LengthScale(centre=4.0, spread=1.0)
    squared = (0.5**2 + 2**2 + 1.5**2) / 2 / 3
    assert LogLength(scale, "squared")(SCORES, labels).item() == pytest.approx(squared, abs=1e-6)
    huber = (0.5**2 / 2 + (2 - 0.5) + (1.5 - 0.5)) / 3
    assert LogLength(scale, "huber")(SCORES, labels).item() == pytest.approx(huber, abs=1e-6)
    # Predicted to be longer than where it was cut: nothing to learn.
    long_enough = torch.tensor([-3.0])
    cut = ListLabels.of([[math.exp(5)]], [[True]])
    assert LogLength(scale, "squared")(long_enough, cut).item() == 0


def test_classification() -> None:
    # Three classes of 1..6: up to 2, up to 4, and more. Thresholds are at most 2 and at most 4.
    training = [1, 2, 3, 4, 5, 6]
    loss = Classification(training, 3)
    assert loss.thresholds.tolist() == [2, 4]
    logs = np.log(training)
    width = NOISE * math.sqrt(3) / math.pi

    def longer(score: float, threshold: float) -> float:
        return sigmoid((-score - (math.log(threshold) - logs.mean()) / logs.std()) / width)

    labels = ListLabels.of([[1], [3], [3]], [[False], [False], [True]])
    expected = -(
        math.log(1 - longer(1.0, 2))
        + math.log(1 - longer(1.0, 4))
        + math.log(longer(0.0, 2))
        + math.log(1 - longer(0.0, 4))
        + math.log(longer(0.5, 2))  # cut at 3, it may or may not pass 4
    )
    assert loss(SCORES, labels).item() == pytest.approx(expected / 5, abs=1e-6)


def test_classes_of_few_lengths() -> None:
    assert Classification([5, 5, 5, 9], 10).thresholds.tolist() == [5]
    assert Classification([5, 5], 10).thresholds.tolist() == []
    assert Classification([5, 5], 10)(SCORES, LENGTHS).item() == 0


def test_what_is_known_of_cut_answers() -> None:
    labels = ListLabels.of([[300], [512], [512], [512], [700]], [[False], [False], [True], [True], [False]])
    assert known_shorter(labels)[0].int().tolist() == [
        [0, 1, 1, 1, 1],
        [0, 0, 1, 1, 1],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_preferences_are_shares_of_pairs_of_samples() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 9, count).tolist() for count in (4, 1, 3, 2)]
    found = preferences(ListLabels.of(rows), near_tie=0.0, count_ties=True)
    for i, first in enumerate(rows):
        for j, second in enumerate(rows):
            wins = [(a < b) + (a == b) / 2 for a in first for b in second]
            assert found[i, j].item() == pytest.approx(0 if i == j else np.mean(wins))
