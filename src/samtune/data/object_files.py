"""Masks in which each object has its own file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samtune.data.problems import DataError, remark_invisible
from samtune.data.stored import Stored


@dataclass(frozen=True)
class ObjectFiles(Stored):
    """The mask files of one image's objects as one instance map: file ``k`` becomes ``k + 1``.

    Smaller objects cover larger ones; of two with the same area, the later one covers the other.
    """

    files: tuple[Path, ...]
    """One file per object, each with 0 and one other value."""

    def read(self) -> NDArray[np.int32]:
        """``(h, w)``, see the class.

        Raises:
            InputError: A file differs in size from the first, or has several values.
        """
        areas: list[int] = []
        labels = uppermost = np.zeros((0, 0), np.int32)
        for number, file in enumerate(self.files, 1):  # one at a time, for there may be thousands
            mask = _foreground(file)
            if number == 1:
                labels = np.zeros(mask.shape, np.int32)
                uppermost = np.full(mask.shape, mask.size + 1, np.int64)
            elif mask.shape != labels.shape:
                sizes = [f"{side.shape[1]}x{side.shape[0]}" for side in (mask, labels)]
                what = f"the mask is {sizes[0]} pixels but {self.files[0].name} is {sizes[1]}"
                raise DataError(file, "size mismatch", what, "export the masks of the image again")
            area = int(np.count_nonzero(mask))
            over = mask & (uppermost >= area)
            labels[over], uppermost[over] = number, area
            areas.append(area)
        remark_invisible(self.path, areas, labels, [file.name for file in self.files])
        return labels


def _foreground(file: Path) -> NDArray[np.bool_]:
    from samtune.data.labels import clear_threshold
    from samtune.data.reading import is_lossy, read_mask

    values = read_mask(file)
    threshold = clear_threshold(values, is_lossy(file))
    if threshold is None:
        met = np.unique(values)
        if len(met) > 2 or met[0] != 0:
            shown = ", ".join(map(str, met[:4].tolist())) + (", ..." if len(met) > 4 else "")
            raise DataError(
                file,
                "several values",
                f"is one of several masks of its image, one per object, but holds {shown}",
                "save each object as 0 and 255, or all objects in one mask with one value per "
                "object",
            )
        threshold = 0
    return values > threshold
