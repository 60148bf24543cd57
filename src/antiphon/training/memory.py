"""The C library's heap while training runs: kept from update to update, and its holes given back now and then.

An array of megabytes is by default fresh from the system each time, page by page, zeroed: thousands of page faults an
update, 5 to 10 % of its time. Kept in the heap, batches of many shapes leave holes in it: without giving them back the
memory of a long run is twice what it uses.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable


def keep() -> None:
    """From now on this process keeps the memory of large arrays for the next ones (glibc; elsewhere nothing)."""
    mallopt = _of_the_c_library("mallopt")
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def give_back() -> None:
    """Returns the holes of the heap to the system (glibc's malloc_trim; elsewhere nothing). A few milliseconds."""
    trim = _of_the_c_library("malloc_trim")
    if trim is not None:
        trim(0)


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Options of mallopt, from malloc.h."""


@functools.cache
def _of_the_c_library(name: str) -> Callable[..., int] | None:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):  # another C library, another system
        return None
