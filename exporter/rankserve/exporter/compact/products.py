"""Products of activations and weights, in fp32 or in int8.

Activations are quantised where they enter a product: at a *site*, named once however many products share it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from rankserve.exporter.compact.builder import CONTRIB, GraphBuilder
from rankserve.exporter.compact.ranges import ChannelRange
from rankserve.exporter.compact.smoothing import inputs_multiplied
from rankserve.exporter.compact.transformer import Array, Linear
from rankserve.exporter.int8_weights import PRODUCT_LIMIT, TABLE_LIMIT, symmetric_int8

_LEVELS = 255
_LARGEST_BIAS = np.float32(2**30)


class Products(Protocol):
    """How a graph multiplies. Values are names within the graph; activations are [rows, width]."""

    def enter(self, graph: GraphBuilder, value: str, site: str) -> str:
        """The activation as the products of this site take it."""
        ...

    def product(self, graph: GraphBuilder, entered: str, site: str, linear: Linear, output: str) -> str:
        """`entered @ weight + bias`, in fp32."""
        ...

    def activated(
        self, graph: GraphBuilder, entered: str, site: str, linear: Linear, activation: str, next_site: str
    ) -> str:
        """`activation(entered @ weight + bias)`, entered at the next site."""
        ...

    def table(self, graph: GraphBuilder, name: str, table: Array, indices: str) -> str:
        """Rows of an embedding table, in fp32."""
        ...


@dataclass(slots=True)
class FloatProducts:
    """fp32. Attributes: sites: the value that enters at each."""

    sites: dict[str, str] = field(default_factory=dict)

    def enter(self, graph: GraphBuilder, value: str, site: str) -> str:
        self.sites[site] = value
        return value

    def product(self, graph: GraphBuilder, entered: str, site: str, linear: Linear, output: str) -> str:
        weight = graph.constant(f"{output}_weight", linear.weight, np.float32)
        return graph.node("Gemm", [entered, weight, _bias(graph, linear, output)], output)

    def activated(
        self, graph: GraphBuilder, entered: str, site: str, linear: Linear, activation: str, next_site: str
    ) -> str:
        wide = self.product(graph, entered, site, linear, f"{next_site}_linear")
        return self.enter(graph, graph.node(activation, [wide], next_site), next_site)

    def table(self, graph: GraphBuilder, name: str, table: Array, indices: str) -> str:
        return graph.node("Gather", [graph.constant(f"{name}_table", table, np.float32), indices], name)


@dataclass(slots=True, frozen=True)
class Int8Products:
    """int8 weights, one scale a column; uint8 activations, one fixed scale a site.

    Attributes:
        ranges: of each site's activation, after its division by `divisors`. What lies beyond is clipped.
        divisors: scales [width] of sites whose activation is divided before it is quantised.
    """

    ranges: Mapping[str, ChannelRange]
    divisors: Mapping[str, Array]

    def enter(self, graph: GraphBuilder, value: str, site: str) -> str:
        if site in self.divisors:
            inverse = graph.constant(f"{site}_inverse", 1 / self.divisors[site], np.float32)
            value = graph.node("Mul", [value, inverse], f"{site}_divided")
        return graph.node("QuantizeLinear", [value, *self._scale(graph, site)], f"{site}_uint8")

    def product(self, graph: GraphBuilder, entered: str, site: str, linear: Linear, output: str) -> str:
        scale, zero = self._scale(graph, site)
        weight, weight_scale, weight_zero = self._weight(graph, linear, site, output)
        inputs = [entered, weight, scale, weight_scale, zero, weight_zero, _bias(graph, linear, output)]
        return graph.node("MatMulIntegerToFloat", inputs, output, domain=CONTRIB)

    def activated(
        self, graph: GraphBuilder, entered: str, site: str, linear: Linear, activation: str, next_site: str
    ) -> str:
        output = f"{next_site}_linear"
        if activation != "Relu":
            wide = self.product(graph, entered, site, linear, output)
            return self.enter(graph, graph.node(activation, [wide], next_site), next_site)
        # Nothing below zero survives the clipping to uint8 with zero point 0: that is the ReLU.
        scale, zero = self._scale(graph, site)
        # In units too small for its column, a bias would not fit into 32 bits.
        least: Array = np.abs(linear.bias) / (graph.constants[scale].astype(np.float32) * _LARGEST_BIAS)
        weight, weight_scale, weight_zero = self._weight(graph, linear, site, output, least=least)
        unit = graph.constants[weight_scale].astype(np.float32) * graph.constants[scale].astype(np.float32)
        inputs = [entered, scale, zero, weight, weight_scale, weight_zero]
        inputs += [graph.constant(f"{output}_bias_int32", np.round(linear.bias / unit), np.int32)]
        return graph.node(
            "QGemm", [*inputs, *self._scale(graph, next_site)], f"{next_site}_uint8", domain=CONTRIB
        )

    def table(self, graph: GraphBuilder, name: str, table: Array, indices: str) -> str:
        values, scale = symmetric_int8(table, axis=1, limit=TABLE_LIMIT)
        rows = graph.node("Gather", [graph.constant(f"{name}_int8", values, np.int8), indices], f"{name}_row")
        widened = graph.node("Cast", [rows], f"{name}_widened", to=1)
        scales = graph.constant(f"{name}_scale", scale, np.float32)
        return graph.node(
            "Mul", [widened, graph.node("Gather", [scales, indices], f"{name}_row_scale")], name
        )

    def _scale(self, graph: GraphBuilder, site: str) -> tuple[str, str]:
        """Scale and zero point of a site, such that 0 is exact."""
        low, high = float(self.ranges[site].low.min()), float(self.ranges[site].high.max())
        scale = (high - low) / _LEVELS or 1.0
        return (
            graph.constant(f"{site}_scale", scale, np.float32),
            graph.constant(f"{site}_zero", round(-low / scale), np.uint8),
        )

    def _weight(
        self, graph: GraphBuilder, linear: Linear, site: str, output: str, *, least: Array | float = 0.0
    ) -> tuple[str, str, str]:
        """int8 weight, scales and zero points; no scale is below `least`."""
        if site in self.divisors:
            linear = inputs_multiplied(linear, self.divisors[site])
        values, scale = symmetric_int8(linear.weight, axis=0, limit=PRODUCT_LIMIT, least=least)
        return (
            graph.constant(f"{output}_int8", values, np.int8),
            graph.constant(f"{output}_scale", scale[0], np.float32),
            graph.constant(f"{output}_zero", np.zeros(scale.shape[1]), np.int8),
        )


def _bias(graph: GraphBuilder, linear: Linear, output: str) -> str:
    return graph.constant(f"{output}_bias", linear.bias, np.float32)
