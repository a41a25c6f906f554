"""The steps of training: what gradient they follow, in which precision, and which weights they end with."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import OPTConfig, TrainerCallback

from rankserve.trainer.config import LossConfig, TrainConfig
from rankserve.trainer.data.lists import ListDataset, RankedPrompt
from rankserve.trainer.losses import make_loss
from rankserve.trainer.model import RankerModel
from rankserve.trainer.training.checkpoints import Checkpoints
from rankserve.trainer.training.collation import ListCollator, score_list
from rankserve.trainer.training.distributed import Processes
from rankserve.trainer.training.list_scorer import ListScorer
from rankserve.trainer.training.listwise_trainer import ListwiseTrainer, ValidationSource
from rankserve.trainer.training.precision import Used

LOSS = make_loss(LossConfig())


class Gradients(TrainerCallback):
    """Keeps those of each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.steps.append(gradients(kwargs["model"]))


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def some_lists(count: int) -> ListDataset:
    rng = np.random.default_rng(0)
    prompts = [
        RankedPrompt(tuple(rng.integers(4, 30, rng.integers(2, 9)).tolist()), (i + 1,), (False,))
        for i in range(4 * count)
    ]
    return ListDataset([prompts], list_size=4, seed=0)


def a_trainer(
    folder: Path, lists: ListDataset, dropout: float = 0.0, precision: Used = "fp32", **settings: Any
) -> ListwiseTrainer:
    torch.manual_seed(0)
    scorer = ListScorer(
        RankerModel.from_config(
            OPTConfig(  # type: ignore[no-untyped-call]
                vocab_size=32,
                hidden_size=16,
                word_embed_proj_dim=16,
                ffn_dim=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=16,
                dropout=dropout,
            )
        )
    )
    source = {"kind": "synthetic", "name": "s", "licence": "MIT", "count": 9}
    optimisation = {"epochs": 1, "learning_rate": 1e-2, "evaluations_per_epoch": 1, **settings}
    config = TrainConfig.model_validate({"name": "x", "sources": [source], "optimisation": optimisation})
    validation = ValidationSource([(5, 6), (7,), (8, 9, 10)], np.array([[1.0], [2.0], [3.0]]))
    return ListwiseTrainer(
        scorer,
        config,
        Checkpoints(folder / "checkpoints"),
        lists,
        [0],
        [validation],
        1,
        LOSS,
        precision=precision,
        processes=Processes(),
    )


def test_a_step_follows_the_mean_of_its_lists_gradients(tmp_path: Path) -> None:
    lists = some_lists(5)
    # Steps of 2, 2 and 1 lists; at this learning rate all start from the same weights.
    trainer = a_trainer(tmp_path, lists, lists_per_step=2, max_gradient_norm=0, learning_rate=1e-30)
    found = Gradients()
    trainer.add_callback(found)  # type: ignore[no-untyped-call]
    trainer.run()
    alone = a_trainer(tmp_path / "other", lists)
    scorer, collate = alone.model, ListCollator([0], 1, 2048, Processes())
    assert isinstance(scorer, ListScorer)
    assert len(found.steps) == 3
    for members, step in zip(((0, 1), (2, 3), (4,)), found.steps, strict=True):
        scorer.zero_grad()
        for i in members:
            _, loss = score_list(scorer, collate([lists[i]]), LOSS, Processes())
            (loss / len(members)).backward()  # type: ignore[no-untyped-call]
        for name, expected in gradients(scorer).items():
            torch.testing.assert_close(step[name], expected, atol=1e-6, rtol=1e-4)


def test_long_gradients_are_cut(tmp_path: Path) -> None:
    lists = some_lists(4)
    norms = {}
    for bound in (0.0, 1e-3):
        trainer = a_trainer(tmp_path / str(bound), lists, max_gradient_norm=bound)
        found = Gradients()
        trainer.add_callback(found)  # type: ignore[no-untyped-call]
        trainer.run()
        norms[bound] = [
            float(torch.cat([gradient.flatten() for gradient in step.values()]).norm())
            for step in found.steps
        ]
    assert min(norms[0.0]) > 0.01
    assert norms[1e-3] == pytest.approx([1e-3] * 4, rel=0.01)


def test_bf16_trains_fp32_weights_and_leaves_later_runs_alone(tmp_path: Path) -> None:
    lists = some_lists(4)

    def weights(name: str, precision: Used) -> dict[str, Tensor]:
        trainer = a_trainer(tmp_path / name, lists, precision=precision)
        trainer.run()
        assert trainer.model is not None
        return {key: value.detach().clone() for key, value in trainer.model.named_parameters()}

    runs: tuple[tuple[str, Used], ...] = (("1", "fp32"), ("2", "bf16"), ("3", "fp32"))
    exact, rounded, exact_again = (weights(*run) for run in runs)
    assert {weight.dtype for weight in rounded.values()} == {torch.float32}
    assert all(torch.equal(exact[name], exact_again[name]) for name in exact)
    assert any(not torch.equal(exact[name], rounded[name]) for name in exact)
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "no"
    # Adam's steps are of the size of the learning rate, whatever the gradient's rounding.
    assert all((exact[name] - rounded[name]).abs().max() < 0.08 for name in exact)


def test_a_run_ends_with_the_average_where_one_is_kept(tmp_path: Path) -> None:
    trainer = a_trainer(tmp_path, some_lists(4), ema_decay=0.9)
    trainer.run()
    assert trainer.model is not None
    best = Checkpoints(tmp_path / "checkpoints").of_step(trainer.state.best_global_step or 0)
    trained, averaged = load_file(best / "model.safetensors"), load_file(best / "averaged.safetensors")
    for name, weight in trainer.model.named_parameters():
        assert torch.equal(weight, averaged[name])
    assert any(not torch.equal(trained[name], averaged[name]) for name in averaged)
