"""What optimum's levels do to the graphs of encoders, whose patterns it knows."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from transformers import BertConfig

from rankserve.exporter.graph import export_graph
from rankserve.exporter.optimise import Level, optimise
from rankserve.exporter.session import GraphScorer
from rankserve.exporter.tokenization import pad
from rankserve.trainer.model import RankerModel

LENGTH = 24


@pytest.fixture(scope="module")
def config() -> BertConfig:
    return BertConfig(  # type: ignore[no-untyped-call]
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        initializer_range=0.2,
        pad_token_id=0,
    )


@pytest.fixture(scope="module")
def graph(config: BertConfig) -> onnx.ModelProto:
    torch.manual_seed(0)
    return export_graph(RankerModel.from_config(config), max_length=LENGTH)


@pytest.mark.parametrize(
    ("level", "fused", "tolerance"),
    [("O1", set(), 1e-5), ("O2", {"SkipLayerNormalization", "BiasGelu"}, 1e-5), ("O3", {"FastGelu"}, 1e-2)],
)
def test_an_encoder_is_fused_and_scores_as_before(
    graph: onnx.ModelProto, config: BertConfig, level: Level, fused: set[str], tolerance: float
) -> None:
    before = graph.SerializeToString()
    optimised = optimise(graph, config, level)

    assert graph.SerializeToString() == before
    assert optimised.configured_as == "bert"
    assert fused <= optimised.fused.keys()
    assert optimised.applied == level
    score = _scores_of(optimised.graph)
    for side in ("left", "right"):
        np.testing.assert_allclose(score(side), _scores_of(graph)(side), atol=tolerance)


def _scores_of(graph: onnx.ModelProto) -> Callable[[str], np.ndarray]:
    rows = [list(range(1, 1 + length)) for length in (LENGTH, 3, 11)]
    scorer = GraphScorer(graph, pad_token_id=0)
    return lambda side: scorer.score_batch(pad(rows, 0, side=side))
