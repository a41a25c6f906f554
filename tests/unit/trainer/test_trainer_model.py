from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GemmaConfig,
    LlamaConfig,
    LlamaForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
    OPTForSequenceClassification,
    OPTModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from rankserve.trainer.model import RankerModel, RankerModelError

VOCABULARY = 60
LENGTHS = (9, 5, 1, 7)


def opt_config(shape: str) -> OPTConfig:
    """Tiny configs of the two shapes that OPT comes in; wide initial weights so that scores differ."""
    post_norm = {"do_layer_norm_before": False, "word_embed_proj_dim": 16} if shape == "350m" else {}
    return OPTConfig(  # type: ignore[no-untyped-call]
        vocab_size=VOCABULARY,
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        init_std=0.3,
        **{"word_embed_proj_dim": 32, **post_norm},
    )


both_shapes = pytest.mark.parametrize("shape", ["125m", "350m"])


def prompts() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, VOCABULARY, (length,), generator=generator) for length in LENGTHS]


def padded(
    rows: list[torch.Tensor], width: int, side: str, pad_token_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    input_ids = torch.full((len(rows), width), pad_token_id)
    attention_mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        columns = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        input_ids[i, columns] = row
        attention_mask[i, columns] = 1
    return input_ids, attention_mask


def scores_one_by_one(model: RankerModel, rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([model(row[None], torch.ones_like(row)[None]) for row in rows])


def opt(shape: str) -> RankerModel:
    torch.manual_seed(0)
    return RankerModel.from_config(opt_config(shape)).eval()


def llama() -> RankerModel:
    torch.manual_seed(0)
    return RankerModel(
        LlamaForSequenceClassification(  # type: ignore[no-untyped-call]
            LlamaConfig(  # type: ignore[no-untyped-call]
                vocab_size=VOCABULARY,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_labels=1,
                initializer_range=0.3,
                pad_token_id=0,
            )
        )
    ).eval()


def gemma() -> RankerModel:
    """Scales its embeddings."""
    torch.manual_seed(0)
    return RankerModel.from_config(
        GemmaConfig(  # type: ignore[no-untyped-call]
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=8,
            initializer_range=0.3,
        )
    ).eval()


def bert() -> RankerModel:
    torch.manual_seed(0)
    config = BertConfig(  # type: ignore[no-untyped-call]
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_labels=1,
        initializer_range=0.3,
    )
    return RankerModel(BertForSequenceClassification(config)).eval()  # type: ignore[no-untyped-call]


def mean_pooled(model: RankerModel) -> RankerModel:
    model.config.ranker_pooling = "mean"
    return RankerModel(model.classifier).eval()


@torch.no_grad()
@pytest.mark.parametrize(
    "make",
    [
        lambda: opt("125m"),
        lambda: opt("350m"),
        llama,
        bert,
        lambda: mean_pooled(opt("125m")),
        lambda: mean_pooled(bert()),
    ],
)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad_token_id", [1, 7, 0])
def test_a_batch_scores_like_its_prompts_alone(
    make: Callable[[], RankerModel], side: str, pad_token_id: int
) -> None:
    model, rows = make(), prompts()
    expected = scores_one_by_one(model, rows)
    assert expected.std() > 0.01, "scores that hardly differ would prove nothing"
    input_ids, attention_mask = padded(rows, 12, side, pad_token_id)
    scores = model(input_ids, attention_mask)
    assert scores.shape == (len(rows),)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@both_shapes
def test_pooling_looks_at_the_mask_and_never_at_the_pad_token(shape: str) -> None:
    model = opt(shape)
    ends_in_pad = torch.tensor([5, 9, 23, model.config.pad_token_id])
    without_end = ends_in_pad[:3]
    whole, shorter = scores_one_by_one(model, [ends_in_pad, without_end])
    assert abs(whole - shorter) > 0.01
    hugging_face = model.classifier(input_ids=ends_in_pad[None]).logits[0, 0]
    assert abs(hugging_face - whole) > 0.01, "Hugging Face's own pooling is the trap that this avoids"


@torch.no_grad()
@both_shapes
def test_agrees_with_hugging_face_where_that_is_right(shape: str) -> None:
    model = opt(shape)
    input_ids, attention_mask = padded(prompts(), 9, "right", pad_token_id=1)
    theirs = model.classifier(input_ids=input_ids, attention_mask=attention_mask).logits[:, 0]
    torch.testing.assert_close(model(input_ids, attention_mask), theirs, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@both_shapes
def test_saved_and_loaded_it_scores_the_same_here_and_in_hugging_face(shape: str, tmp_path: Path) -> None:
    model = opt(shape)
    model.save_pretrained(tmp_path)
    assert {"config.json", "model.safetensors"} <= {path.name for path in tmp_path.iterdir()}
    row = prompts()[0]
    expected = scores_one_by_one(model, [row])
    torch.testing.assert_close(scores_one_by_one(RankerModel.from_pretrained(tmp_path), [row]), expected)
    theirs = OPTForSequenceClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(theirs(input_ids=row[None]).logits[0], expected)


@torch.no_grad()
def test_mean_pooling_averages_the_attended_states_and_survives_saving(tmp_path: Path) -> None:
    model = mean_pooled(bert())
    row = prompts()[0]
    states = model.classifier.base_model(input_ids=row[None]).last_hidden_state
    head = model.head
    assert head is not None
    expected = head(states.mean(dim=1))[0]
    torch.testing.assert_close(scores_one_by_one(model, [row]), expected)
    model.save_pretrained(tmp_path)
    loaded = RankerModel.from_pretrained(tmp_path)
    torch.testing.assert_close(scores_one_by_one(loaded, [row]), expected)


@torch.no_grad()
@pytest.mark.parametrize("make", [lambda: opt("350m"), llama, gemma, lambda: mean_pooled(bert())])
def test_the_head_scores_the_pooled_states(make: Callable[[], RankerModel]) -> None:
    model = make()
    parts = [
        padded(prompts(), 12, "left", pad_token_id=1),
        padded(prompts()[:2], 15, "right", pad_token_id=1),
    ]
    head = model.head
    assert head is not None
    torch.testing.assert_close(
        head(model.pooled(parts)).squeeze(-1), torch.cat([model(*part) for part in parts])
    )


def test_a_head_that_pools_inside_is_refused_another_pooling() -> None:
    config = RobertaConfig(  # type: ignore[no-untyped-call]
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_labels=1,
        ranker_pooling="mean",
    )
    with pytest.raises(RankerModelError, match="native"):
        RankerModel(RobertaForSequenceClassification(config))  # type: ignore[no-untyped-call]
    with pytest.raises(RankerModelError, match="pools inside"):
        bert().pooled([(torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.long))])


@both_shapes
@pytest.mark.parametrize("kind", [OPTForCausalLM, OPTModel])
def test_a_language_model_gets_a_fresh_head_and_keeps_its_weights(
    shape: str, kind: type[OPTForCausalLM] | type[OPTModel], tmp_path: Path
) -> None:
    config = opt_config(shape)
    language_model = kind(config)
    language_model.save_pretrained(tmp_path)
    model = RankerModel.from_pretrained(tmp_path, dropout=0.25)
    assert model.config.dropout == 0.25
    weights = model.classifier.state_dict()
    assert weights["score.weight"].shape == (1, config.word_embed_proj_dim)
    embeddings = next(value for name, value in language_model.state_dict().items() if "embed_tokens" in name)
    torch.testing.assert_close(weights["model.decoder.embed_tokens.weight"], embeddings)


def test_only_classifiers_of_one_label_are_taken(tmp_path: Path) -> None:
    config = opt_config("125m")
    config.num_labels = 3
    OPTForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(RankerModelError, match="3 labels"):
        RankerModel.from_pretrained(tmp_path)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(RankerModelError, match=str(tmp_path)):
        RankerModel.from_pretrained(tmp_path)
