"""A transformer as a lean ONNX graph: few nodes, and no work for what the score does not depend on.

Rows of a batch are kept as one matrix [batch * length, width] but for attention. Padding may be on either
side: positions are counted over attended tokens and attention masks the rest, so no row has to be shifted.
Where one token is pooled, the last layer needs keys and values of all tokens, and all else of that one alone.

`SkipLayerNormalization` is left alone: on the CPU it takes five times as long as `Add` and
`LayerNormalization`. Those work on matrices, which ONNX Runtime does not fuse into it.
"""

import numpy as np

from rankserve.exporter.compact.builder import CONTRIB, GraphBuilder
from rankserve.exporter.compact.products import Products
from rankserve.exporter.compact.transformer import Layer, Linear, Norm, Transformer
from rankserve.exporter.graph import OUTPUT

_HUGE = 1e9


def compose(transformer: Transformer, products: Products) -> GraphBuilder:
    """The graph of a ranker. Same inputs and output as `export_graph`'s."""
    return _Composer(transformer, products).graph


class _Composer:
    def __init__(self, transformer: Transformer, products: Products) -> None:
        self._transformer = transformer
        self._products = products
        self.graph = GraphBuilder()
        add = self.graph.node
        self._flat = self._integers("flat_shape", [-1, transformer.width])
        self._blocked = add(
            "Concat",
            [add("Shape", ["input_ids"], "shape"), self._integers("rest", [-1])],
            "blocked_shape",
            axis=0,
        )
        self._ordinals = add("CumSum", ["attention_mask", self._integer("rows", 1)], "ordinals")
        self._attended = add("Cast", ["attention_mask"], "attended", to=6)
        self._score(self._layers(self._embeddings()))

    def _embeddings(self) -> str:
        transformer, graph = self._transformer, self.graph
        tokens = self._products.table(graph, "tokens", transformer.tokens, "input_ids")
        if transformer.project_in is not None:
            narrow = self._integers("narrow_shape", [-1, transformer.tokens.shape[1]])
            tokens = graph.node("Reshape", [tokens, narrow], "tokens_flat")
            tokens = self._linear(tokens, "project_in", transformer.project_in)
        else:
            tokens = graph.node("Reshape", [tokens, self._flat], "tokens_flat")
        table = graph.constant("positions_table", transformer.positions, np.float32)
        positions = graph.node("Gather", [table, self._ordinals], "positions")
        positions = graph.node("Reshape", [positions, self._flat], "positions_flat")
        state = graph.node("Add", [tokens, positions], "embeddings")
        return self._norm(state, "embedding_norm", transformer.embedding_norm)

    def _layers(self, state: str) -> str:
        """[batch, width] if the pooled token is picked on the way, else [batch * length, width]."""
        *lower, last = self._transformer.layers
        for number, layer in enumerate(lower):
            state = self._layer(state, f"layer{number}", layer, picks=False)
        picks = self._transformer.pooling != "mean"
        return self._layer(state, f"layer{len(lower)}", last, picks=picks)

    def _layer(self, state: str, name: str, layer: Layer, *, picks: bool) -> str:
        pre_norm = self._transformer.pre_norm
        inner = self._norm(state, f"{name}_attention_norm", layer.attention_norm) if pre_norm else state
        attended = self._attention(inner, name, layer, picks=picks)
        if picks:
            state = self._pick(state, f"{name}_state")
        state = self.graph.node("Add", [state, attended], f"{name}_attention_sum")
        if not pre_norm:
            state = self._norm(state, f"{name}_attention_norm", layer.attention_norm)
        inner = self._norm(state, f"{name}_feed_forward_norm", layer.feed_forward_norm) if pre_norm else state
        state = self.graph.node("Add", [state, self._feed_forward(inner, name, layer)], f"{name}_sum")
        return state if pre_norm else self._norm(state, f"{name}_feed_forward_norm", layer.feed_forward_norm)

    def _attention(self, inner: str, name: str, layer: Layer, *, picks: bool) -> str:
        graph, products, site = self.graph, self._products, f"{name}_attention_input"
        entered = products.enter(graph, inner, site)
        names = [f"{name}_{part}" for part in ("query", "key", "value")]
        if picks:
            mixed = self._attention_of_one(entered, site, names, layer)
        else:
            every = _side_by_side(layer.query, layer.key, layer.value)
            merged = products.product(graph, entered, site, every, f"{name}_qkv")
            mixed = graph.node(
                "MultiHeadAttention",
                [*graph.split(self._unflattened(merged), names), "", self._attended],
                f"{name}_attention",
                domain=CONTRIB,
                num_heads=self._transformer.heads,
                unidirectional=int(self._transformer.causal),
            )
        mixed = graph.node("Reshape", [mixed, self._flat], f"{name}_attention_flat")
        return self._linear(mixed, f"{name}_attention_output", layer.attention_output)

    def _attention_of_one(self, entered: str, site: str, names: list[str], layer: Layer) -> str:
        """Of the pooled token alone: [batch, heads, 1, width / heads].

        The last attended token may see all others, so the mask suffices where attention is causal. Standard
        operators: with fewer queries than keys, `MultiHeadAttention` of ONNX Runtime 1.20 misreads the mask.
        """
        add, products, heads = self.graph.node, self._products, self._transformer.heads
        query, key, value = names
        head_width = self._transformer.width // heads
        one = self._integers("one_query_shape", [-1, heads, 1, head_width])
        many = self._integers("heads_shape", [0, 0, heads, head_width])
        picked = self._pick(entered, f"{query}_input")
        scaled = _outputs_multiplied(layer.query, head_width**-0.5)
        flat = products.product(self.graph, picked, site, scaled, f"{query}_flat")
        both = _side_by_side(layer.key, layer.value)
        merged = products.product(self.graph, entered, site, both, f"{key}_{value}")
        self.graph.split(self._unflattened(merged), [key, value])
        keys = add(
            "Transpose", [add("Reshape", [key, many], f"{key}_heads")], f"{key}_turned", perm=[0, 2, 3, 1]
        )
        values = add(
            "Transpose",
            [add("Reshape", [value, many], f"{value}_heads")],
            f"{value}_turned",
            perm=[0, 2, 1, 3],
        )
        logits = add("MatMul", [add("Reshape", [flat, one], query), keys], f"{query}_logits")
        logits = add("Add", [logits, self._hidden_keys()], f"{query}_masked")
        return add(
            "MatMul", [add("Softmax", [logits], f"{query}_weights", axis=-1), values], f"{query}_mixed"
        )

    def _hidden_keys(self) -> str:
        """[batch, 1, 1, length]: 0 at attended tokens, hugely negative at others."""
        add, constant = self.graph.node, self.graph.constant
        mask = add("Cast", ["attention_mask"], "mask_float", to=1)
        mask = add("Sub", [mask, constant("one", 1, np.float32)], "mask_less_one")
        mask = add("Mul", [mask, constant("huge", _HUGE, np.float32)], "hidden_keys_flat")
        return add("Unsqueeze", [mask, self._integers("inner_axes", [1, 2])], "hidden_keys")

    def _feed_forward(self, inner: str, name: str, layer: Layer) -> str:
        graph, products, activation = self.graph, self._products, self._transformer.activation
        site, next_site = f"{name}_feed_forward_input", f"{name}_feed_forward_hidden"
        entered = products.enter(graph, inner, site)
        hidden = products.activated(graph, entered, site, layer.widen, activation, next_site)
        return products.product(graph, hidden, next_site, layer.narrow, f"{name}_feed_forward_output")

    def _score(self, state: str) -> None:
        transformer, graph = self._transformer, self.graph
        state = self._norm(state, "final_norm", transformer.final_norm)
        if transformer.pooling == "mean":
            state = self._mean(state)
        if transformer.project_out is not None:
            state = self._linear(state, "project_out", transformer.project_out)
        if transformer.dense is not None:
            state = graph.node("Tanh", [self._linear(state, "dense", transformer.dense)], "dense_tanh")
        weight = graph.constant("head_weight", transformer.head.weight, np.float32)
        bias = graph.constant("head_bias", transformer.head.bias, np.float32)
        score = graph.node("Gemm", [state, weight, bias], "head")
        graph.node("Reshape", [score, self._integers("score_shape", [-1])], OUTPUT)

    def _mean(self, state: str) -> str:
        add = self.graph.node
        weights = add("Cast", ["attention_mask"], "mean_mask", to=1)
        count = add("ReduceSum", [weights, self._integers("row_axis", [1])], "mean_count", keepdims=1)
        weights = add("Div", [weights, count], "mean_weights_flat")
        weights = add("Unsqueeze", [weights, self._integers("row_axis", [1])], "mean_weights")
        mean = add("MatMul", [weights, self._unflattened(state)], "mean")
        return add("Reshape", [mean, self._flat], "mean_flat")

    def _pick(self, value: str, output: str) -> str:
        """Of each row the pooled token: [batch, width]."""
        # The first largest: of the running count it is at the last attended token, of the mask at the first.
        by = self._ordinals if self._transformer.pooling == "last" else "attention_mask"
        at = self.graph.node("ArgMax", [by], "pooled_at", axis=1, keepdims=1)
        return self.graph.node("GatherND", [self._unflattened(value), at], output, batch_dims=1)

    def _unflattened(self, value: str) -> str:
        return self.graph.node("Reshape", [value, self._blocked], f"{value}_blocked")

    def _linear(self, value: str, name: str, linear: Linear) -> str:
        site = f"{name}_input"
        entered = self._products.enter(self.graph, value, site)
        return self._products.product(self.graph, entered, site, linear, name)

    def _norm(self, value: str, name: str, norm: Norm | None) -> str:
        if norm is None:
            return value
        weight = self.graph.constant(f"{name}_weight", norm.weight, np.float32)
        bias = self.graph.constant(f"{name}_bias", norm.bias, np.float32)
        return self.graph.node(
            "LayerNormalization", [value, weight, bias], name, axis=-1, epsilon=norm.epsilon
        )

    def _integers(self, name: str, values: list[int]) -> str:
        return self.graph.constant(name, values, np.int64)

    def _integer(self, name: str, value: int) -> str:
        return self.graph.constant(name, value, np.int64)


def _outputs_multiplied(linear: Linear, factor: float) -> Linear:
    return Linear(linear.weight * np.float32(factor), linear.bias * np.float32(factor))


def _side_by_side(*linears: Linear) -> Linear:
    return Linear(
        np.concatenate([linear.weight for linear in linears], axis=1),
        np.concatenate([linear.bias for linear in linears]),
    )
