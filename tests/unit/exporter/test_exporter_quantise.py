from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import quantize_dynamic
from tokenizers import Tokenizer

from rankserve.exporter.agreement import discordant_share
from rankserve.exporter.errors import GateError
from rankserve.exporter.gates import check_batch_effect
from rankserve.exporter.quantise import quantise
from rankserve.exporter.session import GraphScorer

from .conftest import MAX_LENGTH, PAD


@pytest.fixture(scope="module")
def rows(tokenizer: Tokenizer, prompts: list[str]) -> list[list[int]]:
    return [tokenizer.encode(prompt).ids[:MAX_LENGTH] for prompt in prompts]


@pytest.fixture(scope="module")
def int8(graph: onnx.ModelProto) -> onnx.ModelProto:
    return quantise(graph)


def test_order_stays_near_that_of_fp32(
    graph: onnx.ModelProto, int8: onnx.ModelProto, rows: list[list[int]]
) -> None:
    fp32_scores = GraphScorer(graph, PAD).score(rows)
    int8_scores = GraphScorer(int8, PAD).score(rows)

    assert not np.array_equal(fp32_scores, int8_scores)
    assert discordant_share(fp32_scores, int8_scores) < 0.03


def test_projected_embeddings_of_opt_350m_are_quantised_too(
    post_norm_graph: onnx.ModelProto, rows: list[list[int]]
) -> None:
    fp32_scores = GraphScorer(post_norm_graph, PAD).score(rows)
    int8_scores = GraphScorer(quantise(post_norm_graph), PAD).score(rows)

    assert discordant_share(fp32_scores, int8_scores) < 0.05


def test_scores_do_not_depend_on_batch_mates(int8: onnx.ModelProto, rows: list[list[int]]) -> None:
    effect = check_batch_effect(GraphScorer(int8, PAD), rows, seed=3)

    assert effect.rank_flips == 0
    assert effect.max_move < 1e-4


def test_one_scale_a_tensor_fails_the_gate(
    graph: onnx.ModelProto, rows: list[list[int]], tmp_path: Path
) -> None:
    """What onnxruntime's own dynamic quantisation does; the gate exists because of it."""
    onnx.save(graph, tmp_path / "fp32.onnx")
    quantize_dynamic(tmp_path / "fp32.onnx", tmp_path / "dynamic.onnx")
    per_tensor = onnx.load(tmp_path / "dynamic.onnx")

    with pytest.raises(GateError, match="depends on its batch mates"):
        check_batch_effect(GraphScorer(per_tensor, PAD), rows, seed=3)


def test_every_large_weight_is_int8(int8: onnx.ModelProto) -> None:
    floats = [
        tensor.name
        for tensor in int8.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2 and min(tensor.dims) >= 32
    ]

    assert floats == []
    onnx.checker.check_model(int8)


def test_products_cannot_overflow_16_bits(int8: onnx.ModelProto) -> None:
    """Two neighbouring products are added in 16 bits on CPUs without VNNI."""
    tensors = {tensor.name: tensor for tensor in int8.graph.initializer}
    weights = [
        numpy_helper.to_array(tensors[node.input[1]])
        for node in int8.graph.node
        if node.op_type == "MatMulInteger"
    ]

    assert len(weights) >= 12
    assert all(2 * 255 * int(np.abs(weight).max()) < 2**15 for weight in weights)


def test_the_fp32_graph_is_left_alone(graph: onnx.ModelProto) -> None:
    before = graph.SerializeToString(deterministic=True)

    quantise(graph)

    assert graph.SerializeToString(deterministic=True) == before


def test_head_stays_fp32(int8: onnx.ModelProto) -> None:
    assert any(
        node.op_type in ("Gemm", "MatMul") and "score" in " ".join(node.input) for node in int8.graph.node
    )
