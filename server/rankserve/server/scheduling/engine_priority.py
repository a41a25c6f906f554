"""A policy's order as the one integer that engines with a priority queue take.

The band is in the high part and the key in the low 32 bits, so a better band always goes first. Keys are told
apart as float32 does: two that are closer than that get the same integer, never the opposite order. A key
that grows with the clock should count from the start of the process, or float32 runs out of digits.

All values are below 2^43 in size, so a signed 64-bit integer holds them, and so does a JSON number that is
read as a double.
"""

import math
import struct

WORST_BAND = 1000
_LARGEST_FLOAT32 = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]


def sortable(key: float) -> int:
    """An integer of 32 bits, signed, that is ordered as keys are; equal for equal keys, 0.0 and -0.0 too.

    Keys beyond float32's range count as infinite.

    Raises:
        ValueError: the key is not a number.
    """
    if math.isnan(key):
        raise ValueError("a key that is not a number has no place in an order")
    if abs(key) > _LARGEST_FLOAT32:
        key = math.copysign(math.inf, key)
    # Floats of one sign are ordered as their bits; those of the negative ones run backwards.
    bits: int = struct.unpack("<i", struct.pack("<f", key))[0]
    return bits if bits >= 0 else -(bits & 0x7FFF_FFFF)


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
    value = (band << 32) + sortable(key)
    return value if lower_first else -value
