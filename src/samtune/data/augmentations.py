"""Random changes of training images with their labels, in the original frame, by name."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from samtune.data.labels import Labels
from samtune.registry import Registry

DEGREES, SHIFT, ZOOM = 15.0, 0.05, (0.8, 1.25)
"""Ranges of the affine change: rotation, shift as a fraction of the side, scale."""
TONE, GAMMA = 0.2, (0.8, 1.25)
"""Ranges of brightness and contrast around 1, and of gamma."""
_Array = TypeVar("_Array", bound=NDArray[Any])


class Augmentation:
    """A random change of an image ``(h, w, 3)`` uint8 RGB together with its labels.

    It draws from torch's generator, which :func:`augment` seeds, and keeps the number of objects:
    an object that leaves the image stays without a pixel.
    """

    @staticmethod
    def change(image: NDArray[np.uint8], labels: Labels) -> tuple[NDArray[np.uint8], Labels]:
        """The changed image, with its labels changed in the same way."""
        raise NotImplementedError


AUGMENTATIONS: Registry[Augmentation] = Registry(
    "augmentation", "data.augment", "samtune.published"
)
"""The values of ``data.augment``."""


def augment(
    image: NDArray[np.uint8], labels: Labels, seed: int, strength: str = "standard"
) -> tuple[NDArray[np.uint8], Labels]:
    """Changes an image and its labels together, in the original frame; the same for the same seed.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        labels: Its labels.
        seed: Seed of all random choices.
        strength: One of :data:`AUGMENTATIONS`.

    Raises:
        InputError: The augmentation is unknown.
    """
    augmentation = AUGMENTATIONS[strength]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return augmentation.change(image, labels)


@AUGMENTATIONS.register("none")
class NoChange(Augmentation):
    """Images stay as they are."""

    @staticmethod
    def change(image: NDArray[np.uint8], labels: Labels) -> tuple[NDArray[np.uint8], Labels]:
        """Returns both unchanged."""
        return image, labels


@AUGMENTATIONS.register("hflip")
class LeftRight(Augmentation):
    """Left and right are swapped with probability 1/2."""

    @staticmethod
    def change(image: NDArray[np.uint8], labels: Labels) -> tuple[NDArray[np.uint8], Labels]:
        """Mirrors in half of the cases."""
        _, mirrored, _, _ = _choices()
        return turn(image, labels, 0, mirrored)


@AUGMENTATIONS.register("mirrors")
class Mirrors(Augmentation):
    """Left and right are swapped, and top and bottom, each with probability 1/2."""

    @staticmethod
    def change(image: NDArray[np.uint8], labels: Labels) -> tuple[NDArray[np.uint8], Labels]:
        """Applies one of the four combinations."""
        turns, mirrored, _, _ = _choices()
        return turn(image, labels, 2 * (turns % 2), mirrored)


@AUGMENTATIONS.register("flips")
class Flips(Augmentation):
    """One of the eight combinations of mirroring and quarter turns, exact.

    Height and width may swap.
    """

    @staticmethod
    def change(image: NDArray[np.uint8], labels: Labels) -> tuple[NDArray[np.uint8], Labels]:
        """Applies one of the eight."""
        turns, mirrored, _, _ = _choices()
        return turn(image, labels, turns, mirrored)


@AUGMENTATIONS.register("standard")
class Standard(Augmentation):
    """Flips, and each with probability 1/2 a change of tone and a small affine change.

    Tone means brightness, contrast and gamma. Areas that an affine change brings in from outside
    are black and ignored.
    """

    @staticmethod
    def change(image: NDArray[np.uint8], labels: Labels) -> tuple[NDArray[np.uint8], Labels]:
        """Turns, changes the tone and warps."""
        turns, mirrored, warped, toned = _choices()
        image, labels = turn(image, labels, turns, mirrored)
        if toned:
            image = _tones()[image]
        return _affine(image, labels) if warped else (image, labels)


def _choices() -> tuple[int, int, int, int]:
    """Random choices: quarter turns 0 to 3; then 0 or 1 for mirrored, warped and toned."""
    turns, mirrored, warped, toned = (torch.rand(4) * torch.tensor([4, 2, 2, 2])).int().tolist()
    return turns, mirrored, warped, toned


def turn(
    image: NDArray[np.uint8], labels: Labels, turns: int, mirrored: bool | int
) -> tuple[NDArray[np.uint8], Labels]:
    """Turns an image and its labels by quarter turns, then swaps left and right or not."""
    valid = None if labels.valid is None else _turned(labels.valid, turns, mirrored)
    moved = Labels(_turned(labels.map, turns, mirrored), labels.classes, valid)
    return _turned(image, turns, mirrored), moved


def _turned(array: _Array, turns: int, mirrored: bool | int) -> _Array:
    array = np.rot90(array, turns)  # type: ignore[assignment]
    return np.ascontiguousarray(array[:, ::-1] if mirrored else array)  # type: ignore[return-value]


def _affine(image: NDArray[np.uint8], labels: Labels) -> tuple[NDArray[np.uint8], Labels]:
    import kornia.augmentation as K

    change = K.AugmentationSequential(
        K.RandomAffine(DEGREES, (SHIFT, SHIFT), ZOOM, p=1.0), data_keys=["input", "mask"]
    )
    valid = np.ones(labels.map.shape, bool) if labels.valid is None else labels.valid
    maps = torch.from_numpy(np.stack([labels.map.astype(np.float32), valid.astype(np.float32)]))
    pixels, maps = change(torch.tensor(image).permute(2, 0, 1)[None].float(), maps[None])
    moved, valid = maps[0].round().numpy()
    image = pixels[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return image, Labels(moved.astype(labels.map.dtype), labels.classes, valid > 0)


def _tones() -> NDArray[np.uint8]:
    """The new value of each of the 256: tone acts on each value alone, so a table is exact."""
    import kornia.augmentation as K

    values = (torch.arange(256) / 255).expand(1, 3, 1, 256)
    values = K.ColorJiggle(TONE, TONE, 0.0, 0.0, p=1.0)(values)
    values = K.RandomGamma(GAMMA, p=1.0)(values)
    return (values[0, 0, 0] * 255).round().byte().numpy()
