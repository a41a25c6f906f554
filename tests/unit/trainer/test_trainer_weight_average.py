import contextlib
from pathlib import Path

import pytest
import torch
from torch import nn

from rankserve.trainer.training.weight_average import WeightAverage


def set_weight(model: nn.Linear, value: float) -> None:
    with torch.no_grad():
        model.weight.fill_(value)


def test_it_follows_the_weights_slower_as_steps_go_by() -> None:
    model = nn.Linear(1, 1, bias=False)
    set_weight(model, 1.0)
    average = WeightAverage(model, decay=0.25)
    set_weight(model, 3.0)
    average.update(step=1)
    # (1 + 1) / (10 + 1) is less than 0.25.
    after_one = 3.0 - 2.0 * 2 / 11
    with average.applied():
        assert model.weight.item() == pytest.approx(after_one)
    assert model.weight.item() == 3.0
    average.update(step=1000)
    with average.applied():
        assert model.weight.item() == pytest.approx(0.25 * after_one + 0.75 * 3.0)


def test_it_goes_on_from_a_file(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    average = WeightAverage(model, decay=0.5)
    set_weight(model, 7.0)
    average.save(tmp_path / "average.safetensors")
    other = WeightAverage(model, decay=0.5)
    other.load(tmp_path / "average.safetensors")
    for each in (average, other):
        each.update(step=100)
    with average.applied():
        expected = model.weight.clone()
    with other.applied():
        assert torch.equal(model.weight, expected)


def test_the_weights_come_back_after_a_failure() -> None:
    model = nn.Linear(1, 1)
    set_weight(model, 1.0)
    average = WeightAverage(model, decay=0.5)
    set_weight(model, 2.0)
    with contextlib.suppress(KeyError), average.applied():
        assert model.weight.item() == 1.0
        raise KeyError
    assert model.weight.item() == 2.0
