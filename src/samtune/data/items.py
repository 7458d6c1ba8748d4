"""Samples that Python code gives, image by image: arrays, tensors and pictures of Pillow."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samtune.data.problems import DataError, remark_invisible
from samtune.data.stored import Stored
from samtune.errors import InputError

MOST_CHANNELS = 4
"""Largest length of an axis that may be the channels."""
TOLERANCE = 0.01
"""Distance by which floats may lie outside of 0..1, as interpolation leaves them."""
BYTES = 255
_WAITING = 16
"""Samples of which one half was read and the other was not, at most."""
Keys = tuple[str, str] | None
"""The keys of image and mask in samples that are dictionaries; ``None`` for the usual ones."""


class Parts(NamedTuple):
    """The two halves of a sample, as its code gives them."""

    image: Any
    mask: Any
    labels: Any = None
    """The classes of a stack of masks."""


class Items:
    """A sequence of samples that Python code gives: a data set of torch, a list, or the like.

    Image and mask of a sample come from one call, since code may change both at random. One thread
    at a time calls it.

    Args:
        samples: With ``len()`` and ``[]``; each is ``(image, mask)`` or a dictionary.
        keys: See :data:`Keys`.
        limits: The values of images that are black and white; ``None`` as :func:`image_of` says.
        maps: Refuse stacks of masks, whose values would be read as classes.
    """

    def __init__(
        self,
        samples: Any,
        keys: Keys = None,
        limits: tuple[float, float] | None = None,
        maps: bool = False,
    ) -> None:
        self.samples, self.keys, self.limits, self.maps = samples, keys, limits, maps
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self.classes: dict[int, tuple[int, ...] | None] = {}
        """The classes of the stacks that were read, by the samples' indices."""
        self._waiting: OrderedDict[int, Parts] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        names = ("samples", "keys", "limits", "maps")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def parts(self, index: int, of: str) -> Parts:
        """The parts of a sample; its mask is of the call that the image was last read by.

        Args:
            index: In the sequence.
            of: ``image`` or ``mask``, which of them is read.

        Raises:
            ValueError: It is no sample of a known form.
        """
        with self._lock:
            if of == "mask" and index in self._waiting:
                return self._waiting.pop(index)
            parts = parts_of(self.samples[index], self.keys)
            if of == "image":
                self._waiting[index] = parts
                if len(self._waiting) > _WAITING:
                    self._waiting.popitem(last=False)
            return parts


@dataclass(frozen=True)
class _ItemHalf(Stored):
    """A half of a sample; its ``path`` is what messages call the sample, as ``train[3]``."""

    items: Items
    index: int
    half: ClassVar[str]
    lies_in_files = False

    def _parts(self) -> Parts:
        return self.items.parts(self.index, self.half)


def check_limits(limits: Any) -> None:
    """Refuses what are not the low and the high value of images.

    Raises:
        InputError: With the rule.
    """
    pair = tuple(limits) if isinstance(limits, Sequence) and not isinstance(limits, str) else ()
    numbers = [one for one in pair if isinstance(one, int | float)]
    if limits is not None and not (len(pair) == len(numbers) == 2 and numbers[0] < numbers[1]):
        raise InputError(f"limits={limits!r}: must be the low and the high value, as in (0, 255)")


def check_keys(keys: Any) -> None:
    """Refuses what are not the two keys of image and mask.

    Raises:
        InputError: With the rule.
    """
    is_pair = isinstance(keys, Sequence) and not isinstance(keys, str) and len(keys) == 2
    if keys is not None and not is_pair:
        raise InputError(f"keys={keys!r}: must be those of image and mask, as ('image', 'mask')")


@dataclass(frozen=True)
class ItemImage(_ItemHalf):
    """The image of a sample."""

    half = "image"

    def read(self) -> NDArray:
        """``(h, w, channels)``, see :func:`image_of`."""
        return image_of(self._parts().image, self.items.limits, self.path)


@dataclass(frozen=True)
class ItemMask(_ItemHalf):
    """The mask of a sample."""

    half = "mask"

    def read(self) -> NDArray:
        """``(h, w)`` numbers, see :func:`mask_of`."""
        parts = self._parts()
        if self.items.maps and is_stack(parts):
            raise DataError(
                self.path,
                "stack of masks",
                "has one mask per object, but masks=classes needs the class of each pixel",
                "give a map (h, w), as stack.argmax(0) of one mask per class",
            )
        size = channels_last(parts.image, self.path).shape[:2]
        values, classes = mask_of(parts, (size[0], size[1]), self.path)
        self.items.classes[self.index] = classes
        return values

    def object_classes(self) -> tuple[int, ...] | None:
        """The classes of the stack that was read last, if it says any."""
        return self.items.classes.get(self.index)


def parts_of(sample: Any, keys: Keys = None) -> Parts:
    """The image and the mask of a sample.

    Args:
        sample: ``(image, mask)``; ``(image, target)`` whose target is a dictionary with ``masks``
            and ``labels``, as torchvision's detectors take it; or a dictionary with ``image`` and
            ``mask``, or ``masks`` and ``labels``.
        keys: Other keys of image and mask.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(sample, Mapping):
        image, mask = keys or ("image", "masks" if "masks" in sample else "mask")
        for key in (image, mask):
            if key not in sample:
                has = ", ".join(map(str, sample))
                raise ValueError(f"has no {key!r}, but {has}; say keys=(IMAGE, MASK) of these")
        return Parts(sample[image], sample[mask], sample.get("labels") if mask == "masks" else None)
    if not isinstance(sample, Sequence) or len(sample) != 2:
        what = f"{len(sample)} values" if isinstance(sample, Sequence) else type(sample).__name__
        raise ValueError(f"is {what}; give (image, mask), or a dictionary of image and mask")
    image, mask = sample
    if isinstance(mask, Mapping):
        if "masks" not in mask:
            raise ValueError(
                f"has a target with {', '.join(map(str, mask))}; give it masks of shape (n, h, w)"
            )
        return Parts(image, mask["masks"], mask.get("labels"))
    return Parts(image, mask)


def image_of(value: Any, limits: tuple[float, float] | None, path: Path) -> NDArray:
    """An image as ``(h, w, channels)`` uint8, bool, or deeper whole numbers as they are.

    Floats lie in 0..1. Bytes stay; deeper whole numbers are scaled as those of files are. Limits
    say it for all kinds: the low value becomes 0 and the high one 255.

    Raises:
        DataError: No image, or floats that lie elsewhere.
    """
    values = channels_last(value, path)
    is_float = np.issubdtype(values.dtype, np.inexact)
    if is_float and not np.isfinite(values).all():
        raise DataError(path, "no numbers", "the image holds NaN or infinity", "replace them")
    if limits is None and not is_float:
        return values
    low, high = limits or (0.0, 1.0)
    scaled = (values.astype(np.float64) - low) / (high - low)
    if limits is None and not (-TOLERANCE <= scaled.min() and scaled.max() <= 1 + TOLERANCE):
        raise DataError(
            path,
            "values of floats",
            f"the image has floats from {values.min():.4g} to {values.max():.4g}, but floats are "
            "0 to 1",
            "say which values are black and white, as in limits=(0, 255), and do not normalise: "
            "the model does",
        )
    return (scaled.clip(0, 1) * BYTES + 0.5).astype(np.uint8)


def channels_last(value: Any, path: Path) -> NDArray:
    """An image as ``(h, w, channels)`` with its values as they are.

    Of a tensor ``(c, h, w)`` the channels come first, of an array ``(h, w, c)`` last, unless only
    the other can be.

    Raises:
        DataError: No image.
    """
    array = _array(value, path, "image", colours=True)
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3 or not array.size:
        shape = "x".join(map(str, array.shape))
        raise DataError(
            path, "no image", f"the image has shape {shape}", "give (h, w), (h, w, c) or (c, h, w)"
        )
    first, last = (array.shape[axis] <= MOST_CHANNELS for axis in (0, -1))
    tensor = not isinstance(value, np.ndarray | Image.Image | list)
    ahead = tensor if first == last else first
    return np.moveaxis(array, 0, -1) if ahead else array


def mask_of(
    parts: Parts, size: tuple[int, int], path: Path
) -> tuple[NDArray, tuple[int, ...] | None]:
    """A mask as a map ``(h, w)``; of a stack ``(n, h, w)`` mask ``k`` is ``k + 1``.

    Where masks of a stack overlap, smaller ones lie over larger ones. Those that are empty, or lie
    wholly under others, are remarked.

    Returns:
        The map, and the class of each mask of a stack if the sample says them.

    Raises:
        DataError: No mask of an image of ``size``, or a stack of more than 0 and 1.
    """
    array = _array(parts.mask, path, "mask", colours=False)
    if array.ndim == 3 and array.shape[-1] == 1 and array.shape[:2] == size:
        array = array[..., 0]
    if array.ndim == 3 and len(array) == 1 and not _is_binary(array):
        array = array[0]
    if array.ndim == 2 and parts.labels is None:
        return array, None
    if array.ndim != 3 or array.shape[1:] != size:
        shape, (h, w) = "x".join(map(str, array.shape)), size
        raise DataError(
            path,
            "no mask",
            f"the mask has shape {shape}, and the image {h}x{w} (height, width)",
            "give (h, w), or (n, h, w) of one mask per object",
        )
    if not _is_binary(array):
        raise DataError(
            path,
            "no masks",
            f"a stack of {len(array)} masks holds other values than 0 and 1",
            "give one mask per object, or a map (h, w) of numbers",
        )
    labels = np.zeros(size, np.int32)
    inside = array > 0
    areas = inside.sum((1, 2))
    for k in np.argsort(-areas, kind="stable"):
        labels[inside[k]] = k + 1
    remark_invisible(path, areas, labels)
    return labels, _classes(parts.labels, len(array), path)


def is_stack(parts: Parts) -> bool:
    """Whether the mask of a sample is one mask for each of several objects."""
    shape = tuple(getattr(parts.mask, "shape", ()))
    if parts.labels is not None:
        return True
    return len(shape) == 3 and shape[0] != 1 and shape[-1] != 1


def _is_binary(array: NDArray) -> bool:
    high = array.max(initial=0)
    return bool(high in (0, 1, BYTES) and ((array == 0) | (array == high)).all())


def _classes(labels: Any, count: int, path: Path) -> tuple[int, ...] | None:
    if labels is None:
        return None
    values = tuple(int(value) for value in np.asarray(_on_cpu(labels)).reshape(-1))
    if len(values) != count or min(values, default=0) < 0:
        raise DataError(
            path,
            "labels",
            f"has {count} masks, but labels {list(values[:8])}",
            "give one class per mask, counted from 0",
        )
    return values


def _array(value: Any, path: Path, what: str, colours: bool) -> NDArray:
    if isinstance(value, Image.Image):
        return _pixels(value, colours)
    array = np.asarray(_on_cpu(value))
    if array.dtype != bool and not np.issubdtype(array.dtype, np.number):
        raise DataError(
            path,
            f"no {what}",
            f"the {what} is a {type(value).__name__}",
            "give an array, a tensor or a picture of Pillow",
        )
    return array


def _on_cpu(value: Any) -> Any:
    return value.detach().cpu() if hasattr(value, "detach") else value


def _pixels(picture: Image.Image, colours: bool) -> NDArray:
    """A picture's values as they lie; what EXIF says is left to the code that opened it."""
    if colours and picture.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        picture = picture.convert("RGB")
    return np.asarray(picture)
