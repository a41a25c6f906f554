from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from tokenizers import Tokenizer
from transformers import BertConfig, DistilBertConfig, OPTConfig, PretrainedConfig

from rankserve.exporter.agreement import discordant_share
from rankserve.exporter.compact.builder import GraphBuilder
from rankserve.exporter.compact.compose import compose
from rankserve.exporter.compact.describe import describe
from rankserve.exporter.compact.products import FloatProducts
from rankserve.exporter.compact.ranges import measure_ranges
from rankserve.exporter.compact.smoothing import smooth
from rankserve.exporter.compact.transformer import Transformer
from rankserve.exporter.errors import GateError
from rankserve.exporter.gates import check_batch_effect
from rankserve.exporter.parity import TOLERANCE, check_parity
from rankserve.exporter.session import GraphScorer
from rankserve.exporter.static_int8 import static_int8
from rankserve.trainer.model import RankerModel

from .conftest import MAX_LENGTH, PAD

_SHARED = {
    "vocab_size": 320,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_LENGTH,
    "pad_token_id": PAD,
}


def _opt(**changes: object) -> PretrainedConfig:
    fields = {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.2, "bos_token_id": 2, "eos_token_id": 2}
    return OPTConfig(**{**_SHARED, **fields, **changes})  # type: ignore[no-untyped-call]


def _bert(**changes: object) -> PretrainedConfig:
    return BertConfig(**{**_SHARED, "intermediate_size": 64, "initializer_range": 0.2, **changes})  # type: ignore[no-untyped-call]


_CONFIGS = {
    "OPT-125M's": _opt(),
    "OPT-350M's": _opt(do_layer_norm_before=False, word_embed_proj_dim=16),
    "OPT, norms after, GELU": _opt(do_layer_norm_before=False, activation_function="gelu"),
    "OPT, GELU": _opt(activation_function="gelu"),
    "OPT of one layer without biases": _opt(num_hidden_layers=1, enable_bias=False),
    "OPT, mean": _opt(ranker_pooling="mean"),
    "BERT": _bert(),
    "BERT, ReLU": _bert(hidden_act="relu"),
    "BERT, mean": _bert(ranker_pooling="mean"),
}


def _ranker(config: PretrainedConfig) -> RankerModel:
    torch.manual_seed(0)
    model = RankerModel.from_config(config).eval()
    with torch.no_grad():
        # Biases and norms begin as zeros and ones, with which no mistake would show.
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def _described(model: RankerModel) -> Transformer:
    transformer = describe(model)
    assert transformer is not None
    return transformer


def _static_int8(model: RankerModel, rows: list[list[int]]) -> onnx.ModelProto:
    graph = static_int8(model, rows, max_length=MAX_LENGTH, pad_token_id=PAD, seed=0)
    assert graph is not None
    return graph


@pytest.fixture(scope="module", params=list(_CONFIGS.values()), ids=list(_CONFIGS))
def model(request: pytest.FixtureRequest) -> RankerModel:
    return _ranker(request.param)


@pytest.fixture(scope="module")
def rows(tokenizer: Tokenizer, prompts: list[str]) -> list[list[int]]:
    return [tokenizer.encode(prompt).ids[:MAX_LENGTH] for prompt in prompts]


def test_composed_graph_scores_like_torch_with_both_paddings(model: RankerModel) -> None:
    graph = compose(_described(model), FloatProducts()).model()

    onnx.checker.check_model(graph)
    parity = check_parity(model, GraphScorer(graph, PAD), max_length=MAX_LENGTH, pad_token_id=PAD, seed=1)
    assert parity.max_difference < TOLERANCE


def test_int8_orders_like_fp32_whatever_the_batch_mates(model: RankerModel, rows: list[list[int]]) -> None:
    fp32 = GraphScorer(compose(_described(model), FloatProducts()).model(), PAD)
    graph = _static_int8(model, rows)
    int8 = GraphScorer(graph, PAD)

    onnx.checker.check_model(graph)
    scores = int8.score(rows)
    assert not np.array_equal(scores, fp32.score(rows))
    assert discordant_share(scores, fp32.score(rows)) < 0.05
    effect = check_batch_effect(int8, rows, seed=3)
    assert effect.rank_flips == 0
    assert effect.max_move < 1e-4


def test_every_product_is_int8_and_cannot_overflow_16_bits(model: RankerModel, rows: list[list[int]]) -> None:
    """Two neighbouring products are added in 16 bits on CPUs without VNNI."""
    graph = _static_int8(model, rows).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    weights = {name: tensor for name, tensor in tensors.items() if len(tensor.dims) == 2}

    assert {name for name, tensor in weights.items() if tensor.data_type == TensorProto.FLOAT} <= {
        "positions_table",
        "tokens_scale",
        "head_weight",
    }
    int8 = [numpy_helper.to_array(tensor) for name, tensor in weights.items() if name.endswith("_int8")]
    products = [weight for weight in int8 if weight.shape[0] != 320]
    assert len(products) >= 5
    assert all(2 * 255 * int(np.abs(weight).max()) < 2**15 for weight in products)


def test_a_unit_that_only_has_a_bias_keeps_it(rows: list[list[int]]) -> None:
    """Its bias is stored in units of its weights, of which 32 bits may not hold as many as it takes."""
    model = _ranker(_opt())
    for layer in model.classifier.model.decoder.layers:
        with torch.no_grad():
            layer.fc1.weight[:16] = 1e-9
            layer.fc1.bias[:16] = 2.0

    exact = GraphScorer(compose(_described(model), FloatProducts()).model(), PAD).score(rows)
    scores = GraphScorer(_static_int8(model, rows), PAD).score(rows)

    assert np.abs(scores - exact).max() < 0.2 * exact.std()


def test_smoothing_changes_no_score_and_evens_channels_out(rows: list[list[int]]) -> None:
    transformer = _described(_ranker(_opt()))
    loud = transformer.layers[0].attention_norm
    loud = replace(loud, weight=np.where(np.arange(32) == 5, 20, loud.weight).astype(np.float32))
    layers = (replace(transformer.layers[0], attention_norm=loud), *transformer.layers[1:])
    transformer = replace(transformer, layers=layers)
    products = FloatProducts()
    graph = compose(transformer, products)

    ranges = measure_ranges(graph, products.sites, rows, seed=0)
    smoothed, divided, divisors = smooth(transformer, ranges)

    # Everything can be folded in an OPT with ReLU and norms before.
    assert divisors == {}
    scores = GraphScorer(graph.model(), PAD).score(rows)
    again = GraphScorer(compose(smoothed, FloatProducts()).model(), PAD).score(rows)
    np.testing.assert_allclose(again, scores, atol=1e-4)
    before, after = ranges["layer0_attention_input"], divided["layer0_attention_input"]
    assert before.magnitude.max() / np.median(before.magnitude) > 8
    assert after.magnitude.max() / np.median(after.magnitude) < 5


def test_padding_does_not_count_as_a_range(rows: list[list[int]]) -> None:
    """Rows of very different lengths give the ranges that each gives alone."""
    products = FloatProducts()
    graph = compose(_described(_ranker(_bert())), products)
    pair = [rows[0][:2], rows[1]]

    together = measure_ranges(graph, products.sites, pair, seed=0)
    alone = [measure_ranges(graph, products.sites, [row], seed=0) for row in pair]

    for site, channels in together.items():
        np.testing.assert_array_equal(channels.high, np.maximum(*(each[site].high for each in alone)))


@pytest.mark.parametrize(
    "config",
    [
        DistilBertConfig(vocab_size=320, dim=32, hidden_dim=64, n_layers=1, n_heads=4),  # type: ignore[no-untyped-call]
        _opt(activation_function="silu"),
        _bert(position_embedding_type="relative_key"),
    ],
)
def test_what_is_not_known_is_left_to_the_general_path(config: PretrainedConfig) -> None:
    assert describe(_ranker(config)) is None


def test_constants_of_one_name_are_one() -> None:
    graph = GraphBuilder()
    assert graph.constant("axes", [1, 2], np.int64) == graph.constant("axes", [1, 2], np.int64) == "axes"
    with pytest.raises(ValueError, match="two constants of a graph are named axes"):
        graph.constant("axes", [2], np.int64)


def test_a_wrong_description_is_refused(monkeypatch: pytest.MonkeyPatch, rows: list[list[int]]) -> None:
    wrong = replace(_described(_ranker(_opt())), pooling="first")
    monkeypatch.setattr("rankserve.exporter.static_int8.describe", lambda model: wrong)

    with pytest.raises(GateError, match="does not score like the torch model"):
        _static_int8(_ranker(_opt()), rows)
