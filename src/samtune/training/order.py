"""The order of images in a training: seeded epochs, dealt out to processes in batches."""

from __future__ import annotations

import math

import numpy as np
import torch

from samtune.training.last_batch import LAST_BATCHES


def images_per_epoch(images: int, share: float) -> int:
    """Number of training images in an epoch, with ``train.epoch_fraction``."""
    # Rounded first, because in floats 0.07 of 100 is slightly more than 7.
    return max(1, math.ceil(round(images * share, 6)))


def batches_per_epoch(
    images: int, batch_size: int, world: int, share: float = 1.0, last: str = "fill"
) -> int:
    """Batches of one process in an epoch; every process has the same number."""
    mine = math.ceil(images_per_epoch(images, share) / world)
    return LAST_BATCHES[last].batches(mine, batch_size)


def stream_seed(*words: int) -> int:
    """A generator's seed from several numbers, such as a run's seed and an epoch.

    NumPy's ``SeedSequence`` mixes them: its result is specified, the same on every machine and
    release, and close numbers give unrelated streams. The seed has 63 bits, the most that torch
    takes.
    """
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


def epoch_order(
    images: int,
    batch_size: int,
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
    share: float = 1.0,
    last: str = "fill",
) -> list[list[int]]:
    """The batches of one process in one epoch: a seeded order, dealt out evenly.

    With a ``share`` below 1 only the start of the order is dealt, so every epoch draws other
    images, the same for all processes.

    The order is repeated from its start until each process has the number of images that ``last``
    defines. By default all batches are full; they are smaller only if there are too few images for
    one batch per process. It depends on ``seed`` and ``epoch`` through :func:`stream_seed`.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, epoch))
    taken = images_per_epoch(images, share)
    order = torch.randperm(images, generator=generator).tolist()[:taken]
    size = min(batch_size, math.ceil(taken / world))
    batches = batches_per_epoch(taken, batch_size, world, last=last)
    wanted = LAST_BATCHES[last].images_dealt(math.ceil(taken / world), size) * world
    order = (order * math.ceil(wanted / taken))[:wanted]
    mine = order[rank::world]
    return [mine[i : i + size] for i in range(0, batches * size, size)]
