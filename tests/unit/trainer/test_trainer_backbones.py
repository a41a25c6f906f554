from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    GPT2Config,
    MPNetConfig,
    OPTConfig,
    PretrainedConfig,
    Qwen2Config,
    RobertaConfig,
)

from rankserve.trainer.backbones import load_backbone
from rankserve.trainer.backbones.tokenizers import train_tokenizer
from rankserve.trainer.batches import encode
from rankserve.trainer.config import MiniShape, ModelConfig
from rankserve.trainer.model import RankerModel, RankerModelError
from rankserve.trainer.synthetic import generate

PROMPTS = [record.prompt for record in generate(300, 0)]
TINY: dict[str, Any] = {"vocab_size": 400, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
BERT = BertConfig(**TINY, intermediate_size=8)  # type: ignore[no-untyped-call]
OPT = OPTConfig(**TINY, ffn_dim=8, word_embed_proj_dim=8)  # type: ignore[no-untyped-call]


def test_the_tokenizer_of_the_same_prompts_is_the_same() -> None:
    first, second = train_tokenizer(PROMPTS, 500), train_tokenizer(PROMPTS, 500)
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    assert len(first) == 500


def test_prompts_stand_between_two_end_tokens_also_when_cut() -> None:
    tokenizer = train_tokenizer(PROMPTS, 500)
    [whole] = encode(tokenizer, ["Write a haiku about the moon, please."], 64)
    assert (whole[0], whole[-1]) == (2, 2)
    for side in ("left", "right"):
        tokenizer.truncation_side = side
        [cut] = encode(tokenizer, ["Write a haiku about the moon, please."], 6)
        assert len(cut) == 6
        assert (cut[0], cut[-1]) == (2, 2)
        assert cut[1:-1] == (whole[1:5] if side == "right" else whole[-5:-1])


def test_opt_mini_is_small_and_of_the_shape_asked_for() -> None:
    backbone = load_backbone(ModelConfig(), PROMPTS)
    body = sum(
        parameter.numel() for name, parameter in backbone.model.named_parameters() if "embed" not in name
    )
    assert body == 4 * (4 * (256 * 256 + 256) + 2 * 256 * 1024 + 1024 + 256 + 4 * 256) + 2 * 256 + 256
    small = load_backbone(
        ModelConfig(
            max_length=16, dropout=0.3, mini=MiniShape(layers=2, hidden_size=24, heads=3, vocabulary=400)
        ),
        PROMPTS,
    )
    config = small.model.config
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (2, 24, 400)
    assert (config.dropout, config.max_position_embeddings) == (0.3, 16)
    assert config.pad_token_id == small.tokenizer.pad_token_id


def test_dropout_reaches_a_pretrained_backbone_or_is_refused(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(PROMPTS, 400)
    gpt = GPT2Config(vocab_size=400, n_embd=8, n_layer=1, n_head=1)  # type: ignore[no-untyped-call]
    qwen = Qwen2Config(  # type: ignore[no-untyped-call]
        vocab_size=400,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    for config in (gpt, qwen):
        RankerModel.from_config(config).save_pretrained(tmp_path / config.model_type)
        tokenizer.save_pretrained(tmp_path / config.model_type)
    knows = ModelConfig(backbone=str(tmp_path / "gpt2"), max_length=16, dropout=0.3)
    dropouts = [
        each.p for each in load_backbone(knows, PROMPTS).model.modules() if isinstance(each, nn.Dropout)
    ]
    assert dropouts.count(0.3) == 3
    knows_none = knows.model_copy(update={"backbone": str(tmp_path / "qwen2")})
    with pytest.raises(RankerModelError, match=r"model.dropout.*qwen2"):
        load_backbone(knows_none, PROMPTS)
    load_backbone(knows_none.model_copy(update={"dropout": None}), PROMPTS)


@pytest.mark.parametrize("has_gpu", [False, True])
@pytest.mark.parametrize("config", [BERT, OPT])
def test_attention_is_plain_on_a_cpu(
    has_gpu: bool, config: PretrainedConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RankerModel.from_config(config).save_pretrained(tmp_path)
    train_tokenizer(PROMPTS, 400).save_pretrained(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    for name in (str(tmp_path), "opt-mini"):
        model = load_backbone(ModelConfig(backbone=name, max_length=16), PROMPTS).model
        ragged = model.config.model_type == "opt"
        plain = "rankserve_ragged" if ragged else "eager"
        assert model.config._attn_implementation == ("sdpa" if has_gpu else plain)
        # BERT's has a class for each.
        fused = any("Sdpa" in type(module).__name__ for module in model.modules())
        assert fused == (has_gpu and model.config.model_type == "bert")


@pytest.mark.parametrize(
    ("kind", "padding", "positions"),
    [
        (BertConfig, 0, 34),
        (RobertaConfig, 1, 32),
        (RobertaConfig, 3, 30),
        (MPNetConfig, 1, 32),
        (OPTConfig, 1, 34),
    ],
)
def test_a_backbone_reads_prompts_as_long_as_its_positions(
    kind: type[PretrainedConfig], padding: int, positions: int, tmp_path: Path
) -> None:
    shape: dict[str, Any] = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "max_position_embeddings": 34,
    }
    widths: dict[str, Any] = (
        {"ffn_dim": 8, "word_embed_proj_dim": 8} if kind is OPTConfig else {"intermediate_size": 8}
    )
    config = kind(vocab_size=400, pad_token_id=padding, **shape, **widths)
    model = RankerModel.from_config(config).eval()
    assert model.positions == positions
    longest = torch.full((1, positions), 9)
    assert torch.isfinite(model(longest, torch.ones_like(longest))).all()
    model.save_pretrained(tmp_path)
    train_tokenizer(PROMPTS, 400).save_pretrained(tmp_path)
    asked = ModelConfig(backbone=str(tmp_path), max_length=positions)
    load_backbone(asked, PROMPTS)
    with pytest.raises(
        RankerModelError, match=rf"max_length is {positions + 1}, .* positions for {positions}$"
    ):
        load_backbone(asked.model_copy(update={"max_length": positions + 1}), PROMPTS)
