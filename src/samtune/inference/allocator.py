"""Memory that the C library keeps after it is freed."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def return_freed_memory() -> None:
    """Returns freed memory to the system, if the C library can do that, as on Linux.

    Arrays of images come in many sizes. What is freed between others that live on is kept by glibc
    and often too small for the next image, so a process would grow with the number of images.
    """
    with suppress(OSError, AttributeError, TypeError):  # on Windows None names no library
        ctypes.CDLL(None).malloc_trim(0)
