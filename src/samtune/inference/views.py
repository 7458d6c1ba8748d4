"""Views of an image: the windows in which prompts are answered, and how answers are blended.

A view is one tile, one crop around a prompt, or the whole image. Each is fitted into the model's
frame on its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from samtune.batch import Masks
from samtune.geometry import Geometry, InputPolicy
from samtune.ops.tiling import Window, around, extent, least_crop, starts, weights
from samtune.prompts import ABSENT, BOX_TOP_LEFT, NEGATIVE, NONE, POSITIVE, Prompts

OUTSIDE = -10.0
"""Logit outside of all views of a prompt: background, with near certainty."""


@dataclass(frozen=True)
class View:
    """A window of the image, the prompts answered in it, and the weight of each answer."""

    window: Window
    rows: tuple[int, ...]
    """Indices of its ``n`` prompts."""
    down: Tensor
    """``(n, window height)``: the weight of each prompt's answer by the pixel's row."""
    across: Tensor
    """``(n, window width)``: the same by column. A pixel's weight is the product of the two."""

    def some(self, first: int, count: int) -> View:
        """A copy with some of its prompts."""
        rows = slice(first, first + count)
        return View(self.window, self.rows[rows], self.down[rows], self.across[rows])


class Blend:
    """Adds up the weighted answers of several views.

    Pixels that no view of a prompt covers keep the logit :data:`OUTSIDE`.

    Args:
        like: The answer of any view, for the number of masks per prompt, and the device.
        count: Number of prompts in all.
        size: Height and width of the image.
    """

    def __init__(self, like: Masks, count: int, size: tuple[int, int]) -> None:
        masks, device = like.logits.shape[1], like.logits.device
        self.logits = torch.full((count, masks, *size), OUTSIDE, device=device)
        self.iou = torch.zeros(count, masks, device=device)
        self.pixels = torch.zeros(count, masks, device=device)
        self.exclusive = like.exclusive

    def add(self, view: View, logits: Tensor, iou: Tensor) -> None:
        """Adds one view's answers ``(n, K, window height, width)`` and their IoUs ``(n, K)``."""
        y0, x0, y1, x1 = view.window
        foreground = (logits > 0).sum((2, 3)) + 1  # an empty view tells little about the whole
        for i, row in enumerate(view.rows):
            down, across = view.down[i].to(logits), view.across[i].to(logits)
            weight = down[:, None] * across
            self.logits[row, :, y0:y1, x0:x1] += weight * (logits[i] - OUTSIDE)
            self.iou[row] += iou[i] * foreground[i]
            self.pixels[row] += foreground[i]

    def masks(self) -> Masks:
        """The blended answers; the IoU is the views' mean, weighted by their foreground."""
        return Masks(self.logits, self.iou / self.pixels.clamp(min=1), self.exclusive)


def views_of(
    prompts: Prompts, size: tuple[int, int], policy: InputPolicy, whole: Geometry
) -> list[View]:
    """The views in which prompts are answered, in reading order; one empty view without prompts.

    A prompt is answered in each tile that overlaps its box or mask or contains one of its points,
    or in one crop around all of these.

    Args:
        prompts: In the image's pixels, on the CPU.
        size: The image's height and width.
        policy: How it is cut.
        whole: The frame of mask prompts.
    """
    tile = extent(policy.size, policy.scale, size)
    places = _places(prompts, whole)
    if policy.tiles == "crop":
        return [_crop(row, place, tile, size, policy) for row, place in enumerate(places)] or [
            _empty((0, 0, *size))
        ]
    axes = [starts(n, t, policy.overlap) for n, t in zip(size, tile, strict=True)]
    by_corner: dict[tuple[int, int], list[tuple[int, Tensor, Tensor]]] = defaultdict(list)
    for row, place in enumerate(places):
        x0, y0, x1, y1 = place or (0, 0, size[1], size[0])
        rows, columns = (
            _overlapping(axes[0], tile[0], y0, y1),
            _overlapping(axes[1], tile[1], x0, x1),
        )
        down = weights(size[0], tile[0], [axes[0][i] for i in rows])
        across = weights(size[1], tile[1], [axes[1][j] for j in columns])
        for i, vertical in zip(rows, down, strict=True):
            y = axes[0][i]
            for j, horizontal in zip(columns, across, strict=True):
                x = axes[1][j]
                if _says_something(prompts, row, (y, x, y + tile[0], x + tile[1])):
                    weighted = (row, vertical[y : y + tile[0]], horizontal[x : x + tile[1]])
                    by_corner[y, x].append(weighted)
    views = [_tile((y, x, y + tile[0], x + tile[1]), by_corner[y, x]) for y, x in sorted(by_corner)]
    return views or [_empty((0, 0, *tile))]


def local(prompts: Prompts, window: Window) -> Prompts:
    """Prompts in the pixels of a window: boxes are clipped, points outside become absent."""
    y0, x0, y1, x1 = window
    size = torch.tensor([x1 - x0, y1 - y0], dtype=prompts.coords.dtype)
    coords = prompts.coords - torch.tensor([x0, y0])
    points = (prompts.labels == NEGATIVE) | (prompts.labels == POSITIVE)
    outside = points & ((coords < 0) | (coords >= size)).any(2)
    corners = prompts.labels >= BOX_TOP_LEFT
    clipped = coords.clamp(min=torch.zeros(2), max=size)
    boxes = replace(prompts, coords=clipped).boxes()
    empty = corners & ~((boxes[:, 2:] > boxes[:, :2]).all(1))[:, None]
    return replace(
        prompts,
        coords=torch.where(corners[..., None], clipped, coords),
        labels=prompts.labels.masked_fill(outside | empty, ABSENT),
    )


def cut_masks(masks: Tensor, whole: Geometry, window: Window, view: Geometry) -> Tensor:
    """Cuts mask prompts ``(N, 1, 4H, 4W)`` of the whole image down to a window's.

    Args:
        masks: Mask prompts over the frame of the whole image.
        whole: The geometry of the whole image in that frame.
        window: The window of the image.
        view: The geometry of the window in the frame.
    """
    y0, x0, _, _ = window
    h, w = masks.shape[-2:]
    axes = []
    for n, first, axis in ((w, x0, 0), (h, y0, 1)):
        cell = view.model[1 - axis] / n  # pixels of the frame per value of a mask prompt
        frame = (torch.arange(n, device=masks.device) + 0.5) * cell
        at = frame / view.scale(masks)[axis] + first
        axes.append(at * whole.scale(masks)[axis] / cell * (2 / n) - 1)
    grid = torch.stack(torch.meshgrid(*axes, indexing="xy"), -1)
    grid = grid.expand(len(masks), -1, -1, -1).to(masks)
    return F.grid_sample(masks, grid, padding_mode="border", align_corners=False)


def _places(prompts: Prompts, whole: Geometry) -> list[tuple[float, ...] | None]:
    """The place of each prompt as ``xyxy`` in the image; ``None`` for a prompt without a place.

    It is the box around all positive points, box corners and mask pixels of the prompt, or around
    its negative points if it has no other.
    """
    labels, flags = prompts.labels, prompts.mask_flags()
    places: list[tuple[float, ...] | None] = []
    for row in range(len(prompts)):
        xy = prompts.coords[row][labels[row] >= POSITIVE]
        if prompts.masks is not None and bool(flags[row]):
            cells = (prompts.masks[row, 0] > 0).nonzero()
            cell = torch.tensor(
                [m / n for m, n in zip(whole.model, prompts.masks.shape[-2:], strict=True)]
            )
            corners = torch.cat([cells, cells + 1]) * cell
            xy = torch.cat([xy, whole.to_original(corners.flip(1))])
        if not len(xy):
            xy = prompts.coords[row][labels[row] == NEGATIVE]
        places.append((*xy.amin(0).tolist(), *xy.amax(0).tolist()) if len(xy) else None)
    return places


def _crop(
    row: int,
    place: tuple[float, ...] | None,
    tile: tuple[int, int],
    size: tuple[int, int],
    policy: InputPolicy,
) -> View:
    """The view of one prompt: its place with a margin, or the whole image without a place."""
    window: Window = (0, 0, *size)
    if place is not None:
        flat = place[0] == place[2] and place[1] == place[3]
        window = around(place, policy.margin, tile if flat else least_crop(tile), size)
    y0, x0, y1, x1 = window
    return View(window, (row,), torch.ones(1, y1 - y0), torch.ones(1, x1 - x0))


def _tile(window: Window, weighted: Sequence[tuple[int, Tensor, Tensor]]) -> View:
    """The view of a tile from each of its prompts, with the weights of rows and of columns."""
    rows, down, across = zip(*weighted, strict=True)
    return View(window, rows, torch.stack(down), torch.stack(across))


def _empty(window: Window) -> View:
    """A view without prompts."""
    y0, x0, y1, x1 = window
    return View(window, (), torch.zeros(0, y1 - y0), torch.zeros(0, x1 - x0))


def _overlapping(begins: Sequence[int], window: int, low: float, high: float) -> list[int]:
    """Indices of the windows that overlap the interval ``low`` to ``high`` along one axis.

    An interval outside of the image counts as its nearest pixel.
    """
    end = begins[-1] + window
    low, high = min(max(low, 0), end - 1), min(max(high, 1), end)
    high = max(high, low + 1e-6)
    return [i for i, begin in enumerate(begins) if begin < high and begin + window > low]


def _says_something(prompts: Prompts, row: int, window: Window) -> bool:
    """Whether some of a prompt lies in a window; an empty prompt counts in every window."""
    prompt = prompts.only(torch.tensor([row]))
    return prompt.kinds() == {NONE} or local(prompt, window).kinds() != {NONE}
