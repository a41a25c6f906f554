"""Compilation of numeric code to machine code by numba, where it is installed.

Compiled functions are written in the subset that numba knows, so that they give the same results without it,
only slower.
"""

import hashlib
import os
from collections.abc import Callable
from functools import cache, cached_property, update_wrapper
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")

COMPILED = find_spec("numba") is not None


class compiled(Generic[_P, _R]):  # noqa: N801 - a decorator
    """A function that can be compiled. It must not touch Python objects.

    Called, it runs as it is written: servers, which call few of them and seldom, need no compiler. What
    `machine_code` calls is machine code too.
    """

    def __init__(self, function: Callable[_P, _R]) -> None:
        self._function = function
        update_wrapper(self, function)

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return self._function(*args, **kwargs)

    @cached_property
    def machine_code(self) -> Callable[_P, _R]:
        """The function, compiled on its first call and cached on disk; without numba, as it is written.

        It runs without the interpreter's lock, so several threads use several cores.
        """
        if not COMPILED:
            return self._function
        from numba import config as numba_config
        from numba import njit

        # Its settings have no types.
        config: Any = numba_config
        folder = _cache_folder()
        before = config.CACHE_DIR
        config.CACHE_DIR = folder
        try:
            # A call that is not inlined counts the references of every array it passes: most of the time.
            machine_code: Callable[_P, _R] = njit(
                cache=bool(folder), nogil=True, forceinline=True, error_model="numpy"
            )(self._function)
        finally:
            config.CACHE_DIR = before
        return machine_code

    @property
    def _numba_type_(self) -> object:
        """What numba takes it for where compiled code calls it."""
        return self.machine_code._numba_type_  # type: ignore[attr-defined]


@cache
def _cache_folder() -> str:
    """A folder of this version of the sources; empty if none can be written.

    numba looks only at the file of the function itself to tell whether its machine code is out of date, but
    that code holds what the function calls in other files as well.
    """
    digest = hashlib.sha256()
    folder_of_this = Path(__file__).parent
    bound = folder_of_this / "scheduling" / "fcfs_bound.py"
    for source in (*sorted(folder_of_this.rglob("simulat*/*.py")), bound, Path(__file__)):
        digest.update(source.read_bytes())
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "rankserve" / digest.hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ""
    return str(folder) if os.access(folder, os.W_OK) else ""
