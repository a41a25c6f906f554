"""Learning from rankers that were trained before."""

import math
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rankserve.records.jsonl import write_jsonl
from rankserve.records.prompts import read_prompts
from rankserve.trainer.config import ConfigError, TrainConfig, parse_config
from rankserve.trainer.data.loading import DataError
from rankserve.trainer.evaluation.metrics import kendall_tau
from rankserve.trainer.labels import ListLabels
from rankserve.trainer.losses import Distillation
from rankserve.trainer.model import RankerModelError
from rankserve.trainer.trained_ranker import TrainedRanker
from rankserve.trainer.training.run import train

WORD_LENGTHS = {"word": 4, "sentence": 20, "paragraph": 90, "page": 400, "chapter": 1500}


def sum_of_scores(scores: Tensor, labels: ListLabels) -> Tensor:
    """Stands for a loss of lengths."""
    return scores.sum()


def labelled(lengths: list[list[float]], teacher: list[float] | None) -> ListLabels:
    return ListLabels.of(lengths, teacher=teacher)


def test_two_items_cost_the_cross_entropy_to_the_teachers_probability() -> None:
    loss = Distillation(sum_of_scores, weight=1.0, temperature=2.0)
    scores = torch.tensor([0.3, -0.4])
    target, given = 1 / (1 + math.exp(-(1.0 - -3.0) / 2)), 1 / (1 + math.exp(-0.7))
    expected = -target * math.log(given) - (1 - target) * math.log(1 - given)
    assert loss(scores, labelled([[5], [9]], [1.0, -3.0])).item() == pytest.approx(expected, rel=1e-6)


def test_it_is_least_where_the_student_is_as_sure_as_the_teacher() -> None:
    loss = Distillation(sum_of_scores, weight=1.0, temperature=1.0)
    teacher = [0.5, -1.0, 2.0, 0.1]
    scores = (torch.tensor(teacher) + 7).requires_grad_()
    loss(scores, labelled([[1]] * 4, teacher)).backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, torch.zeros(4), atol=1e-6, rtol=0)


def test_lengths_and_teacher_are_mixed_and_each_may_be_missing() -> None:
    loss = Distillation(sum_of_scores, weight=0.25, temperature=1.0)
    teacher_alone = Distillation(sum_of_scores, weight=1.0, temperature=1.0)
    scores = torch.tensor([0.3, -0.4, 1.1])
    both = labelled([[5], [9], [2]], [1.0, 0.0, 2.0])
    imitation = teacher_alone(scores, both)
    torch.testing.assert_close(loss(scores, both), 0.25 * imitation + 0.75 * scores.sum())
    torch.testing.assert_close(loss(scores, labelled([[], [], []], [1.0, 0.0, 2.0])), imitation)
    torch.testing.assert_close(loss(scores, labelled([[5], [9], [2]], None)), scores.sum())


def test_the_gradient_is_right_and_the_order_of_the_list_is_nothing() -> None:
    loss = Distillation(sum_of_scores, weight=0.6, temperature=0.7)
    teacher = torch.tensor([0.4, -0.2, 1.5, 0.0], dtype=torch.float64)
    scores = torch.tensor([0.1, 2.0, -1.0, 0.5], dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([[3.0], [8.0], [1.0], [6.0]], dtype=torch.float64)
    censored = torch.zeros_like(lengths, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda x: loss(x, ListLabels(lengths, censored, teacher)), (scores,))
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        loss(scores[order], ListLabels(lengths[order], censored, teacher[order])),
        loss(scores, ListLabels(lengths, censored, teacher)),
    )
    one = loss(scores[:1], ListLabels(lengths[:1], censored[:1], teacher[:1]))
    assert one.item() == pytest.approx(0.4 * 0.1)


def write_prompts(path: Path, topic: str, *, inverted: bool = False) -> Path:
    rng = random.Random(topic)

    def row(i: int) -> dict[str, Any]:
        size = rng.choice(list(WORD_LENGTHS))
        length = 1 + round(WORD_LENGTHS[size] * math.exp(rng.gauss(0, 0.5)))
        return {
            "prompt": f"Write one {size} on {topic} {i}.",
            "output_tokens": 5000 - length if inverted else length,
        }

    write_jsonl(path, (row(i) for i in range(300)))
    return path


def config_of(tmp_path: Path, name: str, sources: dict[str, Path], **sections: Any) -> TrainConfig:
    return parse_config(
        {
            "name": name,
            "sources": [
                {
                    "kind": "file",
                    "name": source,
                    "licence": "Apache-2.0",
                    "path": str(path),
                    "auxiliary": source != "own",
                }
                for source, path in sources.items()
            ],
            "model": {
                "max_length": 32,
                "dropout": 0.0,
                "mini": {"layers": 1, "hidden_size": 32, "heads": 2, "vocabulary": 400},
            },
            "loss": {"name": "ranknet"},
            "optimisation": {"list_size": 16, "epochs": 4, "learning_rate": 5e-3},
            **sections,
        },
        origin=tmp_path / "config.toml",
    )


def test_a_student_learns_the_teachers_order_and_no_lengths_of_auxiliary_sources(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    own = write_prompts(tmp_path / "own.jsonl", "topic")
    misleading = write_prompts(tmp_path / "misleading.jsonl", "matter", inverted=True)
    train(config_of(tmp_path, "teacher", {"own": own}), tmp_path / "teacher")
    student = config_of(
        tmp_path,
        "student",
        {"own": own, "misleading": misleading},
        distillation={"teachers": ["teacher"], "weight": 1.0},
    )
    metrics = train(student, tmp_path / "student")
    prompts = [record.prompt for record in read_prompts(misleading)]
    taught, learned = (TrainedRanker.load(tmp_path / run).score(prompts) for run in ("teacher", "student"))
    # Prompts of one length differ by rounding alone, and have no order to learn.
    assert kendall_tau(learned.round(1), -taught.round(1)) > 0.8
    assert metrics["test"]["kendall_tau"] > 0.5
    assert not np.array_equal(taught, learned)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run `second`, of other prompts, learned from the run `first`."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("chain")
    own = write_prompts(folder / "own.jsonl", "topic")
    other = write_prompts(folder / "other.jsonl", "matter")
    once = {"list_size": 16, "epochs": 1}
    first = config_of(folder, "first", {"own": own}, split=[0.5, 0.3, 0.2], optimisation=once)
    taught = {"teachers": ["first"]}
    second = config_of(folder, "second", {"own": other}, distillation=taught, optimisation=once)
    for config in (first, second):
        train(config, folder / config.name, baselines=False)
    return folder


@pytest.mark.parametrize("written", ["alike", "otherwise"])
@pytest.mark.parametrize("teacher", ["first", "first/model", "second"])
def test_a_teacher_that_saw_held_out_prompts_itself_or_by_its_own_is_refused(
    chain: Path, teacher: str, written: str, tmp_path: Path
) -> None:
    own = chain / "own.jsonl"
    if written == "otherwise":
        own = tmp_path / "own.jsonl"
        own.write_text((chain / "own.jsonl").read_text().replace("Write one", "write  ONE"))
    student = config_of(
        chain,
        "student",
        {"own": own},
        split=[0.3, 0.4, 0.3],
        distillation={"teachers": [teacher]},
    )
    with pytest.raises(DataError, match=r"the teacher .* was trained on .* give their lengths away"):
        train(student, tmp_path / "student")
    assert not (tmp_path / "student").exists(), "a mistake in the config must not claim the folder"


def test_a_backbone_that_saw_held_out_prompts_is_refused(chain: Path, tmp_path: Path) -> None:
    config = config_of(
        chain,
        "fine-tuned",
        {"own": chain / "own.jsonl"},
        split=[0.3, 0.4, 0.3],
        model={"backbone": "./first/model", "max_length": 32},
    )
    with pytest.raises(DataError, match=r"the backbone .* was trained on .* give their lengths away"):
        train(config, tmp_path / "run")


def test_a_teacher_of_unknown_training_is_refused(chain: Path, tmp_path: Path) -> None:
    shutil.copytree(chain / "first" / "model", tmp_path / "elsewhere")
    teachers = {"teachers": [str(tmp_path / "elsewhere")]}
    config = config_of(chain, "student", {"own": chain / "own.jsonl"}, distillation=teachers)
    with pytest.raises(RankerModelError, match="no finished run"):
        train(config, tmp_path / "run")


def test_heads_for_lengths_that_are_not_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="separate_heads"):
        config_of(
            tmp_path,
            "student",
            {"own": tmp_path / "own.jsonl"},
            model={"separate_heads": True},
            distillation={"teachers": ["teacher"]},
        )
