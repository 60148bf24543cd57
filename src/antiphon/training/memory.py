"""Memory that is no longer needed, given back to the system while training runs.

Batches of many shapes leave holes in the C library's heap, which it keeps: without this the memory of a long run is
twice what it uses.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable


def give_back() -> None:
    """Returns the holes of the heap to the system (glibc's malloc_trim; elsewhere nothing). A few milliseconds."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # another C library, another system
        return None
