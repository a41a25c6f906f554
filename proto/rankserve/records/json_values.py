"""What a value read from JSON is: Python's `isinstance` takes true for 1, and JSON texts may hold NaN."""

import sys
from typing import Any, TypeGuard


def is_integer(value: object) -> TypeGuard[int]:
    """Whether it is an integer, which true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is an integer or a float, NaN and the infinities included."""
    return is_integer(value) or isinstance(value, float)


def is_finite(value: Any) -> TypeGuard[float]:
    """Whether it is a number that a float can hold."""
    # Not `math.isfinite`, which overflows on an integer that no float holds.
    return is_number(value) and abs(value) <= sys.float_info.max
