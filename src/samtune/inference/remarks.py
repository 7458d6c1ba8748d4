"""The remarks of a prediction: failures, and what holds for several images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from samtune.errors import InputError
from samtune.inference.prompt_checks import Outside
from samtune.report.quantities import counted


@dataclass
class Counts:
    """Counts over all images for the remarks."""

    beyond: int = 0
    """Number of images with a box that reaches beyond the edge."""
    earlier: int = 0
    """Number of images that an interrupted earlier call has finished."""
    continued: tuple[str, int, int] | None = None
    """The raster that an interrupted earlier call had begun, the number of its tiles that are taken
    over, and of all."""
    rasters: int = 0
    """Number of rasters that are answered tile by tile."""
    not_in_prompts: int = 0
    """Number of images that the prompts do not name."""
    partly_read: Sequence[tuple[Path, int, int]] = ()
    """The volumes with channels that are not read: their number, and that of those that are."""


class Failure(NamedTuple):
    """An image that could not be done."""

    name: str
    file: str
    error: InputError


def remarks_of(
    failed: Sequence[Failure], images: int, counts: Counts, masks: Sequence[Path]
) -> list[str]:
    """One line per failure and remark.

    A prompt outside of several images gets one line, and so do slices that fail in the same way.
    """
    alike: dict[str, list[tuple[str, InputError]]] = {}
    for _, file, error in failed:
        key = error.prompt if isinstance(error, Outside) else reason_of(file, error)
        alike.setdefault(key, []).append((file, error))
    lines = [_line(key, group, images) for key, group in alike.items()]
    of_all = f"of {counted(images, 'image')}"
    if counts.beyond:
        lines.append(
            f"note: boxes reach beyond the edge of {counts.beyond} {of_all}; they are used as is"
        )
    if counts.earlier:
        verb = "was" if counts.earlier == 1 else "were"
        lines.append(
            f"note: {counts.earlier} {of_all} {verb} done by an earlier call that was stopped; "
            "they stay as it left them"
        )
    if counts.continued is not None:
        file, before, tiles = counts.continued
        lines.append(
            f"note: {file}: goes on after {before} of its {tiles} tiles, which were done by an "
            "earlier call that was stopped"
        )
    if counts.rasters:
        verb = "is" if counts.rasters == 1 else "are"
        lines.append(
            f"note: {counts.rasters} {of_all} {verb} large and answered tile by tile, without an "
            "overlay and an entry in predictions.json"
        )
    if counts.not_in_prompts:
        verb = "is" if counts.not_in_prompts == 1 else "are"
        lines.append(
            f"note: {counts.not_in_prompts} {of_all} {verb} not in the prompts, and answered "
            'without one; give "boxes": [] for an image with nothing in it'
        )
    for path, channels, count in counts.partly_read:
        first = "the first is" if count == 1 else f"the first {count} are"
        lines.append(
            f"note: {path}: has {channels} channels, and {first} read; save another as a volume of "
            "its own to predict on it"
        )
    if masks:
        shown = ", ".join(mask.name for mask in masks[:3]) + (", ..." if len(masks) > 3 else "")
        verb = "is left out as a mask" if len(masks) == 1 else "are left out as masks"
        lines.append(
            f"note: {counted(len(masks), 'file')} {verb} of these images ({shown}); give one as "
            "the source to predict on it"
        )
    return lines


def _line(key: str, group: Sequence[tuple[str, InputError]], images: int) -> str:
    file, error = group[0]
    if len(group) == 1:
        return reason_of(file, error)
    if isinstance(error, Outside):
        return (
            f"{key}: lies outside {len(group)} of {images} images, {file} the first; give pixels "
            "of these images, or --prompts with a box for each"
        )
    return f"{key} ({len(group)} of {images} images)"


def reason_of(file: str, error: InputError) -> str:
    """The line about a file that failed, which names it once."""
    return str(error) if file in str(error) else f"{file}: {error}"
