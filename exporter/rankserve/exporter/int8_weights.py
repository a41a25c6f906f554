"""Constant matrices as int8, for both int8 graphs."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

# 7 bits: x86 CPUs without VNNI add two products in 16 bits, which 8-bit weights overflow silently.
PRODUCT_LIMIT = 63
# A looked-up row is widened, not multiplied in int8.
TABLE_LIMIT = 127


def symmetric_int8(
    values: Array, *, axis: int, limit: int, least: Array | float = 0.0
) -> tuple[npt.NDArray[np.int8], Array]:
    """Values as integers of at most `limit` and one scale a slice; zeros stay zeros.

    Args:
        values: of two axes.
        axis: along which a slice's maximum is taken; kept as length 1 in the scales.
        limit: largest integer.
        least: smallest scale.
    """
    scale = np.maximum(np.abs(values).max(axis=axis, keepdims=True) / limit, least)
    scale[scale == 0] = 1.0
    return np.round(values / scale).astype(np.int8), scale.astype(np.float32)
