"""Learning to continue prompts before learning to rank them."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, OPTConfig, OPTForCausalLM

from rankserve.progress import Lines, report_to
from rankserve.records.jsonl import write_jsonl
from rankserve.trainer.config import PretrainingConfig, TrainConfig, parse_config
from rankserve.trainer.data.lists import RankedPrompt
from rankserve.trainer.model import RankerModel, RankerModelError
from rankserve.trainer.training.pretraining import pretrain
from rankserve.trainer.training.run import train

# Each token is followed by the next one, so all but the first can be predicted.
COUNTING = [RankedPrompt(tuple(range(start, start + 6)), (1,), (False,)) for start in range(3, 20)] * 4


def tiny_opt() -> RankerModel:
    torch.manual_seed(0)
    return RankerModel.from_config(
        OPTConfig(  # type: ignore[no-untyped-call]
            vocab_size=32,
            hidden_size=16,
            word_embed_proj_dim=16,
            ffn_dim=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=16,
            dropout=0.0,
        )
    )


def entropy(model: RankerModel, tmp_path: Path) -> float:
    """Of the next token, by Hugging Face's own language model with the same body."""
    model.classifier.model.save_pretrained(tmp_path)
    language_model = OPTForCausalLM.from_pretrained(tmp_path).eval()
    rows = torch.tensor([prompt.input_ids for prompt in COUNTING])
    with torch.no_grad():
        return float(language_model(input_ids=rows, labels=rows).loss)


def pretrained(**changes: Any) -> tuple[RankerModel, list[str]]:
    model, lines = tiny_opt(), list[str]()
    config = PretrainingConfig(epochs=60, learning_rate=1e-2)
    options: dict[str, Any] = {"pad_token_id": 1, "max_tokens": 96, "bf16": False, "seed": 0}
    with report_to(Lines(lines.append)):
        pretrain(model, [COUNTING], config, **{**options, **changes})
    return model, lines


def test_the_body_learns_what_follows_and_the_head_nothing(tmp_path: Path) -> None:
    before = tiny_opt()
    model, lines = pretrained()
    assert entropy(model, tmp_path) < 0.3 * entropy(before, tmp_path)
    assert model.head is not None
    assert before.head is not None
    torch.testing.assert_close(model.head.weight, before.head.weight)
    reported = float(lines[-1].rsplit(" ", 1)[1])
    assert reported == pytest.approx(entropy(model, tmp_path), abs=0.3)


def test_the_same_seed_gives_the_same_weights_and_another_another_order() -> None:
    first, again, other = pretrained()[0], pretrained()[0], pretrained(seed=1)[0]
    for name, weight in first.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, atol=0, rtol=0)
    assert any(not torch.equal(other.state_dict()[name], w) for name, w in first.state_dict().items())


def test_only_an_opt_reads_from_left_to_right() -> None:
    encoder = RankerModel.from_config(
        BertConfig(  # type: ignore[no-untyped-call]
            vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        )
    )
    with pytest.raises(RankerModelError, match="leave the section out"):
        pretrain(
            encoder,
            [COUNTING],
            PretrainingConfig(),
            pad_token_id=0,
            max_tokens=64,
            bf16=False,
            seed=0,
        )


def run_config(tmp_path: Path) -> TrainConfig:
    path = tmp_path / "prompts.jsonl"
    if not path.exists():
        rng = random.Random(0)
        sizes = {"word": 4, "page": 400, "chapter": 1500}
        rows = [(rng.choice(list(sizes)), i) for i in range(200)]
        write_jsonl(
            path,
            (
                {"prompt": f"Write one {size} on {i}.", "output_tokens": sizes[size] + i % 9}
                for size, i in rows
            ),
        )
    return parse_config(
        {
            "name": "tiny",
            "sources": [{"kind": "file", "name": "own", "licence": "Apache-2.0", "path": str(path)}],
            "model": {
                "max_length": 32,
                "mini": {"layers": 1, "hidden_size": 16, "heads": 2, "vocabulary": 320},
            },
            "pretraining": {"epochs": 2},
            "optimisation": {"list_size": 16, "epochs": 2, "learning_rate": 5e-3},
        },
        origin=tmp_path / "tiny.toml",
    )


def test_a_run_that_is_interrupted_after_it_ends_like_one_that_was_not(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = run_config(tmp_path)
    lines: list[str] = []
    with report_to(Lines(lines.append)):
        whole = train(config, tmp_path / "whole", baselines=False)
    seen = 2 * whole["training"]["prompts"]
    assert any(line.startswith(f"pretraining: {seen} prompts in") for line in lines)

    def interrupt(line: str) -> None:
        if line.startswith("validating:"):
            raise KeyboardInterrupt

    with report_to(Lines(interrupt)), pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts", baselines=False)
    lines.clear()
    with report_to(Lines(lines.append)):
        resumed = train(config, tmp_path / "parts", resume=True, baselines=False)
    assert not any(line.startswith("pretraining") for line in lines)
    assert resumed["test"] == whole["test"]
    first, second = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(first[name], second[name]) for name in first)
