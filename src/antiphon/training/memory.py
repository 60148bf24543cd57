"""Memory while training runs. The C library's heap: kept from update to update, and its holes given back now and then.

An array of megabytes is by default fresh from the system each time, page by page, zeroed: thousands of page faults an
update, 5 to 10 % of its time. Kept in the heap, batches of many shapes leave holes in it: without giving them back the
memory of a long run is twice what it uses. But a hole that is given back is soon wanted again, and then its pages are
fresh once more: every five seconds cost a twentieth of all time. So they are given back when they have grown.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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


@contextmanager
def passed_over() -> Iterator[None]:
    """What is there when training begins stays, and Python's collector of cycles passes over it meanwhile.

    The graphs of automatic differentiation make it look often: a twentieth of the time of a small model's update.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class Heap:
    """When to give back: when the process holds a quarter more than it did while it worked after the last time."""

    def __init__(self) -> None:
        self._settled: int | None = None

    def tidy(self, resident: int) -> bool:
        """Looks at what the process holds, in bytes; to be called every few seconds. Whether it gave back."""
        if self._settled is None:
            self._settled = resident
        if resident <= _GROWTH * self._settled:
            return False
        give_back()
        self._settled = None  # until work has taken again what it needs
        return True


def resident() -> int:
    """Bytes of this process that are in memory; 0 where the system does not tell as Linux does."""
    try:
        with open("/proc/self/statm", encoding="ascii") as told:
            return int(told.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


_GROWTH = 1.25
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Options of mallopt, from malloc.h."""


@functools.cache
def _of_the_c_library(name: str) -> Callable[..., int] | None:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):  # another C library, another system
        return None
