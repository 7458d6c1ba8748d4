"""``train.cosine=kyyle``: the schedule of Kyyle2114's Fine-tuning-Segment-Anything.

Its scheduler is built for as many steps as an epoch has batches, but is stepped once per epoch.
"""

from __future__ import annotations

from samtune.training.schedule import COSINES, Cosine, FitConfig, epoch_of


@COSINES.register("kyyle")
class CosineOfBatches(Cosine):
    """The rate falls after each epoch; the cosine is as many epochs long as an epoch has batches.

    This is what the published code does. If there are more epochs than batches it passes its
    lowest point and rises again.
    """

    @staticmethod
    def along(config: FitConfig, step: int, total: int, batches: int) -> float:
        """The number of epochs for each batch of one."""
        return epoch_of(config, step, batches) / batches
