"""The C library's allocator, set for steps that free and take the same large blocks again and again."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Makes glibc keep freed blocks for this process's next use; other C libraries stay as they are.

    By default it gives large ones back to the system, which clears each page anew.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
        libc.mallopt(_M_MMAP_MAX, 0)
