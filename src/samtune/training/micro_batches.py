"""The gradient of a step of the optimiser, in parts that the memory holds."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from samtune.batch import Batch
from samtune.distributed import place
from samtune.training.faults import is_out_of_memory
from samtune.training.order import stream_seed
from samtune.training.schedule import FitConfig
from samtune.training.stepping import exact

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Shares:
    """The weights of a micro-batch in the loss of its batch, so that they add up to that loss."""

    images: float = 1.0
    """Its fraction of the images."""
    rehearsed: float = 1.0
    """Its fraction of the prompts of the rehearsal."""


def micro_batches(batch: Batch, at_once: int) -> Iterator[tuple[Batch, Shares]]:
    """Splits a batch; each part comes with its weights.

    Args:
        batch: The batch as the loader gives it.
        at_once: The most images in a part; the last one may have fewer.
    """
    images = len(batch.pixels)
    if images <= at_once:
        yield batch, Shares()
        return
    asked = 0 if batch.rehearsal is None else len(batch.rehearsal.prompts)
    for start in range(0, images, at_once):
        part = batch.of_images(range(start, min(start + at_once, images)))
        here = 0 if part.rehearsal is None else len(part.rehearsal.prompts)
        yield part, Shares(len(part.pixels) / images, here / max(1, asked))


class Gradients:
    """Adds up the gradient of one step over its batches, each in micro-batches.

    If memory runs out, micro-batches are halved and the step begins anew, so that its numbers are
    those of a training that had the smaller ones from the start. Among several processes this is
    left to the user: one that begins anew would keep the others waiting.

    Args:
        wrapped: The model and its loss, see :class:`samtune.training.objective.Objective`.
        accelerator: The accelerator of the training.
        config: How training goes.
        seed: The seed of the training.
        restore: Puts back what a step that broke off did to the model besides gradients.
        on_halved: Called with the new number of images at once.
    """

    def __init__(
        self,
        wrapped: nn.Module,
        accelerator: Accelerator,
        config: FitConfig,
        seed: int,
        restore: Callable[[], object],
        on_halved: Callable[[int], object],
    ) -> None:
        self.wrapped, self.accelerator, self.config, self.seed = wrapped, accelerator, config, seed
        self.restore, self.on_halved = restore, on_halved
        self.at_once = config.at_once

    def of_step(self, step: int, stream: Iterator[Batch]) -> list[Tensor]:
        """Leaves the gradient of a step in the parameters; returns the loss of each batch.

        The losses are scalars on the device, which nothing has waited for.

        Args:
            step: Steps that are done.
            stream: Gives the batches.
        """
        batches: list[Batch] = []  # to go through them again if memory runs out
        count = self.accelerator.step
        while True:
            try:
                losses = []
                for part in range(self.config.accumulate):
                    if part == len(batches):
                        batches.append(next(stream))
                    losses.append(self._of_batch(step, part, batches[part]))
                return losses
            except (RuntimeError, MemoryError, OSError) as error:
                if self.at_once == 1 or place()[1] > 1 or not is_out_of_memory(error):
                    raise
            # Outside of the handler, because the error holds on to what fills the memory.
            self.accelerator.step = count
            self._halve()

    def _of_batch(self, step: int, part: int, batch: Batch) -> Tensor:
        """Adds the gradient of one batch, the ``part``-th of a step; returns its loss."""
        total = torch.zeros(())
        with self.accelerator.accumulate(self.wrapped):
            parts = list(micro_batches(batch, self.at_once))
            for i, (images, shares) in enumerate(parts):
                last = i == len(parts) - 1
                # Dropout depends on the step alone: a resumed training draws what it would have.
                words = (self.seed, step, part, place()[0], *([i] if i else []))
                torch.manual_seed(stream_seed(*words))
                with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                    loss = self.wrapped(images.to(self.accelerator.device), shares)
                    self.accelerator.backward(loss)
                total = exact(loss) + total.to(loss.device)
        return total

    def _halve(self) -> None:
        self.wrapped.zero_grad()
        self.restore()
        gc.collect()
        if self.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()
        self.at_once = (min(self.at_once, self.config.whole_batch) + 1) // 2
        self.on_halved(self.at_once)


def event_of_halving(step: int, at_once: int) -> dict[str, Any]:
    """The row of a log about memory that ran out."""
    return {
        "event": "memory",
        "step": step,
        "micro_batch": at_once,
        "warning": f"note: memory ran out; the step begins anew with {at_once} "
        f"image{'' if at_once == 1 else 's'} at once, added up to the same batch; "
        f"train.micro_batch={at_once} does so from the start",
    }
