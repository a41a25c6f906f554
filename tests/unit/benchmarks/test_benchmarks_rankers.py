"""What the measurements of rankers are made of."""

import gzip
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.rankers import baselines
from benchmarks.rankers.bench import CONFIGS, Bench, trial
from benchmarks.rankers.cost import linear_model
from benchmarks.rankers.cost_section import frontier
from benchmarks.rankers.estimate import announcement, duration, training_seconds
from benchmarks.rankers.held_out import held_out
from benchmarks.rankers.runs import folder_of, is_finished, trained
from benchmarks.rankers.sizes import FROM_SCRATCH, TRAINED, TRANSPLANTS, same, sizes
from benchmarks.rankers.tau import advantage, tau
from benchmarks.rankers.timing import BATCH, Effort, Score, measure, one_core

from rankserve.records.prompts import PromptRecord, split_of
from rankserve.trainer.config import (
    MINILM,
    FileSource,
    ModelConfig,
    OptimisationConfig,
    TrainConfig,
    TransplantConfig,
    load_config,
)
from rankserve.trainer.data.sources import DataError
from rankserve.trainer.evaluation.baselines import linear_scores
from rankserve.trainer.training.run_folder import RunError


def write_prompts(path: Path, count: int = 60, **fields: object) -> FileSource:
    """Prompts of 42 characters with the lengths i, 2i."""
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for i in range(1, count + 1):
            record = {"id": f"{path.name}{i}", "prompt": f"{path.name} {i} ".ljust(42, "x")[:42]}
            file.write(json.dumps({**record, "lengths": [i, 2 * i], **fields}) + "\n")
    return FileSource(kind="file", name=path.name, licence="none", path=path)


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    source = write_prompts(tmp_path / "a.jsonl.gz", temperatures=[0.7, 0.0])
    return TrainConfig(
        name="base",
        sources=[source],
        model=ModelConfig(backbone="opt-transplant", max_length=64),
        optimisation=OptimisationConfig(learning_rate=1e-4, head_learning_rate=1e-3, layer_decay=0.9),
    )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "out", tmp_path / "runs", (0,), quick=False)


def test_rankers_are_judged_by_the_hottest_sample_of_the_test_split(config: TrainConfig) -> None:
    judged = held_out(config)
    assert (judged.sample, judged.temperature) == (0, 0.7)
    assert {split_of(record.id) for record in judged.test} == {"test"}
    assert judged.single.tolist() == [record.output_lengths[0] for record in judged.test]
    assert judged.others.tolist() == [[record.output_lengths[1]] for record in judged.test]
    assert judged.mean is not None
    assert judged.mean.tolist() == (judged.single * 1.5).tolist()
    assert not {record.id for record in judged.train} & {record.id for record in judged.test}


def test_without_temperatures_rankers_are_judged_by_the_last_sample(
    config: TrainConfig, tmp_path: Path
) -> None:
    unstated = config.model_copy(update={"sources": [write_prompts(tmp_path / "b.jsonl.gz")]})
    judged = held_out(unstated)
    assert (judged.sample, judged.temperature) == (1, None)


def test_temperatures_must_go_with_the_lengths(config: TrainConfig, tmp_path: Path) -> None:
    source = write_prompts(tmp_path / "b.jsonl.gz", temperatures=[0.7])
    with pytest.raises(DataError, match=r'b\.jsonl\.gz: "temperatures" has to be the same on each line'):
        held_out(config.model_copy(update={"sources": [source]}))


def test_the_linear_model_learns_from_auxiliary_lengths_too(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its embeddings take time, and it need not be installed.
    monkeypatch.setattr(baselines, "minilm_folder", lambda: tmp_path)
    monkeypatch.setattr(baselines, "minilm_scores", lambda train, test, folder: np.zeros(len(test)))
    other = write_prompts(tmp_path / "b.jsonl.gz").model_copy(update={"auxiliary": True})
    judged = held_out(config.model_copy(update={"sources": [*config.sources, other]}))
    assert len(judged.auxiliary) == 60
    scores = baselines.baseline_scores(judged)
    assert {len(each) for each in scores.values()} == {len(judged.test)}
    assert not np.allclose(scores[baselines.LINEAR], scores[baselines.LINEAR_WITH_AUXILIARY])


def test_tau_is_the_mean_over_seeds_with_an_interval_around_it() -> None:
    lengths = np.arange(1.0, 101.0)
    noise = np.random.default_rng(0).normal(0, 40, 100)
    perfect, noisy = -lengths, -(lengths + noise)
    both, alone = tau([perfect, noisy], lengths), tau([noisy], lengths)
    assert both.value == pytest.approx((1 + alone.value) / 2)
    assert both.low < both.value < both.high
    assert tau([perfect], lengths) == replace(both, value=1.0, low=1.0, high=1.0)


def test_an_advantage_is_measured_on_the_same_resamples() -> None:
    lengths = np.arange(1.0, 101.0)
    noisy = -(lengths + np.random.default_rng(0).normal(0, 40, 100))
    nothing = advantage([noisy, noisy], noisy, lengths)
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
    assert advantage([-lengths], noisy, lengths).low > 0


def test_the_frontier_leaves_out_what_another_beats() -> None:
    # Cheapest; beaten by it; better and dearer; as good and dearer than that; best.
    points = [(1.0, 0.5), (2.0, 0.4), (3.0, 0.6), (4.0, 0.6), (9.0, 0.7)]
    assert frontier(points) == [0, 2, 4]


def test_sizes_differ_from_the_base_in_the_model_alone(config: TrainConfig) -> None:
    base = config.model_copy(update={"model": ModelConfig(backbone=MINILM, max_length=64)})
    found = sizes(base)
    assert list(found) == ["base", *TRAINED]
    assert found["opt-3x384"].model.transplant == TransplantConfig(layers=[0, 2, 4])
    assert found["minilm-6x384"].model.pooling == "mean"
    for name, each in found.items():
        assert (each.sources, each.loss, each.seed, each.model.max_length) == (base.sources, base.loss, 0, 64)
        if name in FROM_SCRATCH:
            optimisation = each.optimisation
            assert (optimisation.learning_rate, optimisation.head_learning_rate) == (5e-4, None)
            assert optimisation.layer_decay == 1
        else:
            assert each.optimisation == base.optimisation
    assert len({each.name for each in found.values()}) == len(found)


def test_a_size_that_the_base_has_is_the_base(config: TrainConfig) -> None:
    found = sizes(config)
    assert list(found) == list(TRAINED)
    assert found["opt-6x384"] is config
    assert not any(same(found[name], config) for name in TRANSPLANTS if name != "opt-6x384")


def test_a_size_of_another_config_is_that_config(config: TrainConfig, tmp_path: Path) -> None:
    encoder = sizes(config)["minilm-6x384"].model_copy(update={"name": "encoder"})
    assert sizes(config, [encoder])["minilm-6x384"] is encoder
    elsewhere = encoder.model_copy(update={"sources": [write_prompts(tmp_path / "b.jsonl.gz")]})
    assert sizes(config, [elsewhere])["minilm-6x384"].name == "base-minilm-6x384"
    shipped = [load_config(CONFIGS / f"{name}.toml") for name in ("alpaca", "alpaca_minilm")]
    assert sizes(shipped[0], shipped[1:])["minilm-6x384"].name == "alpaca_minilm"


def test_a_run_is_estimated_by_its_tokens(config: TrainConfig) -> None:
    config = config.model_copy(
        update={"split": (0.5, 0.25, 0.25), "optimisation": OptimisationConfig(epochs=3)}
    )
    # 60 prompts of 42 characters, 4.2 each token; half of them in 3 epochs, on 2 cores.
    assert training_seconds(config) == pytest.approx(60 * 10 / 2 * 3 / (2 * 1700))
    smaller = config.model_copy(update={"model": sizes(config)["opt-1x384"].model})
    assert training_seconds(smaller) == pytest.approx(training_seconds(config) * 1.5 / 6.5)


def test_nothing_to_train_is_said() -> None:
    assert announcement([], 3) == "all 3 runs are there: nothing to train"


@pytest.mark.parametrize(("seconds", "words"), [(40, "40 s"), (700, "12 min"), (3900, "1 h 05 min")])
def test_durations_are_for_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def write_run(bench: Bench, config: TrainConfig) -> None:
    folder = folder_of(bench, config)
    folder.mkdir(parents=True)
    document = config.model_dump(mode="json")
    # An option that came into being later.
    del document["optimisation"]["ema_decay"]
    (folder / "config.json").write_text(json.dumps({"config": document}), encoding="utf-8")
    (folder / "metrics.json").write_text('{"training": {"seconds": 9.0}}', encoding="utf-8")
    (folder / "run.json").write_text("{}", encoding="utf-8")


def test_finished_runs_are_not_trained_again(bench: Bench, config: TrainConfig) -> None:
    write_run(bench, config)
    [run] = trained(bench, [config])
    assert run.folder.name == "base-seed0"
    assert run.training == {"seconds": 9.0}


def test_a_run_of_another_config_is_not_taken_for_this_ones(bench: Bench, config: TrainConfig) -> None:
    write_run(bench, config)
    other = config.model_copy(update={"optimisation": OptimisationConfig(epochs=9)})
    with pytest.raises(RunError, match=r"base-seed0 was trained with other optimisation: remove it"):
        is_finished(bench, other)


def test_a_missing_teacher_is_named_before_anything_is_trained(bench: Bench, config: TrainConfig) -> None:
    document = {**config.model_dump(), "distillation": {"teachers": [bench.runs / "teacher"]}}
    with pytest.raises(RunError, match=r"base learns from the ranker in .*teacher, and there is no finished"):
        trained(bench, [TrainConfig.model_validate(document)])


def test_missing_data_is_named_before_anything_is_trained(bench: Bench, config: TrainConfig) -> None:
    source = config.sources[0].model_copy(update={"path": bench.runs / "none.jsonl.gz"})
    with pytest.raises(DataError, match=r"there is no file .*none\.jsonl\.gz"):
        trained(bench, [config, config.model_copy(update={"sources": [source]})])


def test_a_trial_is_small(config: TrainConfig, tmp_path: Path) -> None:
    other = write_prompts(tmp_path / "b.jsonl.gz").model_copy(update={"auxiliary": True})
    small = trial(config.model_copy(update={"sources": [*config.sources, other]}))
    assert [(each.name, each.limit) for each in small.sources] == [("a.jsonl.gz", 600)]
    assert small.optimisation.epochs == 1
    assert small.model.transplant == TransplantConfig(layers=[0])


def test_all_take_turns_on_the_same_prompts() -> None:
    prompts = [f"prompt {i}" for i in range(BATCH + 5)]
    calls: list[tuple[str, tuple[str, ...]]] = []

    def scorer(name: str) -> Score:
        def score(texts: Sequence[str]) -> None:
            calls.append((name, tuple(texts)))

        return score

    names = ("a", "b", "c")
    speeds = measure({name: scorer(name) for name in names}, prompts, Effort(rounds=3, alone=2))
    assert set(speeds) == set(names)
    order = [name for i, (name, _) in enumerate(calls) if i == 0 or calls[i - 1][0] != name]
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    for name in names:
        own = [texts for caller, texts in calls if caller == name]
        assert own.count((prompts[0],)) == own.count((prompts[-1],)) == 3 * 2  # once to warm up
        assert own.count(tuple(prompts[:BATCH])) == own.count(tuple(prompts[BATCH:])) == 3
        assert len(own) == 3 * (2 + 2 + 2)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux lets a thread choose its core")
def test_one_core_is_given_back() -> None:
    before = os.sched_getaffinity(0)
    with one_core():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_the_linear_model_that_is_timed_is_the_baseline(config: TrainConfig) -> None:
    judged = held_out(config)
    test: list[PromptRecord] = list(judged.test)
    timed = -linear_model(judged).predict([record.prompt for record in test])
    assert timed == pytest.approx(linear_scores(judged.train, test))


def test_the_transfer_recipe_trains_on_at_most_12000_prompts_of_four_sets() -> None:
    recipe = load_config(CONFIGS / "transfer.toml")
    assert [each.name for each in recipe.sources] == [
        "alpaca_vicuna7b",
        "alpaca_davinci003",
        "mmlupro",
        "gpteacher_gpt4",
    ]
    assert all(each.limit is not None and each.limit * recipe.split[0] <= 12_000 for each in recipe.sources)
    assert not any(each.auxiliary for each in recipe.sources)
