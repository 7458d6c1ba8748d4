"""Checks of this machine and installation, each with its finding and what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F

from samtune.precision import arithmetic

State = Literal["well", "remark", "fault"]
"""How a finding is: as it should be; worth knowing; or something that samtune needs fails."""
GIGA = 2**30
SHARED = GIGA
"""Bytes of shared memory that several loading processes need at the usual frame of 1024 pixels."""
FILES = 1024
"""Open files that loading processes and their pipes may take."""
SIDE = 512
"""Rows and columns of the matrices that are multiplied for the rate of a precision."""
PURPOSES = {
    "cvat": "models for CVAT",
    "datasets": "data sets of the hub",
    "dicom-seg": "DICOM SEG",
    "geo": "rasters with coordinates",
    "hdf5": "HDF5 volumes",
    "hf": "weights of the hub",
    "instances": "instances by watershed",
    "medical": "NIfTI and DICOM",
    "metrics": "metrics of SciPy",
    "onnx": "export as ONNX",
    "peft": "export for PEFT",
    "ray": "comparisons on several machines",
}
"""The purpose of each extra of samtune."""
NO_EXTRA = ("all", "dev")
"""Names that stand for several extras."""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    state: State
    text: str
    remedy: str = ""
    """The thing to do, unless all is well."""


def findings(training: Callable[[], str]) -> Iterator[Finding]:
    """The findings, one after another.

    Args:
        training: Trains for two steps; returns a line about it.
    """
    yield from (versions(), device(), kernels(), rates(), compiler(), launcher())
    yield from (shared_memory(), open_files())
    yield folder("output", Path.cwd())
    cache = Path(os.environ.get("HF_HOME", Path.home() / ".cache"))
    yield folder("cache", cache if cache.exists() else cache.parent)
    yield extras()
    yield self_test(training)


def versions() -> Finding:
    """Versions of Python, samtune and the packages that it computes with."""
    names = ("samtune", "torch", "numpy", "accelerate")
    told = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return Finding("versions", "well", f"Python {platform.python_version()}, {told}")


def device() -> Finding:
    """The device that ``device=auto`` takes."""
    if torch.cuda.is_available():
        each = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        text = ", ".join(f"{one.name} ({one.total_memory / GIGA:.0f} GB)" for one in each)
        return Finding("device", "well", text)
    if torch.backends.mps.is_available():
        return Finding("device", "well", "mps, the GPU of this Mac")
    cores = f"cpu, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if shutil.which("nvidia-smi"):
        return Finding(
            "device", "remark", f"{cores}; this torch cannot use the GPU of NVIDIA",
            "install a build of torch with CUDA, see pytorch.org",
        )  # fmt: skip
    return Finding("device", "well", f"{cores}; no GPU")


def _place() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def kernels() -> Finding:
    """The attention kernels that run forward and backward on the device."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kinds = {
        "math": SDPBackend.MATH, "flash": SDPBackend.FLASH_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
    }  # fmt: skip
    dtype = torch.bfloat16 if _place().type == "cuda" else torch.float32
    runs = []
    for name, kind in kinds.items():
        q, k, v = (torch.randn(1, 2, 64, 64, device=_place(), dtype=dtype) for _ in range(3))
        try:
            with sdpa_kernel(kind):
                F.scaled_dot_product_attention(q.requires_grad_(), k, v).sum().backward()
        except RuntimeError:
            continue
        runs.append(name)
    if "math" not in runs:
        return Finding("attention", "fault", "no kernel runs", "install torch again")
    return Finding("attention", "well", f"{', '.join(runs)} run")


def rates() -> Finding:
    """The rate of multiplications in fp32 and bf16, and the precision of ``auto``."""
    chosen = arithmetic("auto", _place())
    fp32, bf16 = _rate(torch.float32), _rate(torch.bfloat16)
    if not bf16:
        return Finding("precision", "remark", "bf16 does not run", "set train.precision=fp32")
    text = f"auto is {chosen}; bf16 multiplies {bf16 / fp32:.2g} times as fast as fp32"
    if chosen == "bf16" and bf16 < 0.8 * fp32:
        return Finding(
            "precision", "remark", text, "set train.precision=fp32, which is faster here"
        )
    return Finding("precision", "well", text)


def _rate(dtype: torch.dtype) -> float:
    """Multiplications per second; 0 if they fail."""
    try:
        a = torch.randn(SIDE, SIDE, device=_place()).to(dtype)
        a @ a
        start = time.perf_counter()
        for _ in range(4):
            b = a @ a
        float(b[0, 0])  # waits for the device
    except RuntimeError:
        return 0.0
    return 4 * SIDE**3 / max(1e-9, time.perf_counter() - start)


def compiler() -> Finding:
    """The compiler that ``torch.compile`` needs."""
    if torch.cuda.is_available():
        there = importlib.util.find_spec("triton") is not None
        what, remedy = "triton", "pip install triton, for train.compile"
    else:
        name = next(
            (n for n in (os.environ.get("CXX", "g++"), "clang++", "cl") if shutil.which(n)), ""
        )
        there, what, remedy = bool(name), name or "a C++ compiler", "install g++, for train.compile"
    if there:
        return Finding("compile", "well", f"{what} is there for torch.compile")
    return Finding("compile", "remark", f"{what} is missing, so nothing can be compiled", remedy)


def launcher() -> Finding:
    """The launchers of several processes."""
    beside = Path(sys.executable).parent
    there = [n for n in ("torchrun", "accelerate") if shutil.which(n) or (beside / n).exists()]
    if not torch.distributed.is_available():
        return Finding(
            "launcher", "remark", "this torch has no distributed part", "use one process only"
        )
    return Finding(
        "launcher", "well", f"{' and '.join(there) or 'python -m torch.distributed.run'}"
    )


def shared_memory() -> Finding:
    """The shared memory, through which loading processes hand over images."""
    place = Path("/dev/shm")
    if not place.is_dir():
        return Finding("shared", "well", "no limit of its own on this system")
    size = shutil.disk_usage(place).total
    text = f"{size / GIGA:.2g} GB in /dev/shm"
    if size < SHARED:
        remedy = "docker run --shm-size=4g, or data.workers=0"
        return Finding("shared", "remark", f"{text} are few for data.workers", remedy)
    return Finding("shared", "well", text)


def open_files() -> Finding:
    """The limit on open files."""
    try:
        import resource
    except ImportError:  # Windows
        return Finding("files", "well", "no limit is known")
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    unlimited = soft == resource.RLIM_INFINITY
    text = "no limit on open files" if unlimited else f"{soft} files may be open"
    if not unlimited and soft < FILES:
        return Finding("files", "remark", text, f"ulimit -n {4 * FILES}, if data.workers are used")
    return Finding("files", "well", text)


def folder(name: str, place: Path) -> Finding:
    """Whether a folder can be written, and how much space is left.

    Args:
        name: Its purpose.
        place: The folder.
    """
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"samtune")
    except OSError as error:
        remedy = "work in another folder" if name == "output" else "set HF_HOME to another folder"
        state: State = "fault" if name == "output" else "remark"
        return Finding(name, state, f"{place} cannot be written ({error.strerror})", remedy)
    free = shutil.disk_usage(place).free / GIGA
    text = f"{place} can be written, {free:.3g} GB are free"
    return (
        Finding(name, "well", text)
        if free > 1
        else Finding(name, "remark", text, "free some space")
    )


def extras() -> Finding:
    """The optional packages that are installed, and the purpose of those that are not."""
    there, lacking = [], []
    for extra, packages in packages_of_extras().items():
        if all(_is_installed(package) for package in packages):
            there.append(extra)
        else:
            lacking.append(f"{extra} ({PURPOSES.get(extra, 'a plug-in')})")
    text = ", ".join(there) or "none"
    if not lacking:
        return Finding("extras", "well", f"all are installed: {text}")
    remedy = "pip install 'samtune[NAME]' for what you need"
    return Finding("extras", "remark", f"{text}; without {', '.join(lacking)}", remedy)


def packages_of_extras() -> dict[str, list[str]]:
    """The packages of each extra, as the installed samtune declares them."""
    packages: dict[str, list[str]] = {}
    for line in importlib.metadata.requires("samtune") or []:
        name, _, condition = line.partition(";")
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", condition)
        package = re.match(r"[\w.-]+", name.strip())
        if extra and package and extra[1] not in NO_EXTRA:
            packages.setdefault(extra[1], []).append(package[0])
    return packages


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def self_test(training: Callable[[], str]) -> Finding:
    """A training of two steps.

    Args:
        training: Trains; returns a line about it.
    """
    try:
        return Finding("training", "well", training())
    except Exception as error:  # whatever it is, it would stop a user's training too
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Finding(
            "training", "fault", f"two steps failed: {text}", "report it with this page's output"
        )


def with_home_short(finding: Finding) -> Finding:
    """A finding in which the user's home is ``~``."""
    return replace(finding, text=finding.text.replace(str(Path.home()), "~"))
