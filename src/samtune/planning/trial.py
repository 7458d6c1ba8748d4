"""Two timed steps of a training, in a process of its own: ``python -m samtune.planning.trial``.

Such a process starts with nothing in its memory, as a training does, and if the system ends it for
taking too much, nothing else ends. It trains on drawn squares, with a base without its weights:
time and memory do not depend on values.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from samtune.data.from_python import data_from
from samtune.planning.load import Load
from samtune.runs.assembly import device_of
from samtune.runs.config import resolve
from samtune.training.callbacks import CallbackState
from samtune.training.engine import fit
from samtune.training.memory import count_peak_anew, peak_memory

SIDE = 8
"""Pixels of a drawn object."""


@dataclass(frozen=True)
class Trial:
    """One step as it was measured."""

    images: int
    """Images at once."""
    seconds: float
    """Wall-clock time of the step."""
    cpu_seconds: float
    """Time of all processors in it."""
    peak: int
    """The most bytes, besides those of the program before the model was built."""


def run_trials(load: Load, images: tuple[int, ...], steps: int = 2) -> list[Trial]:
    """Trains for a few steps with each number of images at once, and measures the last step.

    Args:
        load: The configuration, whose data are not read.
        images: Numbers of images at once, one training each.
        steps: Steps of each training; the first ones warm up.

    Returns:
        As many as there was memory for.
    """
    job = {"config": load.config.tree(), "objects": load.objects, "steps": steps}
    command = [sys.executable, "-m", "samtune.planning.trial"]
    text = json.dumps({**job, "images": images})
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    rows = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return [Trial(**json.loads(row)) for row in rows]


def main() -> None:
    """Reads a job from standard input, and prints a line for each measured step."""
    job = json.load(sys.stdin)
    load = Load(resolve([job["config"]]), job["objects"])
    device = torch.device(device_of(load.config))
    torch.zeros(1, device=device)
    count_peak_anew()
    before = _memory_now(device)
    torch.manual_seed(0)
    model = load.model().to(device)
    for images in job["images"]:
        seen = _measure(load, model, images, job["steps"], device)
        row = Trial(images, *seen[:2], int(seen[2]) - before)
        print(json.dumps(asdict(row)), flush=True)


def _measure(
    load: Load, model: Any, images: int, steps: int, device: torch.device
) -> tuple[float, float, int]:
    """Seconds, seconds of all processors, and the peak, of the last step of a training."""
    data = _squares(load, images)
    config = replace(
        load.config.train, max_steps=steps, epochs=None, time=None, batch_size=images,
        micro_batch=None, accumulate=1, keep=load.keep_setting(), trackers=(), patience=None,
        feature_cache=0, save_every=1e6,
    )  # fmt: skip
    marks: list[tuple[float, float]] = []
    peak = 0

    def mark(state: CallbackState) -> None:
        nonlocal peak
        peak = peak_memory(device)
        _count_anew(device)
        marks.append((time.perf_counter(), time.process_time()))

    fit(model, data.train, config=config, on_step=mark, device=device)
    (wall, cpu), (wall_after, cpu_after) = marks[-2:]
    return wall_after - wall, cpu_after - cpu, peak


def _squares(load: Load, images: int) -> Any:
    """Images of noise in the model's frame with squares as objects."""
    height, width = load.frame
    random = np.random.default_rng(0)
    pixels = [random.integers(0, 255, (height, width, 3), dtype=np.uint8) for _ in range(images)]
    map_of = np.zeros((height, width), np.uint8)
    across = max(1, width // (2 * SIDE))
    for number in range(load.objects):
        row, column = (2 * SIDE * place for place in divmod(number, across))
        map_of[row : row + SIDE, column : column + SIDE] = number + 1
    data = load.config.data
    settings: dict[str, Any] = {"masks": "instance"}
    if load.has_maps:
        settings = {"masks": "classes", "classes": data.classes}
        map_of = map_of.clip(max=(data.classes or 1) - 1)
    settings |= {"augment": "none", "crop": data.crop, "workers": 0}
    masks = [map_of] * images
    return data_from((pixels, masks), (pixels[:1], masks[:1]), **settings)


def _memory_now(device: torch.device) -> int:
    """Bytes in use."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return peak_memory(device)
    import resource

    return int(statm.read_text("ascii").split()[1]) * resource.getpagesize()


def _count_anew(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    count_peak_anew()


if __name__ == "__main__":
    main()
