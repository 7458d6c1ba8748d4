"""The peak memory of this process, as each system reports it."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from contextlib import suppress
from pathlib import Path

import torch

from samtune.inference.allocator import return_freed_memory


def peak_memory(device: torch.device) -> int:
    """The most memory used so far, in bytes: the device's own, or the process's on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows has none
        return _peak_of_windows()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_memory_of_machine() -> int:
    """Bytes of the CPU's memory that a process may take now."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            rows = dict(line.split(":", 1) for line in lines)
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):  # Windows
        return 8 * 10**9


def count_peak_anew() -> None:
    """Restarts the process's memory peak on Linux; elsewhere it is the peak of all runs so far.

    Memory freed by earlier runs is first returned to the system, if the C library can do that,
    because it would count.
    """
    gc.collect()
    return_freed_memory()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


class _Counters(ctypes.Structure):
    """``PROCESS_MEMORY_COUNTERS`` of Windows."""

    _fields_ = [
        ("size", ctypes.c_uint32),
        ("page_faults", ctypes.c_uint32),
        *((name, ctypes.c_size_t) for name in ("peak", "now", "a", "b", "c", "d", "e", "f")),
    ]


def _peak_of_windows() -> int:
    """The peak of the working set; 0 if the system does not report it."""
    library = getattr(ctypes, "windll", None)
    if library is None:
        return 0
    counters = _Counters(ctypes.sizeof(_Counters))
    tell = library.kernel32.K32GetProcessMemoryInfo
    this_process = ctypes.c_void_p(-1)  # what GetCurrentProcess gives
    told = tell(this_process, ctypes.byref(counters), counters.size)
    return int(counters.peak) if told else 0
