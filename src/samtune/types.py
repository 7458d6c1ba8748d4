"""The values that travel through samtune: geometry, prompts, masks, batches.

Shape letters, the same everywhere: ``B`` images, ``N`` prompts, ``K`` masks per prompt, ``H W``
token grid, ``h w`` pixels, ``n`` prompt points. Coordinates are ``xy`` floats in pixels, origin top
left, as ``SamPredictor`` takes them (the prompt encoder adds the half pixel); boxes are ``xyxy``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from samtune.errors import InputError
from samtune.ops.resize import nearest_in_zoom

ABSENT = -10
"""Label of a slot that holds no point: it only fills a ragged batch and is hidden from
attention."""
NOT_A_POINT = -1
"""Label of the padding point that SAM appends when a prompt has points but no box."""
NOWHERE = -10.0
"""Logit of all masks where a zoom leaves a pixel empty: outside, and of classes the first one."""
NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT = 0, 1, 2, 3


@dataclass(frozen=True)
class Geometry:
    """Where an image lies in the model's frame: resized, then padded right and below.

    All sizes are ``(height, width)`` in pixels.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    model: tuple[int, int]
    rounded: bool = False
    """Whether coordinates in the model's frame are whole numbers."""
    direct: bool = False
    """Whether masks without padding come back in one interpolation instead of two."""
    spline: bool = False
    """Whether the corners' pixels lie on each other, as SciPy's zoom resizes, and masks come back
    by the nearest pixel. Prompts go by ``scale``: less than half a coarser pixel away."""
    first: tuple[int, int] | None = None
    """Size of image and labels on the way there."""

    def scale(self, like: Tensor) -> Tensor:
        """The factors ``(x, y)`` from the original to the model frame, of ``like``'s dtype."""
        (h0, w0), (h1, w1) = self.original, self.resized
        return torch.tensor([w1 / w0, h1 / h0], dtype=torch.float64).to(like)

    def to_model(self, xy: Tensor) -> Tensor:
        """Maps points ``(..., 2)`` from the original to the model frame."""
        placed = xy * self.scale(xy)
        return placed.round() if self.rounded else placed

    def to_original(self, xy: Tensor) -> Tensor:
        """Maps points ``(..., 2)`` from the model to the original frame."""
        return xy / self.scale(xy)

    def masks_to_original(self, logits: Tensor) -> Tensor:
        """Brings mask logits ``(N, K, h, w)`` of any resolution into the original frame.

        SAM's post-processing: bilinear to the model frame, padding cut off, bilinear to the
        original size. Logits are interpolated, never thresholded masks. With ``spline`` the last
        step takes the nearest pixels; where SciPy's zoom finds none all logits are
        :data:`NOWHERE`.
        """
        (h, w), size = self.resized, self.model
        if self.direct and self.resized == size:
            return F.interpolate(logits, self.original, mode="bilinear", align_corners=False)
        if tuple(logits.shape[-2:]) != size:
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        logits = logits[..., :h, :w]
        if self.spline:
            sides = zip(self.resized, self.original, strict=True)
            rows, columns = (nearest_in_zoom(a, b).to(logits.device) for a, b in sides)
            found = logits[..., rows, :][..., columns]
            return found.masked_fill((rows < 0)[:, None] | (columns < 0), NOWHERE)
        if self.resized != self.original:
            logits = F.interpolate(logits, self.original, mode="bilinear", align_corners=False)
        return logits


@dataclass(frozen=True)
class InputPolicy:
    """How images enter a model; in the checkpoint, so that prediction repeats training.

    Raises:
        InputError: ``spline`` beside tiles, or beside another say in how images are resized.
    """

    size: tuple[int, int]
    """``(h, w)`` of the model's frame in pixels."""
    resize: Literal["longest", "stretch", "spline"] = "longest"
    """``longest``: keep the aspect and pad right and below; ``stretch``: each axis alone;
    ``spline``: that by ``scipy.ndimage.zoom``, images as floats by cubic splines, labels and masks
    by the nearest pixel, corners on corners."""
    antialias: bool = True
    """Pillow's antialiased resize of bytes; if not, plain bilinear interpolation of floats."""
    round_prompts: bool = False
    """Round the coordinates of prompts to whole pixels of the model's frame."""
    direct_masks: bool = False
    """Bring logits to the image in one interpolation, not by way of the model's frame; only
    where nothing is padded."""
    mean: tuple[float, float, float] | None = None
    """Of the pixels, in the 0..255 range; ``None`` for the base's."""
    std: tuple[float, float, float] | None = None
    """As ``mean``."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """The order in which the encoder gets them; ``mean`` and ``std`` are in that order too."""
    native_raw: bool = False
    """Whether an image of exactly ``size`` enters as it is: its bytes without ``mean`` and ``std``,
    which then must be given, and its prompts not rounded."""
    tiles: Literal["whole", "crop", "tiled"] = "whole"
    """What comes into the frame: the whole image, a crop around each prompt, or overlapping tiles
    of the frame's size, whose answers are blended."""
    overlap: float = 0.25
    """Least part of a tile that it shares with its neighbour."""
    scale: float = 1.0
    """Pixels of the frame for a pixel of the image, where it is cut into tiles."""
    margin: float = 0.5
    """What a crop has around a prompt on each side, as a part of the longer one."""

    bands: tuple[int, ...] | None = None
    """Channels of a file that are taken, one or three; ``None`` for those of a picture."""
    intensity: Literal["percentile", "window", "zscore", "fixed"] = "percentile"
    """How a file's values become bytes, see :func:`samtune.data.intensity.to_rgb`."""
    limits: tuple[float, float] | None = None
    """Values that become 0 and 255, where they are given."""
    slice_axis: int = 0
    """Along which axis a volume is cut into images."""
    first_size: tuple[int, int] | None = None
    """``(h, w)`` to which an image is stretched before all else, by Pillow's bilinear filter."""

    def __post_init__(self) -> None:
        own = {"tiles": "whole", "first_size": None, "antialias": True, "direct_masks": False}
        for name, plain in own.items():
            if self.resize == "spline" and (value := getattr(self, name)) != plain:
                raise InputError(
                    f"input.{name}={value}: input.resize=spline brings whole images to the frame, "
                    "and masks back, in its own way; leave one of the two out"
                )

    def stated(self) -> dict[str, Any]:
        """Size, resize, and what differs from the defaults."""
        return {
            f.name: value
            for f in fields(self)
            if (value := getattr(self, f.name)) != f.default or f.name == "resize"
        }

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> InputPolicy:
        """The policy of a checkpoint's header, which has lists and may lack what is by default."""
        given = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        tuples: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in given.items()
        }
        return cls(**tuples)


@dataclass(frozen=True)
class Prompts:
    """``N`` prompts over a batch of images, flat: prompt ``i`` belongs to image ``image[i]``.

    A prompt is a set of labelled points; a box is its two corners. Ragged sets are filled up with
    :data:`ABSENT`, which leaves no trace in the result. ``len(prompts)`` is ``N``.
    """

    coords: Tensor
    """``(N, n, 2)`` float, xy in pixels."""
    labels: Tensor
    """``(N, n)`` int64: ABSENT, NOT_A_POINT, NEGATIVE, POSITIVE, BOX_TOP_LEFT or
    BOX_BOTTOM_RIGHT."""
    image: Tensor
    """``(N,)`` int64, index of the image in its batch."""
    masks: Tensor | None = None
    """``(N, 1, 4H, 4W)`` float logits, the frame of the decoder's low-resolution masks."""
    has_mask: Tensor | None = None
    """``(N,)`` bool; ``None`` with ``masks`` given means all."""

    def __len__(self) -> int:
        return self.coords.shape[0]

    @staticmethod
    def of(
        boxes: Tensor | None = None,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        masks: Tensor | None = None,
        image: Tensor | None = None,
        count: int | None = None,
    ) -> Prompts:
        """Prompts of one kind: boxes, points, masks, any mix of them, or nothing at all.

        Args:
            boxes: ``(N, 4)`` xyxy pixels.
            points: ``(N, n, 2)`` xy pixels; ``labels`` must come with them.
            labels: ``(N, n)``, 1 inside the object, 0 outside.
            masks: ``(N, 1, 4H, 4W)`` logits of an earlier prediction.
            image: ``(N,)`` image index; by default all belong to image 0.
            count: How many prompts when nothing else tells; 1 by default.

        Raises:
            ValueError: Points without labels or labels without points.
        """
        if (points is None) != (labels is None):
            raise ValueError("points and labels come together: give both or neither")
        given = next((t for t in (boxes, points, masks, image) if t is not None), None)
        n = given.shape[0] if given is not None else (1 if count is None else count)
        device = given.device if given is not None else None
        coords, marks = [], []
        if points is not None and labels is not None:
            coords.append(points.float())
            marks.append(labels.long())
            if boxes is None:
                coords.append(torch.zeros(n, 1, 2, device=device))
                marks.append(torch.full((n, 1), NOT_A_POINT, device=device))
        if boxes is not None:
            coords.append(boxes.float().reshape(n, 2, 2))
            corners = torch.tensor([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], device=device)
            marks.append(corners.expand(n, 2))
        return Prompts(
            torch.cat(coords, 1) if coords else torch.zeros(n, 0, 2, device=device),
            torch.cat(marks, 1) if marks else torch.zeros(n, 0, dtype=torch.long, device=device),
            torch.zeros(n, dtype=torch.long, device=device) if image is None else image.long(),
            None if masks is None else masks.float(),
        )

    @staticmethod
    def cat(parts: Sequence[Prompts]) -> Prompts:
        """Joins prompts of any kinds into one flat set; image indices are kept as they are.

        Raises:
            ValueError: ``parts`` is empty, or mask prompts differ in size.
        """
        if not parts:
            raise ValueError("nothing to join: give at least one Prompts")
        n = max(p.coords.shape[1] for p in parts)
        coords = torch.cat([F.pad(p.coords, (0, 0, 0, n - p.coords.shape[1])) for p in parts])
        labels = torch.cat(
            [F.pad(p.labels, (0, n - p.labels.shape[1]), value=ABSENT) for p in parts]
        )
        image = torch.cat([p.image for p in parts])
        like = next((p.masks for p in parts if p.masks is not None), None)
        if like is None:
            return Prompts(coords, labels, image)
        sizes = {tuple(p.masks.shape[1:]) for p in parts if p.masks is not None}
        if len(sizes) > 1:
            raise ValueError(f"mask prompts of several sizes cannot be joined: {sorted(sizes)}")
        masks = torch.cat(
            [like.new_zeros(len(p), *like.shape[1:]) if p.masks is None else p.masks for p in parts]
        )
        has_mask = torch.cat([p.mask_flags() for p in parts])
        return Prompts(coords, labels, image, masks, has_mask)

    def mask_flags(self) -> Tensor:
        """``(N,)`` bool: which prompts carry a mask."""
        if self.has_mask is not None:
            return self.has_mask
        return torch.full((len(self),), self.masks is not None, device=self.coords.device)

    def boxes(self) -> Tensor:
        """``(N, 4)`` xyxy; rows of NaN where a prompt has no box."""
        corners = []
        for label in (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT):
            hit = self.labels == label
            xy = (self.coords * hit[..., None]).sum(1)
            corners.append(torch.where(hit.any(1, keepdim=True), xy, torch.nan))
        return torch.cat(corners, 1)

    def only(self, rows: Tensor) -> Prompts:
        """Some of the prompts, by index or ``(N,)`` bool."""
        return Prompts(
            self.coords[rows],
            self.labels[rows],
            self.image[rows],
            None if self.masks is None else self.masks[rows],
            None if self.has_mask is None else self.has_mask[rows],
        )

    def kinds(self) -> set[str]:
        """What there is among them: ``box``, ``point``, ``mask``, and ``none`` where nothing."""
        corner = (self.labels >= BOX_TOP_LEFT).any(1)
        click = ((self.labels == NEGATIVE) | (self.labels == POSITIVE)).any(1)
        mask = self.mask_flags()
        met = {"box": corner, "point": click, "mask": mask, "none": ~(corner | click | mask)}
        return {kind for kind, which in met.items() if bool(which.any())}

    def clicked(self, xy: Tensor, labels: Tensor, masks: Tensor | None = None) -> Prompts:
        """The same prompts with a click more each, and the last answer as their mask.

        Args:
            xy: ``(N, 2)`` pixels.
            labels: ``(N,)``, 1 inside the object, 0 outside, :data:`ABSENT` for no click.
            masks: ``(N, 1, 4H, 4W)`` logits, which replace earlier ones.
        """
        return Prompts(
            torch.cat([xy[:, None].to(self.coords), self.coords], 1),
            torch.cat([labels[:, None].to(self.labels), self.labels], 1),
            self.image,
            self.masks if masks is None else masks.float(),
            self.has_mask if masks is None else None,
        )

    def at(self, index: int) -> Prompts:
        """The same prompts, all belonging to image ``index``."""
        return replace(self, image=torch.full_like(self.image, index))

    def to_model(self, geometry: Geometry) -> Prompts:
        """Maps the coordinates from the original to the model frame (masks are there already)."""
        return replace(self, coords=geometry.to_model(self.coords))

    def to(self, device: torch.device | str) -> Prompts:
        """The same prompts on another device."""
        return replace(
            self,
            coords=self.coords.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            image=self.image.to(device, non_blocking=True),
            masks=_moved(self.masks, device),
            has_mask=_moved(self.has_mask, device),
        )


@dataclass(frozen=True)
class Masks:
    """What a decoder predicts for ``N`` prompts."""

    logits: Tensor
    """``(N, K, 4H, 4W)``: four times the token grid, over the model frame; above 0 is inside."""
    iou: Tensor
    """``(N, K)``: the decoder's own estimate of each mask's IoU."""
    exclusive: bool = False
    """Whether the K masks are classes, of which each pixel has the one of the highest logit,
    instead of K answers to choose from."""
    auxiliary: Tensor | None = None
    """A scalar that the encoder's adapter adds to the loss; only in training."""


def inside(logits: Tensor, exclusive: bool, threshold: float = 0.0) -> Tensor:
    """Masks ``(N, K, h, w)`` bool of logits of any resolution, see :class:`Masks`."""
    if not exclusive:
        return logits > threshold
    return torch.zeros_like(logits, dtype=torch.bool).scatter_(1, logits.argmax(1, True), True)


@dataclass(frozen=True)
class Batch:
    """``B`` images in the model's frame with their ``N`` prompts and what each should give."""

    pixels: Tensor
    """``(B, 3, h, w)`` RGB in 0..255, zero where padded: uint8, or float32 without
    antialiasing and of splines."""
    sizes: Tensor
    """``(B, 2)`` int64 height and width of the content; the rest is padding."""
    prompts: Prompts
    """In the model frame."""
    targets: Tensor
    """``(N, h, w)`` in the model frame: bool masks, or int64 maps of classes."""
    valid: Tensor
    """``(B, h, w)`` bool: false in the padding and where the label is to be ignored."""
    classes: Tensor
    """``(N,)`` int64 class of each prompt's object, from 0."""
    geometries: tuple[Geometry, ...]
    names: tuple[str, ...]
    originals: tuple[Tensor, ...] = field(default=())
    """Per image ``(N_b, h0, w0)`` targets in the original frame; only kept for evaluation and for
    a loss at the image's own size."""
    original_valid: tuple[Tensor, ...] = field(default=())
    """Per image ``(h0, w0)`` bool, the original frame's twin of ``valid``."""
    images: tuple[Tensor, ...] = field(default=())
    """Per image ``(h0, w0, 3)`` uint8; only kept for evaluation on tiles or crops."""

    @property
    def frame(self) -> Geometry:
        """The geometry that brings logits to the size of ``targets``: the frame as an image."""
        size = (self.targets.shape[-2], self.targets.shape[-1])
        return Geometry(size, size, size)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its model-frame tensors on another device; the originals stay."""
        return replace(
            self,
            pixels=self.pixels.to(device, non_blocking=True),
            sizes=self.sizes.to(device, non_blocking=True),
            prompts=self.prompts.to(device),
            targets=self.targets.to(device, non_blocking=True),
            valid=self.valid.to(device, non_blocking=True),
            classes=self.classes.to(device, non_blocking=True),
        )


def _moved(tensor: Tensor | None, device: torch.device | str) -> Tensor | None:
    return None if tensor is None else tensor.to(device, non_blocking=True)
