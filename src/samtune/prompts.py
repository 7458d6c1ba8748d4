"""The prompts of a batch of images, flat.

Shape letters, the same everywhere: ``B`` images, ``N`` prompts, ``K`` masks per prompt, ``H W``
token grid, ``h w`` pixels, ``n`` prompt points. Coordinates are ``xy`` floats in pixels, origin top
left, as ``SamPredictor`` takes them; boxes are ``xyxy``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from samtune.errors import InputError, nearest
from samtune.geometry import Geometry
from samtune.options.arguments import check_rows

ABSENT = -10
"""Label of a slot without a point: it only fills a ragged batch and is hidden from attention."""

NOT_A_POINT = -1
"""Label of the padding point that SAM appends when a prompt has points but no box."""

NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT = 0, 1, 2, 3

PER_TOKEN = 4
"""Pixels of a mask prompt along each side of a token."""
NONE = "none"
"""The mode, and the kind, without any prompt."""

MODE_KINDS = {
    "box": "box",
    "jittered_box": "box",
    "point": "point",
    "mask": "mask",
    "noisy_mask": "mask",
    "clicks": "point",
    NONE: NONE,
}
"""The kind of prompt that a model receives in each mode, see :meth:`Prompts.kinds`."""

EVERYTHING, INSTANCES = "everything", "instances"
AUTOMATIC = (EVERYTHING, INSTANCES)
"""Modes of evaluation without prompts, in which a model finds all objects itself: by a grid of
points, or by a watershed of what it predicts of the whole image."""

MODE_GROUPS = {
    "mixed": ("box", "point", "mask"),
    "all": (NONE, "box", "jittered_box", "point", "3_points", "mask", "noisy_mask", "clicks"),
}
"""Names that stand for several modes."""
KINDS = (NONE, "point", "box", "mask")
"""All kinds of prompts, from the one that says least."""


def numbered_mode(mode: str) -> tuple[str, int] | None:
    """Splits ``3_points`` into ``point`` and 3, ``8_clicks`` into ``clicks`` and 8.

    Any other name gives ``None``.
    """
    match = re.fullmatch(r"([1-9]\d{0,3})_(points|clicks)", mode)
    if match is None:
        return None
    return {"points": "point"}.get(match[2], match[2]), int(match[1])


def kind_of(mode: str) -> str:
    """The kind of prompt that a model gets in a mode: ``box``, ``point``, ``mask`` or ``none``."""
    numbered = numbered_mode(mode)
    return MODE_KINDS[mode if numbered is None else numbered[0]]


def mask_size_over(grid: tuple[int, int]) -> tuple[int, int]:
    """Height and width of mask prompts, and of low-resolution masks, over a grid of tokens."""
    return PER_TOKEN * grid[0], PER_TOKEN * grid[1]


def listed_modes(setting: str | Sequence[str]) -> tuple[str, ...]:
    """The names that a setting lists, with commas between them or as a list."""
    named = setting.split(",") if isinstance(setting, str) else setting
    if not isinstance(named, Sequence):
        raise InputError(f"prompts={setting!r}: must be a name such as box, or a list of names")
    return tuple(str(name).strip() for name in named)


@dataclass(frozen=True)
class PromptModes:
    """The prompts that a model is trained or evaluated with, by the names of their modes.

    A mode says how prompts are drawn from an object: ``box``, ``3_points``, ``clicks``, ...; the
    mode ``none`` draws nothing and asks for all objects at once. Iterating gives the modes.
    """

    as_written: tuple[str, ...]
    """The names as somebody wrote them, with those of :data:`MODE_GROUPS`."""

    @staticmethod
    def of(
        setting: str | Sequence[str], key: str = "prompts", besides: Sequence[str] = ()
    ) -> PromptModes:
        """The modes that a setting names, one or several.

        Args:
            setting: Names of modes or groups, with commas between them or as a list.
            key: The name of the setting in messages.
            besides: Other names that the setting takes, which errors name too.

        Raises:
            InputError: An unknown mode, an empty list, or a mode that needs no prompts.
        """
        names = listed_modes(setting)
        known = (*MODE_KINDS, *MODE_GROUPS, *besides)
        for name in names:
            if name in AUTOMATIC:
                raise InputError(
                    f"{key}={name}: is for evaluation alone, as it has no prompts, which takes it "
                    f"as prompts.eval={name}; choose from {', '.join(known)}"
                )
            if name not in known and numbered_mode(str(name)) is None:
                raise InputError(
                    f"{key}={name}: no such prompt; choose from {', '.join(known)}, or with a "
                    f"number as in 3_points and 8_clicks{nearest(str(name), known)}"
                )
        if not names:
            raise InputError(f"{key}=[]: the list is empty; choose from {', '.join(known)}")
        return PromptModes(names)

    @staticmethod
    def parse(text: str) -> PromptModes:
        """Reads what ``str`` writes, as in a checkpoint: names joined by ``+``.

        Raises:
            InputError: An unknown mode.
        """
        return PromptModes.of(text.split("+"))

    @staticmethod
    def read(prompts: str | Sequence[str]) -> PromptModes:
        """Reads what Python code says: a list, or names with commas or ``+`` between.

        Raises:
            InputError: An unknown mode, or none.
        """
        joined = isinstance(prompts, str) and "+" in prompts
        return PromptModes.of(str(prompts).split("+") if joined else prompts)

    def __str__(self) -> str:
        return "+".join(self.as_written)

    @property
    def names(self) -> tuple[str, ...]:
        """The modes, each once, with groups replaced by their members."""
        members = (mode for name in self.as_written for mode in MODE_GROUPS.get(name, (name,)))
        return tuple(dict.fromkeys(members))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, mode: object) -> bool:
        return mode in self.names

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of prompts that a model gets: ``box``, ``point``, ``mask``, ``none``."""
        # with clicks the model is also given its own last mask
        masks = {"mask"} if self._click_numbers() else set()
        return frozenset({kind_of(mode) for mode in self} | masks)

    def rounds(self, clicks: int) -> int:
        """How often a model answers each prompt: once, or with clicks once for each click.

        Args:
            clicks: How many clicks the mode ``clicks`` makes, which names no number itself.
        """
        return max([1, *(number or clicks for number in self._click_numbers())])

    def _click_numbers(self) -> list[int]:
        """The number that each mode that clicks names, or 0."""
        parts = [numbered_mode(mode) or (mode, 0) for mode in self]
        return [number for kind, number in parts if kind == "clicks"]


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
    """``(N,)`` bool; ``None`` with ``masks`` given means all. Without ``masks`` it says which
    prompts get one later, see :meth:`samtune.batch.Batch.part`."""
    complete: bool | None = None
    """Whether no point is :data:`ABSENT`, as far as somebody has looked; a GPU would have to be
    waited for."""

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
            InputError: Points without labels, labels without points, or other shapes.
        """
        if (points is None) != (labels is None):
            raise InputError("points and labels come together: give both or neither")
        check_rows("boxes", boxes, (4,))
        check_rows("points", points, (None, 2))
        check_rows("labels", labels, (None,))
        check_rows("masks", masks, (1, None, None))
        first = next((t for t in (boxes, points, masks, image) if t is not None), None)
        n = first.shape[0] if first is not None else (1 if count is None else count)
        device = first.device if first is not None else None
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
            late = any(p.has_mask is not None for p in parts)
            flags = torch.cat([p.mask_flags() for p in parts]) if late else None
            return Prompts(coords, labels, image, None, flags)
        sizes = {tuple(p.masks.shape[1:]) for p in parts if p.masks is not None}
        if len(sizes) > 1:
            raise ValueError(f"mask prompts of several sizes cannot be joined: {sorted(sizes)}")
        masks = torch.cat(
            [like.new_zeros(len(p), *like.shape[1:]) if p.masks is None else p.masks for p in parts]
        )
        has_mask = torch.cat([p.mask_flags() for p in parts])
        return Prompts(coords, labels, image, masks, has_mask)

    def has_absent(self) -> bool:
        """Whether sets of points are filled up with :data:`ABSENT`."""
        if self.complete is not None:
            return not self.complete
        return bool((self.labels == ABSENT).any())

    def mask_flags(self) -> Tensor:
        """``(N,)`` bool: whether each prompt has a mask."""
        if self.has_mask is not None:
            return self.has_mask
        return torch.full((len(self),), self.masks is not None, device=self.coords.device)

    def boxes(self) -> Tensor:
        """``(N, 4)`` xyxy; rows of NaN for prompts without a box."""
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
        """The kinds among them: ``box``, ``point``, ``mask``, and ``none`` for an empty prompt."""
        return {kind for kind, which in self._parts().items() if bool(which.any())}

    def by_kind(self) -> dict[str, Tensor]:
        """The prompts that select their object by each kind, ``(N,)`` bool.

        Of a prompt with several parts that is the box, else the points, else the mask: with points
        or a box, a mask only refines.
        """
        left = torch.ones(len(self), dtype=torch.bool, device=self.coords.device)
        selecting: dict[str, Tensor] = {}
        for kind, which in self._parts().items():
            selecting[kind], left = which & left, left & ~which
        return selecting

    def _parts(self) -> dict[str, Tensor]:
        """The prompts that have a part of each kind, ``(N,)`` bool."""
        corner = (self.labels >= BOX_TOP_LEFT).any(1)
        click = ((self.labels == NEGATIVE) | (self.labels == POSITIVE)).any(1)
        mask = self.mask_flags()
        return {"box": corner, "point": click, "mask": mask, NONE: ~(corner | click | mask)}

    def with_click(self, xy: Tensor, labels: Tensor, masks: Tensor | None = None) -> Prompts:
        """A copy with one more click per prompt, and the last answer as its mask.

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
        """A copy in which all prompts belong to image ``index``."""
        return replace(self, image=torch.full_like(self.image, index))

    def to_model(self, geometry: Geometry) -> Prompts:
        """Maps the coordinates from the original to the model's frame (masks are already in it)."""
        return replace(self, coords=geometry.to_model(self.coords))

    def to(self, device: torch.device | str) -> Prompts:
        """A copy on another device."""
        known = self.labels.device.type == "cpu" and not torch.compiler.is_compiling()
        elsewhere = self.with_tensors(lambda tensor: tensor.to(device, non_blocking=True))
        return replace(elsewhere, complete=not self.has_absent() if known else self.complete)

    def with_tensors(self, move: Callable[[Tensor], Tensor]) -> Prompts:
        """A copy whose tensors are elsewhere.

        Args:
            move: Puts a tensor there.
        """
        return replace(
            self,
            coords=move(self.coords),
            labels=move(self.labels),
            image=move(self.image),
            masks=None if self.masks is None else move(self.masks),
            has_mask=None if self.has_mask is None else move(self.has_mask),
        )
