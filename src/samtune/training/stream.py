"""The batches of a training, one epoch after another."""

from __future__ import annotations

from collections.abc import Iterator

from samtune.batch import Batch
from samtune.data import SegmentationDataset
from samtune.data.loading import batches
from samtune.data.pace import Pace
from samtune.distributed import place
from samtune.training.order import batches_per_epoch, epoch_order
from samtune.training.schedule import FitConfig


def batches_from(
    train: SegmentationDataset, config: FitConfig, seed: int, step: int
) -> Iterator[Batch]:
    """Yields this process's batches endlessly; each epoch has its own seeded order.

    Args:
        train: The images.
        config: The settings, for the sizes of batches and epochs.
        seed: Seed of the order.
        step: Steps of the optimiser that are done.
    """
    c, (rank, world) = config, place()
    in_epoch = batches_per_epoch(len(train), c.whole_batch, world, c.epoch_fraction, c.last_batch)
    done, pace = step * c.accumulate, Pace()
    while True:
        epoch, skip = divmod(done, in_epoch)
        train.set_epoch(epoch)
        how = rank, world, c.epoch_fraction, c.last_batch
        order = epoch_order(len(train), c.whole_batch, seed, epoch, *how)
        workers = train.data.workers
        for batch in batches(train, workers, pace, batch_sampler=order[skip:]):
            done += 1
            yield batch
