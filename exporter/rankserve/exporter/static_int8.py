"""int8 with scales fixed at export, for the architectures that `compact` knows (docs/decisions/0008)."""

from collections.abc import Sequence

import onnx

from rankserve.exporter.compact.compose import compose
from rankserve.exporter.compact.describe import describe
from rankserve.exporter.compact.products import FloatProducts, Int8Products
from rankserve.exporter.compact.ranges import measure_ranges
from rankserve.exporter.compact.smoothing import smooth
from rankserve.exporter.parity import check_parity
from rankserve.exporter.session import GraphScorer
from rankserve.exporter.tokenization import Tokens
from rankserve.trainer.model import RankerModel


def static_int8(
    model: RankerModel, rows: Sequence[Tokens], *, max_length: int, pad_token_id: int, seed: int
) -> onnx.ModelProto | None:
    """A lean int8 graph of a ranker; None if its architecture is none of the known.

    Args:
        model: the ranker, in fp32.
        rows: tokenised prompts that fix the scales.
        max_length: longest prompt in tokens.
        pad_token_id: token id that pads a batch.
        seed: of what is drawn for the check and from the rows.

    Raises:
        GateError: the graph, before it is quantised, does not score like the model.
    """
    transformer = describe(model)
    if transformer is None:
        return None
    products = FloatProducts()
    exact = compose(transformer, products)
    scorer = GraphScorer(exact.model(), pad_token_id)
    check_parity(model, scorer, max_length=max_length, pad_token_id=pad_token_id, seed=seed)
    ranges = measure_ranges(exact, products.sites, rows, seed=seed)
    smoothed, divided, divisors = smooth(transformer, ranges)
    return compose(smoothed, Int8Products(divided, divisors)).model()
