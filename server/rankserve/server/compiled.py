"""Compilation of numeric code to machine code by numba, where it is installed.

Compiled functions are written in the subset that numba knows, so that they give the same results without it,
only slower.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")

COMPILED = find_spec("numba") is not None


def compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function, compiled on its first call and cached on disk. It must not touch Python objects.

    It runs without the interpreter's lock, so several threads use several cores.
    """
    if not COMPILED:
        return function
    from numba import njit

    compiled_function: Callable[_P, _R] = njit(cache=True, nogil=True)(function)
    return compiled_function
