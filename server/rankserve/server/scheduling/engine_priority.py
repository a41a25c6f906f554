"""A policy's order as the one integer that engines with a priority queue take.

The band is in the high part and the key in the low 53 bits, so a better band always goes first. Keys are told
apart by their 42 leading bits: two that agree in those get the same integer, never the opposite order. That
is a tenth of a token in keys that add tokens to the time of day, at a hundred tokens to the second.

All values fit a signed 64-bit integer; those of band 0 also fit a JSON number that is read as a double.
"""

import math
import struct

WORST_BAND = 1000
_KEY_BITS = 53
_DROPPED_BITS = 64 - _KEY_BITS


def sortable(key: float) -> int:
    """An integer of 53 bits, signed, that is ordered as keys are; equal for equal keys, 0.0 and -0.0 too.

    Raises:
        ValueError: the key is not a number.
    """
    if math.isnan(key):
        raise ValueError("a key that is not a number has no place in an order")
    # Floats of one sign are ordered as their bits; those of the negative ones run backwards.
    bits: int = struct.unpack("<q", struct.pack("<d", abs(key)))[0] >> _DROPPED_BITS
    return bits if key > 0 else -bits


def engine_priority(band: int, key: float, *, lower_first: bool) -> int:
    """The integer to send an engine with a request.

    Args:
        band: the request's priority, lower first.
        key: its policy's key, smaller first.
        lower_first: whether the engine serves small integers first (vLLM) or large ones (SGLang).

    Raises:
        ValueError: the band is out of range, or the key is not a number.
    """
    if abs(band) > WORST_BAND:
        raise ValueError(f"a priority band is between {-WORST_BAND} and {WORST_BAND}, got {band}")
    value = (band << _KEY_BITS) + sortable(key)
    return value if lower_first else -value
