"""Time, bytes and operations of a call."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.performance.encoders import Encode
from samtune.errors import InputError

Times = dict[str, list[float]]


def chosen(words: str, known: Collection[str], option: str) -> list[str]:
    """The names in words that commas separate; without any, all that are known.

    Raises:
        InputError: One of them is not known.
    """
    names = words.split(",") if words else list(known)
    for name in names:
        if name not in known:
            raise InputError(f"{option} {name}: must be one of {', '.join(known)}")
    return names


def arithmetic(device: str, dtype: str) -> torch.autocast:
    """Autocast to bf16, or nothing."""
    return torch.autocast(device, torch.bfloat16, enabled=dtype == "bf16")


def forward(encode: Encode, pixels: Tensor, dtype: str) -> Tensor:
    """An answer without a gradient."""
    with torch.no_grad(), arithmetic(pixels.device.type, dtype):
        return encode(pixels).float()


def step(encode: Encode, pixels: Tensor, dtype: str) -> Tensor:
    """An answer, and the gradients of what is trained."""
    with arithmetic(pixels.device.type, dtype):
        out = encode(pixels)
    out.float().square().mean().backward()
    return out.detach().float()


def seconds(call: Callable[[], object], device: str) -> float:
    """CPU seconds on the CPU; elsewhere the device's, from first to last."""
    if device == "cpu":
        start = time.process_time()
        call()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int, device: str) -> Times:
    """Seconds of each call, which take turns, every second round in the reverse order."""
    times: Times = {name: [] for name in calls}
    for i in range(rounds):
        for name in list(calls)[:: 1 if i % 2 == 0 else -1]:
            times[name].append(seconds(calls[name], device))
    return times


def spread(values: list[float]) -> str:
    """The median, with least and most."""
    return f"{statistics.median(values):.3g} s ({min(values):.3g} to {max(values):.3g})"


class Storages(TorchDispatchMode):
    """Remembers the storages that operations made, without holding them."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Runs an operation, and looks at its results."""
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in _tensors((args, kwargs))}
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if storage._cdata not in given:  # a view of a weight makes nothing
                reference = StorageWeakRef(storage)
                self.made[reference.cdata] = (reference, storage.nbytes())
        return out

    @property
    def alive(self) -> int:
        """Bytes of those that something still holds."""
        return sum(size for reference, size in self.made.values() if not reference.expired())


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def kept_bytes(encode: Encode, pixels: Tensor, dtype: str) -> int:
    """Bytes that a forward pass leaves for the backward pass, whoever holds them.

    Unlike the hooks of saved tensors, this also counts what functions hold on their own; not what
    is stored once and for all, such as weights in half precision.
    """
    with Storages() as storages, arithmetic(pixels.device.type, dtype):
        out = encode(pixels)
    alive = storages.alive
    del out
    return alive


def peak_gigabytes(device: str) -> float:
    """The most memory so far: the device's, or the process's."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return torch.cuda.max_memory_allocated() / 1e9
