"""Memory that the C library keeps after it is freed."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""glibc's numbers of the size from which memory is returned as soon as it is freed, and of the
free memory at the end of the heap from which that is returned."""
_LARGE, _USUAL = 2**22, 2**25
"""The first of these, in bytes, while images are worked on one after another, and else: to which
glibc raises it by itself when large arrays are freed."""


def return_freed_memory() -> None:
    """Returns freed memory to the system, if the C library can do that, as on Linux.

    Arrays of images come in many sizes. What is freed between others that live on is kept by glibc
    and often too small for the next image, so a process would grow with the number of images.
    """
    with suppress(OSError, AttributeError, TypeError):  # on Windows None names no library
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def returning_large_arrays() -> Iterator[None]:
    """Lets the C library return each large array as soon as it is freed, for the block.

    So the most memory of many images is that of one, whatever their order. It costs about a tenth
    of the time on the CPU. What the environment says about glibc's memory is left as it is.
    """
    _set_threshold(_LARGE)
    try:
        yield
    finally:
        _set_threshold(_USUAL)


def _set_threshold(size: int) -> None:
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    with suppress(OSError, AttributeError, TypeError):  # see return_freed_memory
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, size)
        library.mallopt(_TRIM_THRESHOLD, 2 * _USUAL)
