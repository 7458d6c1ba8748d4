"""The samples of a data set, read once as long as there is room in memory and on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from samtune.data.changes import changes_images
from samtune.data.config import DataConfig
from samtune.data.draws import DRAWS, Draws
from samtune.data.labels import Labels, Sample, read_sample
from samtune.data.record import Record
from samtune.data.sample_store import StoredSample, store_of
from samtune.data.transforms import fit
from samtune.geometry import InputPolicy
from samtune.options import as_yaml


class SampleCache:
    """Samples by the index of their record; data sets of the same files share one.

    In memory the first samples stay. On disk lie the images as they are read, or, if nothing
    changes them before that, as they are in the model's frame, which is smaller by far than a
    photograph of many megapixels.

    Args:
        records: The files.
        data: How they are read, and the room.

    Raises:
        InputError: The disk does not have the room that the settings name.
    """

    def __init__(self, records: Sequence[Record], data: DataConfig) -> None:
        self.records, self.data = records, data
        self.store = store_of(data)
        self.nbytes = 0
        """Bytes of the samples in memory."""
        self._whole: dict[int, Sample] = {}
        self._in_frame: dict[tuple[int, InputPolicy], StoredSample] = {}

    def store_in(self, folder: Path) -> None:
        """Stores samples on disk too, if the settings say so and name no other folder.

        Args:
            folder: The folder.

        Raises:
            InputError: The disk does not have the room.
        """
        if self.store is None:
            self.store = store_of(self.data, folder)

    def stores_fitted(self, policy: InputPolicy, train: bool) -> bool:
        """Whether images are stored as they are in the frame: nothing changes them before.

        Args:
            policy: How images are cut.
            train: Whether for training.
        """
        if self.store is None or policy.tiles != "whole":
            return False
        as_usual = DRAWS[as_yaml(self.data.redraw)].change is Draws.change
        return not train or (as_usual and not changes_images(self.data))

    def image_of(
        self, index: int, policy: InputPolicy, train: bool
    ) -> tuple[NDArray[np.uint8], Labels, Tensor | None]:
        """An image ``(h, w, 3)`` and its objects, and perhaps its pixels in the model's frame.

        With these, only the size of the image is the true one.

        Args:
            index: The index of its record.
            policy: How the image is read and enters the frame.
            train: Whether for training.

        Raises:
            InputError: See :meth:`whole`.
        """
        if not self.stores_fitted(policy, train):
            sample = self.whole(index, policy)
            return sample.image, sample.labels, None
        entry = self.in_frame(index, policy)
        nothing = np.broadcast_to(np.uint8(0), (*entry.labels.map.shape, 3))
        return nothing, entry.labels, entry.image

    def whole(self, index: int, policy: InputPolicy) -> Sample:
        """A sample with its image as it is read.

        Args:
            index: The index of its record.
            policy: How the image is read.

        Raises:
            InputError: A file is broken, or mask values violate the rules.
        """
        if index in self._whole:
            return self._whole[index]
        record = self.records[index]
        key = None if self.store is None else self.store.key(record, policy, fitted=False)
        entry = self.store.get(key) if self.store and key else None
        if entry is not None:
            sample = Sample(entry.image.numpy(), entry.labels, record.name)
        else:
            sample = read_sample(record, self.data, policy)
            if self.store and key:
                image = torch.from_numpy(sample.image.copy())  # torch warns of what is read-only
                self.store.put(key, StoredSample(image, sample.labels))
        if self._has_room_for(sample.nbytes):
            self._whole[index] = sample
        return sample

    def in_frame(self, index: int, policy: InputPolicy) -> StoredSample:
        """A sample with its image in the model's frame.

        Args:
            index: The index of its record.
            policy: How the image is read and enters the frame.

        Raises:
            InputError: See :meth:`whole`.
        """
        if (index, policy) in self._in_frame:
            return self._in_frame[index, policy]
        record = self.records[index]
        key = None if self.store is None else self.store.key(record, policy, fitted=True)
        entry = self.store.get(key) if self.store and key else None
        if entry is None:
            sample = self._whole.get(index) or read_sample(record, self.data, policy)
            entry = StoredSample(fit(sample.image, policy)[0], sample.labels)
            if self.store and key:
                self.store.put(key, entry)
        if self._has_room_for(entry.nbytes):
            self._in_frame[index, policy] = entry
        return entry

    def count_left_out(self, policy: InputPolicy, train: bool) -> int:
        """Number of samples that could be on disk and are not.

        Args:
            policy: How images are read and enter the frame.
            train: Whether for training.
        """
        if self.store is None:
            return 0
        fitted = self.stores_fitted(policy, train)
        keys = [self.store.key(record, policy, fitted) for record in self.records]
        return sum(key is not None and not self.store.has(key) for key in keys)

    def _has_room_for(self, size: int) -> bool:
        """Whether a sample fits into memory too, whose room it then takes."""
        worker = get_worker_info()
        room = self.data.cache // (worker.num_workers if worker else 1)
        if self.nbytes + size > room:
            return False
        self.nbytes += size
        return True
