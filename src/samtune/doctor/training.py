"""Two steps of a training on the base and the images that ship with samtune."""

from __future__ import annotations

import math
import time
from itertools import islice

from samtune.assets import demo_data
from samtune.data.opening import open_data
from samtune.data.split import Split
from samtune.model.finetuned import FineTuned
from samtune.sam.weights import load_sam
from samtune.training.engine import fit
from samtune.training.schedule import FitConfig

IMAGES = 2


def train_two_steps() -> str:
    """Trains, on the device that ``device=auto`` takes; returns a line about it.

    Raises:
        RuntimeError: The loss is not finite.
    """
    start, losses = time.perf_counter(), []
    data = open_data(demo_data(), masks="instance", augment="none")
    few = Split(tuple(islice(data.train.records, IMAGES)), data.train.config, "train")
    model = FineTuned(load_sam("nano"), "lora", "tuned", input={"size": 128})
    config = FitConfig(max_steps=2, batch_size=IMAGES, keep="none", log_every=1)
    fit(model, few, config=config, on_step=lambda state: losses.append(state.loss))
    if not all(map(math.isfinite, losses)):
        raise RuntimeError(f"the loss is {losses[-1]}")
    seconds = time.perf_counter() - start
    return f"two steps of lora on nano, loss {losses[0]:.3f} to {losses[-1]:.3f}, {seconds:.1f} s"
