import pytest
import torch
from transformers import BertConfig, OPTConfig, PretrainedConfig

from rankserve.trainer.config import OptimisationConfig
from rankserve.trainer.model import RankerModel
from rankserve.trainer.training.list_scorer import ListScorer
from rankserve.trainer.training.optimiser import make_optimiser

OPT = OPTConfig(  # type: ignore[no-untyped-call]
    vocab_size=20,
    hidden_size=8,
    word_embed_proj_dim=8,
    ffn_dim=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=8,
)
BERT = BertConfig(  # type: ignore[no-untyped-call]
    vocab_size=20, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
)


def settings_of(config: PretrainedConfig, **settings: float) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each weight."""
    scorer = ListScorer(RankerModel.from_config(config), extra_heads=0)
    optimiser = make_optimiser(scorer, OptimisationConfig(learning_rate=1.0, weight_decay=0.5, **settings))  # type: ignore[arg-type]
    by_id = {
        id(weight): (group["lr"], group["weight_decay"])
        for group in optimiser.param_groups
        for weight in group["params"]
    }
    assert len(by_id) == sum(len(group["params"]) for group in optimiser.param_groups)
    return {name: by_id[id(weight)] for name, weight in scorer.ranker.classifier.named_parameters()}


@pytest.mark.parametrize(
    ("config", "embeddings", "layer", "norm", "head"),
    [
        (
            OPT,
            "model.decoder.embed_positions.weight",
            "model.decoder.layers.{}.fc1.weight",
            "model.decoder.final_layer_norm.weight",
            "score.weight",
        ),
        (
            BERT,
            "bert.embeddings.word_embeddings.weight",
            "bert.encoder.layer.{}.output.dense.weight",
            "bert.embeddings.LayerNorm.weight",
            "classifier.weight",
        ),
    ],
)
def test_each_layer_learns_slower_than_the_one_above(
    config: PretrainedConfig, embeddings: str, layer: str, norm: str, head: str
) -> None:
    found = settings_of(config, layer_decay=0.5, head_learning_rate=3.0)
    assert found[head] == (3.0, 0.5)
    assert found[layer.format(1)] == (0.5, 0.5)
    assert found[layer.format(0)] == (0.25, 0.5)
    assert found[embeddings] == (0.125, 0.0)
    assert found[norm][1] == 0.0
    assert {decay for name, (_, decay) in found.items() if name.endswith("bias")} == {0.0}


def test_without_them_all_learn_alike() -> None:
    assert {rate for rate, _ in settings_of(OPT).values()} == {1.0}


def test_betas_and_the_heads_of_sources() -> None:
    scorer = ListScorer(RankerModel.from_config(OPT), extra_heads=2)
    settings = OptimisationConfig(learning_rate=1.0, head_learning_rate=7.0, beta2=0.9)
    optimiser = make_optimiser(scorer, settings)
    assert optimiser.defaults["betas"] == (0.9, 0.9)
    fast = {
        id(weight) for group in optimiser.param_groups if group["lr"] == 7.0 for weight in group["params"]
    }
    assert scorer.ranker.head is not None
    assert fast == {id(weight) for weight in (scorer.ranker.head.weight, *scorer.heads.parameters())}
    assert isinstance(optimiser, torch.optim.AdamW)
