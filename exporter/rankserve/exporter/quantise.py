"""int8 weights, activations quantised to int8 row by row (docs/decisions/0003).

One scale a token instead of one a tensor: a prompt's score does not move with its batch mates. Standard ONNX
operators only. The scheme is the per-token, per-channel one of LLM.int8() (Dettmers et al. 2022) without its
outlier columns.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from rankserve.exporter.int8_weights import PRODUCT_LIMIT, TABLE_LIMIT, symmetric_int8

_ACTIVATION_LIMIT = 127
# Narrower products (the ranker's head) cost nothing and stay exact.
_MIN_COLUMNS = 16
_MIN_EMBEDDING_ROWS = 64
# Absolute maximum of an all-zero row, so that it divides.
_SMALLEST_MAXIMUM = 1e-12


def quantise(model: onnx.ModelProto) -> onnx.ModelProto:
    """An int8 version of an fp32 graph; the graph itself stays as it is.

    Products of an activation and a constant matrix, and embedding tables, become int8. Products of two
    activations (attention), normalisation and the head stay fp32.
    """
    rewriter = _Rewriter({tensor.name: tensor for tensor in model.graph.initializer})
    for node in model.graph.node:
        rewriter.add(node)
    return _rebuilt(model, rewriter)


@dataclass(slots=True)
class _Rewriter:
    """Copies nodes, replacing those that can be int8."""

    weights: dict[str, TensorProto]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    quantised_activations: set[str] = field(default_factory=set)

    def add(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Gather" and self._is_embedding(node):
            self._embedding(node)
        elif (weight := self._matrix(node)) is not None and weight.shape[1] >= _MIN_COLUMNS:
            self._product(node, weight)
        else:
            self.nodes.append(node)

    def _is_embedding(self, node: onnx.NodeProto) -> bool:
        table = self.weights.get(node.input[0])
        return (
            table is not None
            and table.data_type == TensorProto.FLOAT
            and len(table.dims) == 2
            and table.dims[0] >= _MIN_EMBEDDING_ROWS
            and _attributes(node).get("axis", 0) == 0
        )

    def _matrix(self, node: onnx.NodeProto) -> npt.NDArray[np.float32] | None:
        """The constant right-hand side [inputs, outputs] of a product, if it is one."""
        if node.op_type not in ("MatMul", "Gemm"):
            return None
        tensor = self.weights.get(node.input[1])
        if tensor is None or tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2:
            return None
        attributes = _attributes(node)
        if (
            attributes.get("transA")
            or attributes.get("alpha", 1.0) != 1.0
            or attributes.get("beta", 1.0) != 1.0
        ):
            return None
        matrix = numpy_helper.to_array(tensor)
        return matrix.T if attributes.get("transB") else matrix

    def _embedding(self, node: onnx.NodeProto) -> None:
        table, indices, output = node.input[0], node.input[1], node.output[0]
        if f"{table}_int8" not in self.constants:
            values, scale = symmetric_int8(
                numpy_helper.to_array(self.weights[table]), axis=1, limit=TABLE_LIMIT
            )
            self._constant(f"{table}_int8", values)
            self._constant(f"{table}_scale", scale)
        self._node("Gather", [f"{table}_int8", indices], f"{output}_entry_int8")
        self._node("Gather", [f"{table}_scale", indices], f"{output}_entry_scale")
        self._node("Cast", [f"{output}_entry_int8"], f"{output}_entry", to=TensorProto.FLOAT)
        self._node("Mul", [f"{output}_entry", f"{output}_entry_scale"], output)

    def _product(self, node: onnx.NodeProto, weight: npt.NDArray[np.float32]) -> None:
        activation, output = node.input[0], node.output[0]
        bias = node.input[2] if len(node.input) > 2 else ""
        self._quantise_activation(activation)
        values, scale = symmetric_int8(weight, axis=0, limit=PRODUCT_LIMIT)
        self._constant(f"{output}_weight_int8", values)
        self._constant(f"{output}_weight_scale", scale[0])
        unbiased = f"{output}_unbiased" if bias else output
        self._node(
            "MatMulInteger",
            [f"{activation}_row_int8", f"{output}_weight_int8", "int8_zero_point"],
            f"{output}_sum_int32",
        )
        self._node("Cast", [f"{output}_sum_int32"], f"{output}_sum", to=TensorProto.FLOAT)
        self._node("Mul", [f"{output}_sum", f"{output}_weight_scale"], f"{output}_columns")
        self._node("Mul", [f"{output}_columns", f"{activation}_row_scale"], unbiased)
        if bias:
            self._node("Add", [unbiased, bias], output)

    def _quantise_activation(self, name: str) -> None:
        if name in self.quantised_activations:
            return
        self.quantised_activations.add(name)
        self._constant("int8_zero_point", np.asarray(128, dtype=np.uint8))
        self._constant("int8_one", np.asarray(1.0, dtype=np.float32))
        self._constant("int8_limit", np.asarray(_ACTIVATION_LIMIT, dtype=np.float32))
        self._constant("int8_smallest", np.asarray(_SMALLEST_MAXIMUM, dtype=np.float32))
        self._constant("int8_last_axis", np.asarray([-1], dtype=np.int64))
        self._node("Abs", [name], f"{name}_row_absolute")
        self._node("ReduceMax", [f"{name}_row_absolute", "int8_last_axis"], f"{name}_row_largest", keepdims=1)
        self._node("Max", [f"{name}_row_largest", "int8_smallest"], f"{name}_row_maximum")
        self._node("Div", [f"{name}_row_maximum", "int8_limit"], f"{name}_row_scale")
        self._node("Div", ["int8_limit", f"{name}_row_maximum"], f"{name}_row_inverse")
        self._node("Mul", [name, f"{name}_row_inverse"], f"{name}_row_scaled")
        self._node(
            "QuantizeLinear", [f"{name}_row_scaled", "int8_one", "int8_zero_point"], f"{name}_row_int8"
        )

    def _constant(self, name: str, value: npt.NDArray[np.generic]) -> None:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(
            helper.make_node(operator, inputs, [output], name=f"{output}_{operator}", **attributes)
        )


def _rebuilt(model: onnx.ModelProto, rewriter: _Rewriter) -> onnx.ModelProto:
    used = {name for node in rewriter.nodes for name in node.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in used]
    graph = helper.make_graph(
        rewriter.nodes,
        model.graph.name,
        list(model.graph.input),
        list(model.graph.output),
        [*weights, *rewriter.constants.values()],
    )
    return helper.make_model(
        graph,
        opset_imports=list(model.opset_import),
        ir_version=model.ir_version,
        producer_name="rankserve",
        functions=list(model.functions),
    )


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
