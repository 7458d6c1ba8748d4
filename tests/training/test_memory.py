"""The peak of memory on every system, of which each tells it in another way."""

import ctypes
import sys
from types import SimpleNamespace

import pytest
import torch

from samtune.training.memory import count_peak_anew, peak_memory

CPU = torch.device("cpu")


def test_linux_counts_in_kibibytes_and_macos_in_bytes(monkeypatch):
    resource = SimpleNamespace(
        RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=5_000)
    )
    monkeypatch.setitem(sys.modules, "resource", resource)
    for platform, peak in (("linux", 5_000 * 1024), ("darwin", 5_000)):
        monkeypatch.setattr(sys, "platform", platform)
        assert peak_memory(CPU) == peak


def told(handle, counters, size):
    """What Windows fills in: the peak of the working set behind the count of page faults."""
    assert ctypes.cast(handle, ctypes.c_void_p).value == ctypes.c_void_p(-1).value
    assert size == ctypes.sizeof(counters._obj) == 2 * 4 + 8 * ctypes.sizeof(ctypes.c_size_t)
    counters._obj.peak = 7 * 2**32
    return 1


@pytest.mark.parametrize(("answer", "peak"), [(told, 7 * 2**32), (lambda *_: 0, 0), (None, 0)])
def test_windows_has_no_module_resource(monkeypatch, answer, peak):
    monkeypatch.setitem(sys.modules, "resource", None)
    kernel = SimpleNamespace(K32GetProcessMemoryInfo=answer)
    library = None if answer is None else SimpleNamespace(kernel32=kernel)
    monkeypatch.setattr(ctypes, "windll", library, raising=False)
    assert peak_memory(CPU) == peak


@pytest.mark.parametrize("error", [TypeError, OSError, AttributeError])
def test_a_c_library_that_frees_nothing_is_no_error(monkeypatch, error):
    def cdll(name):
        raise error(name)

    monkeypatch.setattr(ctypes, "CDLL", cdll)
    count_peak_anew()
