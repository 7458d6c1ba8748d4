"""Formats in which the slices of a volume become one label volume again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samtune.data import Record
from samtune.data.volumes import Slice, shape_of
from samtune.errors import InputError, OutputError
from samtune.inference.formats import Predicted, Task, Trouble, Writer


class VolumeWriter(Writer):
    """A format of label volumes; a volume of which a slice failed is listed, and not written."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._counts: dict[Path, int] = {}

    def check(self, records: Sequence[Record]) -> None:
        """Refuses what the format cannot take, and counts the slices of each volume."""
        for record in records:
            if record.file not in self._counts:  # the slices of a volume share its file
                self.check_one(record)
            self._counts[record.file] = self._counts.get(record.file, 0) + 1

    @abstractmethod
    def check_one(self, record: Record) -> None:
        """Refuses an image of another kind.

        Raises:
            InputError: It is one.
        """

    @abstractmethod
    def write_volume(self, record: Record, volume: NDArray[np.integer], folder: Path) -> None:
        """Writes a volume.

        Args:
            record: One of its slices.
            volume: ``(z, y, x)`` as :func:`samtune.data.volumes.load` has it: 1 where any mask is,
                or the class of each voxel.
            folder: The folder to write to.

        Raises:
            InputError: The format cannot hold it.
        """

    def write(self, results: Iterable[Predicted], folder: Path) -> Iterator[Trouble]:
        """Writes each volume of which all slices are there."""
        for file, group in groupby(results, lambda result: result.record.file):
            slices = [(result, result.labels()) for result in group]
            lost = self._counts[file] - len(slices)
            try:
                if lost:
                    raise InputError(
                        f"{file}: {lost} of its {self._counts[file]} slices failed, so its volume "
                        f"is not written as {self.name}"
                    )
                self.write_volume(slices[0][0].record, _volume(file, slices), folder)
            except OutputError:
                raise
            except InputError as error:
                yield slices[0][0], error


def _volume(
    file: Path, slices: Sequence[tuple[Predicted, NDArray[np.integer]]]
) -> NDArray[np.integer]:
    """``(z, y, x)`` of the labels of all slices; of a file that is one image ``(1, y, x)``."""
    kind = np.result_type(*(labels.dtype for _, labels in slices))
    first = slices[0][0].record.image
    if not isinstance(first, Slice):
        return slices[0][1][None]
    volume = np.zeros(shape_of(file, "image")[:3], kind)
    for result, labels in slices:
        part = result.record.image
        assert isinstance(part, Slice)
        at: list[slice | int] = [slice(None)] * 3
        at[part.axis] = part.index
        volume[tuple(at)] = labels
    return volume
