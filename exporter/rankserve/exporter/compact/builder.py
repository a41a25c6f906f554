"""An ONNX graph under construction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from rankserve.exporter.graph import INPUTS, OPSET, OUTPUT

# ONNX Runtime's own operators; every release since 1.20 runs the ones used here on the CPU.
CONTRIB = "com.microsoft"
# Of opset 20; newer ones are refused by older runtimes.
_IR_VERSION = 9


@dataclass(slots=True)
class GraphBuilder:
    """Nodes and constants of a ranker, named by whoever makes them; constants are shared by name."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)

    def constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """Adds a constant unless that very one is there; returns its name.

        Raises:
            ValueError: another one has the name.
        """
        array = np.ascontiguousarray(np.asarray(value, dtype=dtype))
        there = self.constants.setdefault(name, array)
        if there is not array and not np.array_equal(there, array):
            raise ValueError(f"two constants of a graph are named {name}")
        return name

    def node(
        self, operator: str, inputs: Sequence[str], output: str, *, domain: str = "", **attributes: Any
    ) -> str:
        """Adds a node of one output unless that very node is there; returns its name.

        An empty input is one left out.
        """
        node = helper.make_node(operator, list(inputs), [output], name=output, domain=domain, **attributes)
        if node not in self.nodes:
            self.nodes.append(node)
        return output

    def split(self, value: str, names: Sequence[str]) -> list[str]:
        """Cuts a value into equal parts along its last axis."""
        self.nodes.append(
            helper.make_node("Split", [value], list(names), name=names[0], axis=-1, num_outputs=len(names))
        )
        return list(names)

    def model(self, *, also: Mapping[str, int] | None = None) -> onnx.ModelProto:
        """The ranker that gives `score`.

        Args:
            also: further outputs, by name, with the number of their axes.
        """
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in INPUTS
        ]
        outputs = [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch"])]
        outputs += [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * axes)
            for name, axes in (also or {}).items()
        ]
        constants = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(
            helper.make_graph(self.nodes, "ranker", inputs, outputs, constants),
            opset_imports=opsets,
            ir_version=_IR_VERSION,
            producer_name="rankserve",
        )
