"""Whole runs on tiny models."""

import json
import math
import random
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, OPTConfig, OPTForCausalLM

from rankserve.progress import Lines, report_to
from rankserve.records.jsonl import write_jsonl
from rankserve.records.prompts import known_as, prompt_id, read_prompts
from rankserve.trainer.backbones.tokenizers import train_tokenizer
from rankserve.trainer.config import TrainConfig, parse_config
from rankserve.trainer.data.loading import DataError, data_digest, load_sources
from rankserve.trainer.evaluation.checkpoint import evaluate_checkpoint
from rankserve.trainer.model import RankerModel, RankerModelError
from rankserve.trainer.scoring import score_encoded
from rankserve.trainer.synthetic import generate
from rankserve.trainer.training import run
from rankserve.trainer.training.listwise_trainer import ListwiseTrainer
from rankserve.trainer.training.precision import choose_precision
from rankserve.trainer.training.run import train
from rankserve.trainer.training.run_folder import RunError, RunFolder

LENGTHS = {"word": 4, "sentence": 20, "paragraph": 90, "page": 400, "chapter": 1500}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts in which one word says how long the answer is, in part."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("data") / "prompts.jsonl"

    def row(i: int) -> dict[str, Any]:
        size = rng.choice(list(LENGTHS))
        unseen = LENGTHS[size] * math.exp(rng.gauss(0, 0.5))
        lengths = [1 + round(unseen * math.exp(rng.gauss(0, 0.5))) for _ in range(3)]
        return {
            "prompt": f"Write one {size} on topic {i}, {rng.choice('abcdef')}.",
            "lengths": lengths,
            "censored": [length > 2000 for length in lengths],
        }

    write_jsonl(path, (row(i) for i in range(400)))
    return path


def tiny_config(data: Path, **changes: Any) -> TrainConfig:
    document: dict[str, Any] = {
        "name": "tiny",
        "seed": 3,
        "sources": [{"kind": "file", "name": "made", "licence": "Apache-2.0", "path": str(data)}],
        "model": {
            "max_length": 48,
            "mini": {"layers": 1, "hidden_size": 32, "heads": 2, "vocabulary": 400},
        },
        "loss": {},
        "optimisation": {"list_size": 16, "epochs": 3, "learning_rate": 5e-3, "evaluations_per_epoch": 2},
    }
    for section, values in changes.items():
        document[section] = {**document[section], **values} if isinstance(values, dict) else values
    return parse_config(document, origin=Path("tiny.toml"))


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    torch.set_num_threads(1)
    folder, lines = tmp_path_factory.mktemp("runs") / "tiny", list[str]()
    with report_to(Lines(lines.append)):
        return folder, train(tiny_config(data), folder), lines


def test_figures_are_scored_where_the_ranker_was_trained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def scored(*arguments: Any, **keywords: Any) -> Any:
        steps.append("scored")
        return score_encoded(*arguments, **keywords)

    def moved(model: RankerModel) -> RankerModel:
        steps.append("moved")
        return to_cpu(model)

    to_cpu = RankerModel.cpu
    monkeypatch.setattr(run, "score_encoded", scored)
    monkeypatch.setattr(RankerModel, "cpu", moved)
    config = tiny_config(data, optimisation={"epochs": 1})
    train(config, tmp_path / "run", baselines=False)
    assert steps == ["scored", "scored", "moved"]


def losses(lines: list[str]) -> list[float]:
    return [float(line.split("loss ")[1].split(",")[0]) for line in lines if line.startswith("validating:")]


def test_training_learns_and_reports(finished: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, metrics, lines = finished
    assert losses(lines)[-1] < losses(lines)[0] < math.log(16)
    assert metrics["kendall_tau"] > 0.5
    assert metrics["kendall_tau"] == max(entry["kendall_tau"] for entry in metrics["training"]["history"])
    assert metrics["validation"]["kendall_tau"] == pytest.approx(metrics["kendall_tau"], abs=1e-6)
    for split in ("validation", "test"):
        figures = metrics[split]["by_source"]["made"]
        assert figures["kendall_tau"] < figures["ceiling_mean"] < 0.9
        assert {
            "kendall_tau_mean",
            "ceiling_sample",
            "baseline_tfidf_ridge",
            "baseline_prompt_length",
        } <= set(figures)
    assert json.loads((folder / "metrics.json").read_text()) == metrics


def test_the_precision_is_chosen_told_and_kept(finished: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, metrics, lines = finished
    choice = metrics["training"]["precision"]
    assert (choice["asked"], choice["warning"]) == ("auto", "")
    assert lines[0] == f"precision {choice['used']} (asked for: auto): {choice['why']}"
    assert json.loads((folder / "config.json").read_text())["precision"] == choice["used"]


def test_a_resumed_run_keeps_its_precision(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, told = tiny_config(data, optimisation={"epochs": 1}), list[str]()
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    slow, fast = {"fp32": 1.0, "bf16": 9.0}, {"fp32": 9.0, "bf16": 1.0}
    monkeypatch.setattr(run, "choose_precision", partial(choose_precision, timing=lambda: fast))

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(ListwiseTrainer, "run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(config, folder.path, baselines=False)
    assert folder.begun_with() == "bf16"
    monkeypatch.setattr(run, "choose_precision", partial(choose_precision, timing=lambda: slow))
    with report_to(Lines(told.append)):
        metrics = train(config, folder.path, resume=True, baselines=False)
    assert metrics["training"]["precision"]["used"] == "bf16"
    assert any("9.0 times slower than fp32" in line for line in told)


def test_the_run_folder_is_what_the_exporter_expects(
    finished: tuple[Path, dict[str, Any], list[str]], data: Path, tmp_path: Path
) -> None:
    folder = finished[0]
    assert json.loads((folder / "run.json").read_text()) == {
        "base_model": "opt-mini",
        "max_length": 48,
        "pad_token_id": 1,
        "truncation_side": "right",
        "training_data": ["made (Apache-2.0)"],
        "calibration_source": "made",
        "licence": "Apache-2.0",
    }
    assert {path.name for path in (folder / "model").iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    left = {path.name for path in folder.iterdir()}
    assert left.isdisjoint({"checkpoints", "data"}), "hundreds of MB that nothing reads any more"
    [source] = load_sources(tiny_config(data), tmp_path)
    validation = list(read_prompts(folder / "validation.jsonl.gz"))
    assert [record.prompt for record in validation] == [record.prompt for record in source.validation]
    assert [(record.output_lengths, record.censored) for record in validation] == [
        (record.output_lengths, record.censored) for record in source.validation
    ]
    assert any(any(record.censored) for record in validation)


def test_the_saved_tokenizer_encodes_alike_alone_and_in_hugging_face(
    finished: tuple[Path, dict[str, Any], list[str]],
) -> None:
    model = finished[0] / "model"
    alone = Tokenizer.from_file(str(model / "tokenizer.json"))
    assert alone.truncation is None
    assert alone.padding is None
    theirs = AutoTokenizer.from_pretrained(model)  # type: ignore[no-untyped-call]
    for text in ("Write a haiku.", "Zażółć \U0001f9ca\n\ttabs", "x" * 300):
        assert alone.encode(text).ids == theirs(text)["input_ids"]
        assert alone.encode(text).ids[0] == 2
        assert alone.decode(alone.encode(text).ids) == text


def test_others_can_load_the_model(finished: tuple[Path, dict[str, Any], list[str]]) -> None:
    model = finished[0] / "model"
    theirs = AutoModelForSequenceClassification.from_pretrained(model).eval()
    row = torch.tensor([[2, 40, 41, 42]])
    with torch.no_grad():
        torch.testing.assert_close(
            RankerModel.from_pretrained(model)(row, torch.ones_like(row)), theirs(input_ids=row).logits[:, 0]
        )


def interrupt_at(beginning: str, times: int = 1) -> Lines:
    """Ctrl-C at the so many-th line that begins like this."""
    seen = 0

    def write(line: str) -> None:
        nonlocal seen
        seen += line.startswith(beginning)
        if seen == times:
            seen += 1
            raise KeyboardInterrupt

    return Lines(write)


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    finished: tuple[Path, dict[str, Any], list[str]], tmp_path: Path, data: Path
) -> None:
    folder, metrics, _ = finished
    for resume, interrupts in ((False, interrupt_at("tokenising")), (True, interrupt_at("validating:", 3))):
        with report_to(interrupts), pytest.raises(KeyboardInterrupt):
            train(tiny_config(data), tmp_path / "run", resume=resume)
    assert RunFolder(tmp_path / "run").checkpoints.last() is not None
    assert not RunFolder(tmp_path / "run").is_complete
    resumed = train(tiny_config(data), tmp_path / "run", resume=True)
    expected = load_file(folder / "model" / "model.safetensors")
    found = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    for key in ("kendall_tau", "validation", "test"):
        assert resumed[key] == metrics[key]
    assert resumed["training"]["history"] == metrics["training"]["history"]


def test_a_folder_with_a_run_is_not_overwritten(
    finished: tuple[Path, dict[str, Any], list[str]], data: Path
) -> None:
    folder, metrics, _ = finished
    with pytest.raises(RunError, match="--resume"):
        train(tiny_config(data), folder)
    with pytest.raises(RunError, match="optimisation"):
        train(tiny_config(data, optimisation={"epochs": 4}), folder, resume=True)
    lines: list[str] = []
    with report_to(Lines(lines.append)):
        assert train(tiny_config(data), folder, resume=True) == metrics
    assert lines == [f"{folder} is complete already"]


def test_a_run_whose_data_changed_is_not_resumed(tmp_path: Path) -> None:
    changing = tmp_path / "data.jsonl"
    config = tiny_config(changing)

    def write(extra: int) -> None:
        rows = [{"prompt": f"number {i}", "output_tokens": i + extra} for i in range(1, 80)]
        changing.write_text("\n".join(map(json.dumps, rows)))

    write(extra=0)
    folder = RunFolder(tmp_path / "run")
    load_sources(config, folder.data)
    folder.begin(config, data_digest(folder.data), "fp32")
    write(extra=1)
    with pytest.raises(RunError, match="data changed"):
        train(config, tmp_path / "run", resume=True)


@pytest.mark.parametrize("shape", ["125m", "350m"])
def test_an_opt_checkpoint_of_either_shape_is_fine_tuned(shape: str, tmp_path: Path, data: Path) -> None:
    torch.manual_seed(0)
    tokenizer = train_tokenizer([record.prompt for record in generate(200, 5)], 400)
    post_norm = {"do_layer_norm_before": False, "word_embed_proj_dim": 16} if shape == "350m" else {}
    OPTForCausalLM(
        OPTConfig(  # type: ignore[no-untyped-call]
            vocab_size=len(tokenizer),
            hidden_size=32,
            ffn_dim=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
            **{"word_embed_proj_dim": 32, **post_norm},
        )
    ).save_pretrained(tmp_path / "opt")
    tokenizer.save_pretrained(tmp_path / "opt")
    lines: list[str] = []
    config = tiny_config(
        data,
        model={"backbone": str(tmp_path / "opt"), "mini": None},
        loss={"label": "sample", "bucket_tokens": 10},
        optimisation={"epochs": 2, "learning_rate": 3e-3},
    )
    with report_to(Lines(lines.append)):
        train(config, tmp_path / "run")
    assert losses(lines)[-1] < losses(lines)[0]
    saved = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert saved["architectures"] == ["OPTForSequenceClassification"]
    assert saved["word_embed_proj_dim"] == (16 if shape == "350m" else 32)
    assert saved["pad_token_id"] == tokenizer.pad_token_id


def test_a_backbone_too_short_for_max_length_is_refused(
    finished: tuple[Path, dict[str, Any], list[str]], tmp_path: Path, data: Path
) -> None:
    config = tiny_config(data, model={"backbone": str(finished[0] / "model"), "mini": None, "max_length": 64})
    with pytest.raises(RankerModelError, match="max_length is 64"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists(), "a mistake in the config must not claim the folder"


def test_evaluation_leaves_out_what_was_trained_on(
    finished: tuple[Path, dict[str, Any], list[str]], data: Path, tmp_path: Path
) -> None:
    folder, metrics, _ = finished
    [source] = load_sources(tiny_config(data), tmp_path)
    everything = [*source.train, *source.test]
    figures = evaluate_checkpoint(folder, everything)
    assert figures["trained_on"] == len(source.train)
    assert figures["prompts"] == len(source.test)
    assert figures["kendall_tau"] == pytest.approx(metrics["test"]["kendall_tau"], abs=1e-6)
    assert RunFolder(folder).trained_on() == {
        known for record in source.train for known in known_as(record.prompt)
    }
    shouted = [replace(record, prompt=f" {record.prompt.upper()}\n") for record in everything]
    assert evaluate_checkpoint(folder, shouted)["trained_on"] == len(source.train)
    assert evaluate_checkpoint(folder / "model", everything)["trained_on"] == len(source.train)
    shutil.copytree(folder / "model", tmp_path / "elsewhere")
    assert evaluate_checkpoint(tmp_path / "elsewhere", everything)["trained_on"] == 0
    with pytest.raises(DataError, match="0 of"):
        evaluate_checkpoint(folder, source.train)


def test_a_list_of_an_earlier_release_is_read(
    finished: tuple[Path, dict[str, Any], list[str]], data: Path, tmp_path: Path
) -> None:
    [source] = load_sources(tiny_config(data), tmp_path / "data")
    shutil.copytree(finished[0], tmp_path / "run")
    exact = sorted(prompt_id(record.prompt) for record in source.train)
    (tmp_path / "run" / "trained_on.txt").write_text("".join(f"{each}\n" for each in exact))
    figures = evaluate_checkpoint(tmp_path / "run", [*source.train, *source.test])
    assert figures["trained_on"] == len(source.train)


def test_an_unfinished_run_is_not_evaluated(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model").mkdir()
    with pytest.raises(RankerModelError, match="unfinished"):
        evaluate_checkpoint(tmp_path, list(generate(5, 0)))
