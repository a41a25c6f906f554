import onnx
import pytest
import torch
from transformers import BertConfig

from rankserve.exporter.errors import GateError
from rankserve.exporter.graph import export_graph
from rankserve.exporter.parity import TOLERANCE, check_parity
from rankserve.exporter.session import GraphScorer
from rankserve.trainer.model import RankerModel

from .conftest import MAX_LENGTH, PAD, tiny_opt


def _check(model: RankerModel, graph: onnx.ModelProto) -> float:
    scorer = GraphScorer(graph, PAD)
    return check_parity(model, scorer, max_length=MAX_LENGTH, pad_token_id=PAD, seed=1).max_difference


def test_opt_125m_shape_scores_like_torch_with_both_paddings(
    ranker: RankerModel, graph: onnx.ModelProto
) -> None:
    assert _check(ranker, graph) < TOLERANCE


def test_opt_350m_shape_scores_like_torch_with_both_paddings_and_no_dropout(
    post_norm_graph: onnx.ModelProto,
) -> None:
    assert "Dropout" not in {node.op_type for node in post_norm_graph.graph.node}
    assert _check(tiny_opt(post_norm=True), post_norm_graph) < TOLERANCE


def test_encoder_scores_like_torch_with_both_paddings() -> None:
    torch.manual_seed(0)
    config = BertConfig(  # type: ignore[no-untyped-call]
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
    )
    model = RankerModel.from_config(config).eval()

    assert _check(model, export_graph(model, max_length=MAX_LENGTH)) < TOLERANCE


def test_another_model_fails_parity(graph: onnx.ModelProto) -> None:
    with pytest.raises(GateError, match="does not score like the torch model"):
        _check(tiny_opt(seed=5), graph)


def test_signature_is_the_one_servers_expect(graph: onnx.ModelProto) -> None:
    def shapes(values: list[onnx.ValueInfoProto]) -> dict[str, list[str]]:
        return {v.name: [d.dim_param for d in v.type.tensor_type.shape.dim] for v in values}

    assert shapes(list(graph.graph.input)) == {
        "input_ids": ["batch", "length"],
        "attention_mask": ["batch", "length"],
    }
    assert shapes(list(graph.graph.output)) == {"score": ["batch"]}
    onnx.checker.check_model(graph)


def test_graph_names_no_path_of_this_machine(graph: onnx.ModelProto) -> None:
    content = graph.SerializeToString()

    assert b"site-packages" not in content
    assert b".py" not in content
