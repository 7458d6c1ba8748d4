"""Answering prompts on one image: fitted whole, cropped around each prompt, or in blended tiles.

A prompt is asked in the views that it touches: a tile that holds a part of its box or one of its
points, or each tile where nothing says where. Memory beyond the answers, which have the image's
size, is that of :data:`AT_ONCE` views.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samtune.data.transforms import fit, fit_geometry
from samtune.decoders import Features
from samtune.finetuned import FineTuned
from samtune.ops.tiling import Window, around, extent, least_crop, starts, weights
from samtune.types import (
    ABSENT,
    BOX_TOP_LEFT,
    NEGATIVE,
    POSITIVE,
    Geometry,
    InputPolicy,
    Masks,
    Prompts,
    inside,
)

AT_ONCE = 4
"""Views encoded and held at once."""
OUTSIDE = -10.0
"""Logit where a prompt was not asked."""
LOGIT_BYTES = 2**30
"""Logits of the image's size held at once, where masks are wanted; a single prompt may need more.
"""


@dataclass(frozen=True)
class View:
    """A window of the image, the prompts asked there, and how much their answers count."""

    window: Window
    rows: tuple[int, ...]
    """Which prompts."""
    down: Tensor
    """``(n, window height)`` weights of each prompt's answer."""
    across: Tensor
    """``(n, window width)``; the weight of a pixel is the product of both."""


class PromptedImage:
    """An image that answers prompts as its model's input policy says.

    Args:
        model: In evaluation mode.
        image: ``(h, w, 3)`` uint8 RGB.
    """

    def __init__(self, model: FineTuned, image: NDArray[np.uint8]) -> None:
        self.model, self.image = model, image
        self.size = (image.shape[0], image.shape[1])
        policy = model.input
        self.whole = fit_geometry(self.size, policy.size, policy.resize)
        tile = extent(policy.size, policy.scale, self.size)
        self.cut = policy.tiles == "crop" or (policy.tiles == "tiled" and tile != self.size)
        self._held: tuple[tuple[Window, ...], Features, list[Geometry]] | None = None

    def encode(self) -> None:
        """Encodes the image ahead of prompts, where it is seen whole."""
        if not self.cut:
            self._encoded(((0, 0, *self.size),))

    def masks(
        self, prompts: Prompts, multimask: bool = False, threshold: float = 0.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Masks ``(N, K, h, w)`` bool, estimated IoU and low-resolution logits.

        Of cut images only so many prompts are answered together as :data:`LOGIT_BYTES` holds.
        """
        count = len(prompts)
        if self.cut:
            logit = 4 * (3 if multimask else 1) * self.size[0] * self.size[1]
            count = max(1, min(count, LOGIT_BYTES // logit))
        parts = []
        for rows in torch.arange(len(prompts)).split(count) if len(prompts) else [torch.arange(0)]:
            mine = prompts.only(rows) if count < len(prompts) else prompts
            found, low = self.answer(mine, multimask)
            parts.append((inside(found.logits, found.exclusive, threshold), found.iou, low))
        if len(parts) == 1:
            return parts[0]
        masks, iou, low = (torch.cat(part) for part in zip(*parts, strict=True))
        return masks, iou, low

    @torch.no_grad()
    def answer(self, prompts: Prompts, multimask: bool = False) -> tuple[Masks, Tensor]:
        """Answers ``N`` prompts in the image's pixels; their masks are in the whole image's frame.

        Returns:
            Masks whose logits ``(N, K, h, w)`` have the image's size, and low-resolution logits
            ``(N, K, 4H, 4W)`` in the whole image's frame, fit for mask prompts.
        """
        if not self.cut:
            features, [geometry] = self._encoded(((0, 0, *self.size),))
            found = self._decoded(features, prompts.to_model(geometry), multimask)
            logits = geometry.masks_to_original(found.logits.float())
            return replace(found, logits=logits), found.logits
        blend: _Blend | None = None
        prompts = prompts.to("cpu")
        views = planned(prompts, self.size, self.model.input, self.whole)
        for start in range(0, len(views), AT_ONCE):
            group = views[start : start + AT_ONCE]
            features, geometries = self._encoded(tuple(view.window for view in group))
            parts = [
                self._moved(prompts, view, geometry).at(i)
                for i, (view, geometry) in enumerate(zip(group, geometries, strict=True))
            ]
            asked = Prompts.cat(parts)
            found = self._decoded(features, asked, multimask)
            blend = blend or _Blend(found, len(prompts), self.size)
            for i, (view, geometry) in enumerate(zip(group, geometries, strict=True)):
                here = (asked.image == i).to(found.iou.device)
                logits = geometry.masks_to_original(found.logits[here].float())
                blend.add(view, logits, found.iou[here])
        assert blend is not None, "every prompt has a view"
        masks = blend.masks()
        return masks, self._low(masks.logits)

    def _encoded(self, windows: tuple[Window, ...]) -> tuple[Features, list[Geometry]]:
        if self._held is not None and self._held[0] == windows:
            return self._held[1:]
        self._held = None  # before the next ones are made
        policy, device = self.model.input, self.model.device
        fitted = [fit(self.image[y0:y1, x0:x1], policy) for y0, x0, y1, x1 in windows]
        geometries = [geometry for _, geometry in fitted]
        sizes = torch.tensor([geometry.resized for geometry in geometries], device=device)
        pixels = torch.stack([pixels for pixels, _ in fitted]).to(device)
        features = self.model.encode(self.model.preprocess(pixels, sizes))
        self._held = (windows, features, geometries)
        return features, geometries

    def _decoded(self, features: Features, prompts: Prompts, multimask: bool) -> Masks:
        placed = prompts.to(self.model.device)
        return self.model.decoder(self.model.sam, features, placed, multimask)

    def _moved(self, prompts: Prompts, view: View, geometry: Geometry) -> Prompts:
        """A view's prompts in its own frame."""
        rows = torch.tensor(view.rows, dtype=torch.long)
        mine = local(prompts.only(rows), view.window)
        if mine.masks is not None:
            cut = cut_masks(mine.masks, self.whole, view.window, geometry)
            mine = replace(mine, masks=cut)
        return mine.to_model(geometry)

    def _low(self, logits: Tensor) -> Tensor:
        stride, (h, w) = self.model.stride, self.whole.model
        frame = (4 * h // stride, 4 * w // stride)
        part = [
            max(1, round(n * f / m))
            for n, f, m in zip(self.whole.resized, frame, (h, w), strict=True)
        ]
        low = F.interpolate(logits, part, mode="bilinear", align_corners=False, antialias=True)
        return F.pad(low, (0, frame[1] - part[1], 0, frame[0] - part[0]), value=OUTSIDE)


class _Blend:
    """Answers added up, each weighted; where none was given stands :data:`OUTSIDE`."""

    def __init__(self, like: Masks, count: int, size: tuple[int, int]) -> None:
        choices, device = like.logits.shape[1], like.logits.device
        self.logits = torch.full((count, choices, *size), OUTSIDE, device=device)
        self.iou = torch.zeros(count, choices, device=device)
        self.pixels = torch.zeros(count, choices, device=device)
        self.exclusive = like.exclusive

    def add(self, view: View, logits: Tensor, iou: Tensor) -> None:
        """One view's answers ``(n, K, window height, width)``."""
        y0, x0, y1, x1 = view.window
        inside_here = (logits > 0).sum((2, 3)) + 1  # an empty view says little of the whole
        for i, row in enumerate(view.rows):
            down, across = view.down[i].to(logits), view.across[i].to(logits)
            weight = down[:, None] * across
            self.logits[row, :, y0:y1, x0:x1] += weight * (logits[i] - OUTSIDE)
            self.iou[row] += iou[i] * inside_here[i]
            self.pixels[row] += inside_here[i]

    def masks(self) -> Masks:
        """What was added up; the IoU is the views' mean, weighted by their foreground."""
        return Masks(self.logits, self.iou / self.pixels.clamp(min=1), self.exclusive)


def planned(
    prompts: Prompts, size: tuple[int, int], policy: InputPolicy, whole: Geometry
) -> list[View]:
    """The views of an image that prompts are asked in, in reading order; without any, one view.

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
    asked: dict[tuple[int, int], list[tuple[int, Tensor, Tensor]]] = defaultdict(list)
    for row, place in enumerate(places):
        x0, y0, x1, y1 = place or (0, 0, size[1], size[0])
        rows, columns = _touched(axes[0], tile[0], y0, y1), _touched(axes[1], tile[1], x0, x1)
        down = weights(size[0], tile[0], [axes[0][i] for i in rows])
        across = weights(size[1], tile[1], [axes[1][j] for j in columns])
        for i, vertical in zip(rows, down, strict=True):
            y = axes[0][i]
            for j, horizontal in zip(columns, across, strict=True):
                x = axes[1][j]
                found = (row, vertical[y : y + tile[0]], horizontal[x : x + tile[1]])
                if _speaks(prompts, row, (y, x, y + tile[0], x + tile[1])):
                    asked[y, x].append(found)
    views = [_tile((y, x, y + tile[0], x + tile[1]), asked[y, x]) for y, x in sorted(asked)]
    return views or [_empty((0, 0, *tile))]


def local(prompts: Prompts, window: Window) -> Prompts:
    """Prompts in the pixels of a window: boxes cut off at its edges, points elsewhere absent."""
    y0, x0, y1, x1 = window
    size = torch.tensor([x1 - x0, y1 - y0], dtype=prompts.coords.dtype)
    coords = prompts.coords - torch.tensor([x0, y0])
    points = (prompts.labels == NEGATIVE) | (prompts.labels == POSITIVE)
    away = points & ((coords < 0) | (coords >= size)).any(2)
    corners = prompts.labels >= BOX_TOP_LEFT
    clipped = coords.clamp(min=torch.zeros(2), max=size)
    boxes = replace(prompts, coords=clipped).boxes()
    gone = corners & ~((boxes[:, 2:] > boxes[:, :2]).all(1))[:, None]
    return replace(
        prompts,
        coords=torch.where(corners[..., None], clipped, coords),
        labels=prompts.labels.masked_fill(away | gone, ABSENT),
    )


def cut_masks(masks: Tensor, whole: Geometry, window: Window, view: Geometry) -> Tensor:
    """Mask prompts ``(N, 1, 4H, 4W)`` in the whole image's frame as a view of it sees them."""
    y0, x0, _, _ = window
    h, w = masks.shape[-2:]
    axes = []
    for n, first, axis in ((w, x0, 0), (h, y0, 1)):
        cell = view.model[1 - axis] / n
        frame = (torch.arange(n, device=masks.device) + 0.5) * cell
        at = frame / view.scale(masks)[axis] + first
        axes.append(at * whole.scale(masks)[axis] / cell * (2 / n) - 1)
    grid = torch.stack(torch.meshgrid(*axes, indexing="xy"), -1)
    grid = grid.expand(len(masks), -1, -1, -1).to(masks)
    return F.grid_sample(masks, grid, padding_mode="border", align_corners=False)


def _places(prompts: Prompts, whole: Geometry) -> list[tuple[float, ...] | None]:
    """Where each prompt points, ``xyxy`` in the image; ``None`` where it says nothing of that."""
    labels, flags = prompts.labels, prompts.mask_flags()
    found: list[tuple[float, ...] | None] = []
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
        found.append((*xy.amin(0).tolist(), *xy.amax(0).tolist()) if len(xy) else None)
    return found


def _crop(
    row: int,
    place: tuple[float, ...] | None,
    tile: tuple[int, int],
    size: tuple[int, int],
    policy: InputPolicy,
) -> View:
    window: Window = (0, 0, *size)
    if place is not None:
        flat = place[0] == place[2] and place[1] == place[3]
        window = around(place, policy.margin, tile if flat else least_crop(tile), size)
    y0, x0, y1, x1 = window
    return View(window, (row,), torch.ones(1, y1 - y0), torch.ones(1, x1 - x0))


def _tile(window: Window, asked: Sequence[tuple[int, Tensor, Tensor]]) -> View:
    rows, down, across = zip(*asked, strict=True)
    return View(window, rows, torch.stack(down), torch.stack(across))


def _empty(window: Window) -> View:
    y0, x0, y1, x1 = window
    return View(window, (), torch.zeros(0, y1 - y0), torch.zeros(0, x1 - x0))


def _touched(begins: Sequence[int], window: int, low: float, high: float) -> list[int]:
    """Which windows meet ``low`` to ``high``; of what lies beyond the image, the nearest."""
    end = begins[-1] + window
    low, high = min(max(low, 0), end - 1), min(max(high, 1), end)
    high = max(high, low + 1e-6)
    return [i for i, begin in enumerate(begins) if begin < high and begin + window > low]


def _speaks(prompts: Prompts, row: int, window: Window) -> bool:
    """Whether a prompt says anything in a window; one that says nothing at all does everywhere."""
    mine = prompts.only(torch.tensor([row]))
    return mine.kinds() == {"none"} or local(mine, window).kinds() != {"none"}
