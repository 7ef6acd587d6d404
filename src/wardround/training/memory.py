"""Memory between steps: freed blocks stay with the process, or go back, where its C library can be told so."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of these parameters in glibc's malloc.h."""
_KEPT = 512 * 2**20
_LARGEST = 32 * 2**20
"""The most that glibc takes for it."""


def _library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


@cache
def keep_freed() -> bool:
    """Tell glibc to keep up to 512 MB of what was freed, and to serve blocks of up to 32 MB from it.

    By default it gives such blocks back to the system, and every step of a large chunk pays for fresh pages: a third of a
    round of a thousand small sites. Returns whether it was told; elsewhere nothing happens.
    """
    library = _library()
    if library is None:
        return False
    return bool(library.mallopt(_TRIM_THRESHOLD, _KEPT)) and bool(library.mallopt(_MMAP_THRESHOLD, _LARGEST))


def give_back() -> bool:
    """Tell glibc to give back to the system what was freed, between two tasks whose needs differ; elsewhere nothing happens."""
    library = _library()
    return library is not None and bool(library.malloc_trim(0))


def keep_nothing() -> bool:
    """Tell glibc to take each block of a megabyte or more from the system, and to give it back as soon as it is freed.

    For a process whose arrays live long and whose steps are few. Returns whether it was told; elsewhere nothing happens.
    """
    library = _library()
    return library is not None and bool(library.mallopt(_MMAP_THRESHOLD, 2**20))
