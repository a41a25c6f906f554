"""A tiny trained-looking run: random weights, and output lengths that its own scores explain."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import OPTConfig, PreTrainedTokenizerFast

from rankserve.exporter.graph import export_graph
from rankserve.records.jsonl import write_jsonl
from rankserve.trainer.model import RankerModel

MAX_LENGTH = 24
PAD = 1
WriteRun = Callable[[Path, Sequence[list[int]]], Path]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    generator = np.random.default_rng(7)
    words = ["list", "poems", "explain", "short", "long", "code", "table", "why", "briefly", "seven", "names"]
    return [" ".join(generator.choice(words, size=generator.integers(2, 30))) for _ in range(160)]


@pytest.fixture(scope="session")
def tokenizer(prompts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(prompts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    return tokenizer


def tiny_opt(*, post_norm: bool = False, seed: int = 0) -> RankerModel:
    """OPT-125M's shape, or 350M's (post-norm, projected embeddings), small and with lively weights."""
    torch.manual_seed(seed)
    config = OPTConfig(  # type: ignore[no-untyped-call]
        vocab_size=320,
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        word_embed_proj_dim=16 if post_norm else 32,
        do_layer_norm_before=not post_norm,
        init_std=0.2,
        pad_token_id=PAD,
        bos_token_id=2,
        eos_token_id=2,
    )
    return RankerModel.from_config(config).eval()


@pytest.fixture(scope="session")
def ranker() -> RankerModel:
    return tiny_opt()


@pytest.fixture(scope="session")
def graph(ranker: RankerModel) -> onnx.ModelProto:
    return export_graph(ranker, max_length=MAX_LENGTH)


@pytest.fixture(scope="session")
def post_norm_graph() -> onnx.ModelProto:
    """Of `tiny_opt(post_norm=True)`; dropout was on when it was exported."""
    return export_graph(tiny_opt(post_norm=True).train(), max_length=MAX_LENGTH)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, ranker: RankerModel, tokenizer: Tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    ranker.save_pretrained(folder)
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token="</s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=MAX_LENGTH,
        truncation_side="left",
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def torch_scores(ranker: RankerModel, tokenizer: Tokenizer, prompts: list[str]) -> np.ndarray:
    """Of each prompt alone, cut to its last tokens after `</s>`."""
    scores = []
    for prompt in prompts:
        content = tokenizer.encode(prompt, add_special_tokens=False).ids
        ids = torch.tensor([[2, *content[-(MAX_LENGTH - 1) :]]])
        with torch.inference_mode():
            scores.append(float(ranker(ids, torch.ones_like(ids))))
    return np.array(scores)


@pytest.fixture(scope="session")
def lengths(torch_scores: np.ndarray) -> list[list[int]]:
    """Three answers a prompt: shorter for higher scores, with noise."""
    generator = np.random.default_rng(3)
    expected = 4.0 - (torch_scores - torch_scores.mean()) / torch_scores.std()
    samples = np.exp(expected[:, None] + generator.normal(0, 0.5, (len(expected), 3)))
    return [[max(1, int(value)) for value in row] for row in samples]


@pytest.fixture(scope="session")
def write_run(checkpoint: Path, prompts: list[str]) -> WriteRun:
    """Writes a run folder around the checkpoint, with given lengths."""

    def write(folder: Path, answers: Sequence[list[int]]) -> Path:
        folder.mkdir()
        (folder / "model").symlink_to(checkpoint)
        write_jsonl(
            folder / "validation.jsonl.gz",
            (
                {"prompt": prompt, "lengths": answer, "source": "made up"}
                for prompt, answer in zip(prompts, answers, strict=True)
            ),
        )
        run = {
            "base_model": "opt-mini",
            "max_length": MAX_LENGTH,
            "pad_token_id": PAD,
            "truncation_side": "left",
            "training_data": ["made up (CC0)"],
            "calibration_source": "made up",
            "licence": "Apache-2.0",
        }
        (folder / "run.json").write_text(json.dumps(run))
        return folder

    return write


@pytest.fixture
def run(tmp_path: Path, write_run: WriteRun, lengths: list[list[int]]) -> Path:
    return write_run(tmp_path / "run", lengths)


@pytest.fixture
def exported_once(monkeypatch: pytest.MonkeyPatch, graph: onnx.ModelProto) -> None:
    """Spares `export_ranker` of the checkpoint its slowest step, the fp32 trace; all checks stay."""

    def cached(model: RankerModel, *, max_length: int) -> onnx.ModelProto:
        if next(model.parameters()).dtype == torch.float32:
            return graph
        return export_graph(model, max_length=max_length)

    monkeypatch.setattr("rankserve.exporter.export.export_graph", cached)
