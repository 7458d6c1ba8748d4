"""Random changes of training images with their labels, in the original frame, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

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
        torch.default_generator.manual_seed(seed)  # the seed of devices costs more than the rest
        return augmentation.change(image, labels)


@dataclass(frozen=True)
class Change:
    """The random choices for one image, in the order in which they are applied."""

    turns: int = 0
    """Quarter turns, counterclockwise."""
    mirrored: int = 0
    """Whether left and right are swapped then."""
    tones: NDArray[np.uint8] | None = None
    """The new value of each of the 256."""
    matrix: Tensor | None = None
    """``(3, 3)`` of the affine change, from pixels of the image to pixels of the warped one."""

    def of(self, image: NDArray[np.uint8], labels: Labels) -> tuple[NDArray[np.uint8], Labels]:
        """Changes an image ``(h, w, 3)`` uint8 together with its labels."""
        if self.turns or self.mirrored:
            image, labels = turn(image, labels, self.turns, self.mirrored)
        if self.tones is not None:
            import cv2

            image = cv2.LUT(image, self.tones)  # type: ignore[assignment]
        if self.matrix is None:
            return image, labels
        grid = _sources(self.matrix, labels.map.shape)
        return _warped(image, grid), _warped_labels(labels, grid)

    def of_labels(self, labels: Labels) -> Labels:
        """Changes the labels of an image alone."""
        labels = _turned_labels(labels, self.turns, self.mirrored)
        if self.matrix is None:
            return labels
        return _warped_labels(labels, _sources(self.matrix, labels.map.shape))

    def of_planes(self, planes: Tensor) -> Tensor:
        """Changes an image ``(3, h, w)`` uint8 alone, on its device."""
        planes = planes.rot90(self.turns, (1, 2)) if self.turns else planes
        planes = planes.flip(2) if self.mirrored else planes
        if self.tones is not None:
            planes = torch.from_numpy(self.tones).to(planes.device)[planes.int()]
        if self.matrix is None:
            return planes
        grid = _sources(self.matrix, tuple(planes.shape[1:])).to(planes.device)
        return F.grid_sample(planes[None].float(), grid, align_corners=False)[0].round_().byte()


class DrawnAugmentation(Augmentation):
    """An augmentation whose choices are drawn before the image is looked at."""

    @staticmethod
    def draw(size: tuple[int, ...]) -> Change:
        """The choices for an image of a height and width."""
        raise NotImplementedError

    @classmethod
    def change(cls, image: NDArray[np.uint8], labels: Labels) -> tuple[NDArray[np.uint8], Labels]:
        """The changed image, with its labels changed in the same way."""
        return cls.draw(labels.map.shape).of(image, labels)


def drawn_change(size: tuple[int, ...], seed: int, strength: str) -> Change:
    """The choices of :func:`augment`, for an augmentation whose choices are drawn before.

    Args:
        size: Height and width of the image.
        seed: Seed of all random choices.
        strength: One of :data:`AUGMENTATIONS` that is a :class:`DrawnAugmentation`.
    """
    augmentation: Any = AUGMENTATIONS[strength]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return augmentation.draw(size)


@AUGMENTATIONS.register("none")
class NoChange(DrawnAugmentation):
    """Images stay as they are."""

    @staticmethod
    def draw(size: tuple[int, ...]) -> Change:
        """Draws nothing."""
        return Change()


@AUGMENTATIONS.register("hflip")
class LeftRight(DrawnAugmentation):
    """Left and right are swapped with probability 1/2."""

    @staticmethod
    def draw(size: tuple[int, ...]) -> Change:
        """Mirrors in half of the cases."""
        _, mirrored, _, _ = _choices()
        return Change(0, mirrored)


@AUGMENTATIONS.register("mirrors")
class Mirrors(DrawnAugmentation):
    """Left and right are swapped, and top and bottom, each with probability 1/2."""

    @staticmethod
    def draw(size: tuple[int, ...]) -> Change:
        """Draws one of the four combinations."""
        turns, mirrored, _, _ = _choices()
        return Change(2 * (turns % 2), mirrored)


@AUGMENTATIONS.register("flips")
class Flips(DrawnAugmentation):
    """One of the eight combinations of mirroring and quarter turns, exact.

    Height and width may swap.
    """

    @staticmethod
    def draw(size: tuple[int, ...]) -> Change:
        """Draws one of the eight."""
        turns, mirrored, _, _ = _choices()
        return Change(turns, mirrored)


@AUGMENTATIONS.register("standard")
class Standard(DrawnAugmentation):
    """Flips, and each with probability 1/2 a change of tone and a small affine change.

    Tone means brightness, contrast and gamma. Areas that an affine change brings in from outside
    are black and ignored.
    """

    @staticmethod
    def draw(size: tuple[int, ...]) -> Change:
        """Draws turns, tones and the affine change of what is turned."""
        turns, mirrored, warped, toned = _choices()
        tones = _tones() if toned else None
        turned = size[::-1] if turns % 2 else size
        return Change(turns, mirrored, tones, _affine(turned) if warped else None)


def _choices() -> tuple[int, int, int, int]:
    """Random choices: quarter turns 0 to 3; then 0 or 1 for mirrored, warped and toned."""
    turns, mirrored, warped, toned = (torch.rand(4) * torch.tensor([4, 2, 2, 2])).int().tolist()
    return turns, mirrored, warped, toned


def turn(
    image: NDArray[np.uint8], labels: Labels, turns: int, mirrored: bool | int
) -> tuple[NDArray[np.uint8], Labels]:
    """Turns an image and its labels by quarter turns, then swaps left and right or not."""
    return _turned(image, turns, mirrored), _turned_labels(labels, turns, mirrored)


def _turned_labels(labels: Labels, turns: int, mirrored: bool | int) -> Labels:
    valid = None if labels.valid is None else _turned(labels.valid, turns, mirrored)
    return Labels(_turned(labels.map, turns, mirrored), labels.classes, valid)


def _turned(array: _Array, turns: int, mirrored: bool | int) -> _Array:
    if array.itemsize > 4:  # OpenCV, several times as fast, has no such whole numbers
        array = np.rot90(array, turns)  # type: ignore[assignment]
        array = array[:, ::-1] if mirrored else array  # type: ignore[assignment]
        return np.ascontiguousarray(array)  # type: ignore[return-value]
    import cv2

    kinds = {1: np.uint8, 2: np.uint16, 4: np.int32}
    moved: Any = array.view(kinds[array.itemsize])  # bool and others as whole numbers
    if turns:
        ways = cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE
        moved = cv2.rotate(moved, ways[turns - 1])
    moved = cv2.flip(moved, 1) if mirrored else moved
    return np.ascontiguousarray(moved).view(array.dtype)  # type: ignore[return-value]


def _affine(size: tuple[int, ...]) -> Tensor:
    """Draws the matrix ``(3, 3)`` of an affine change of images of a size."""
    import kornia.augmentation as K

    change = K.RandomAffine(DEGREES, (SHIFT, SHIFT), ZOOM, p=1.0)
    shaped = torch.empty(1, 3, *size)
    drawn = change.forward_parameters(shaped.shape)
    return change.compute_transformation(shaped, drawn, change.flags)[0]


def _warped(image: NDArray[np.uint8], grid: Tensor) -> NDArray[np.uint8]:
    """The image whose pixels are taken at the places of a grid, black outside."""
    import cv2

    pixels = torch.empty(1, 3, *image.shape[:2])
    for plane, channel in zip(pixels[0], cv2.split(image), strict=True):
        plane.copy_(torch.from_numpy(channel))
    # what bilinear weights make of bytes lies within their range
    planes = F.grid_sample(pixels, grid, align_corners=False)[0].round_().byte()
    return cv2.merge([*planes.numpy()])  # type: ignore[return-value]


def _warped_labels(labels: Labels, grid: Tensor) -> Labels:
    """The labels of the nearest pixels, ignored outside."""
    maps = torch.ones(1, 2, *labels.map.shape)
    maps[0, 0] = torch.from_numpy(labels.map.astype(np.float32))
    if labels.valid is not None:
        maps[0, 1] = torch.from_numpy(labels.valid)
    moved, valid = F.grid_sample(maps, grid, mode="nearest", align_corners=False)[0].numpy()
    return Labels(moved.astype(labels.map.dtype), labels.classes, valid > 0)


def _sources(matrix: Tensor, size: tuple[int, ...]) -> Tensor:
    """The places ``(1, h, w, 2)`` in an image from which its warped form takes each pixel.

    They are those of kornia's ``warp_affine``, made once for image and labels.

    Args:
        matrix: ``(3, 3)`` from pixels of the image to pixels of the warped one.
        size: ``(h, w)`` of both.
    """
    h, w = size
    # from pixels to -1..1, which are the outer edges of the first and the last pixel
    scaled = torch.tensor([[2 / w, 0, (1 - w) / w], [0, 2 / h, (1 - h) / h], [0, 0, 1]])
    back = _inverse(scaled @ (matrix @ _inverse(scaled)))
    grid = torch.empty(1, h, w, 2)
    x, y = (torch.linspace(-1 + 1 / side, 1 - 1 / side, side) for side in (w, h))
    for axis in (0, 1):
        place = grid[0, ..., axis]
        torch.add((back[axis, 0] * x)[None], (back[axis, 1] * y)[:, None], out=place)
        place += back[axis, 2]
    return grid


def _inverse(matrix: Tensor) -> Tensor:
    """The inverse ``(3, 3)`` by the adjugate, with kornia's order of operations."""
    rows = matrix.unbind(0)
    cofactors = [torch.linalg.cross(rows[i - 2], rows[i - 1]) for i in range(3)]
    return torch.stack(cofactors, -1) / (rows[0] * cofactors[0]).sum()


def _tones() -> NDArray[np.uint8]:
    """The new value of each of the 256: tone acts on each value alone, so a table is exact."""
    import kornia.augmentation as K

    values = (torch.arange(256) / 255).expand(1, 3, 1, 256)
    values = K.ColorJiggle(TONE, TONE, 0.0, 0.0, p=1.0)(values)
    values = K.RandomGamma(GAMMA, p=1.0)(values)
    return (values[0, 0, 0] * 255).round().byte().numpy()
