"""The bands of an image that a model uses, and those that it does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from samtune.data.config import DataConfig
from samtune.data.quiet import opened_picture
from samtune.data.reading import TIFF, read_channels
from samtune.data.scan import Look
from samtune.data.stored import Stored
from samtune.data.volumes import is_volume

_COLOURS, _WITH_ALPHA = 3, (2, 4)
"""Channel counts of colour images, and of grey or colour images with alpha."""


def channels_of(source: Path | Stored) -> int:
    """Number of bands of an image, from the header if it says so; a palette counts as three."""
    if isinstance(source, Stored) or source.suffix.lower() in TIFF or is_volume(source):
        return read_channels(source).shape[2]
    with opened_picture(source) as opened:
        return _COLOURS if opened.mode == "P" else len(opened.getbands())


def bands_read(channels: int, data: DataConfig) -> tuple[int, ...]:
    """The bands, counted from 0, that a model uses of an image with a number of bands."""
    if data.bands is not None:
        return tuple(data.bands)
    return tuple(range(channels - 1 if channels in _WITH_ALPHA else channels))


def band_lines(looks: Sequence[Look], data: DataConfig) -> list[str]:
    """One line per number of bands: the number of images, and which bands are used and not used."""
    counted = Counter(channels_of(each.record.image) for each in looks)
    lines = []
    for channels, images in sorted(counted.items()):
        used = bands_read(channels, data)
        rest = [band for band in range(channels) if band not in used]
        alpha = data.bands is None and channels in _WITH_ALPHA
        text = f"{_text(used)} used" if rest else "all used"
        if rest:
            text += f", {_text(rest)} not" + (" (alpha)" if alpha else "")
        lines.append(f"{channels} in {images} images: {text}")
    return lines


def _text(bands: Sequence[int]) -> str:
    return ", ".join(map(str, bands))
