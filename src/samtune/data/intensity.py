"""The bands of an image that a model uses, and the conversion of their values to bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.data.config import DataConfig
from samtune.data.problems import DataError, remark
from samtune.errors import InputError
from samtune.geometry import InputPolicy

NOT_FINITE = "not finite"
"""The kind of a remark about NaN and infinite values."""
PERCENTILES = (0.5, 99.5)
"""Percentiles between which ``percentile`` scales images of more than 8 bits."""
_SAFE = 1e18
"""Magnitude above which squares and differences overflow in single precision."""
OF_READING = ("bands", "intensity", "window", "range")
"""The settings of data that say how the pixels of a file become a model's input."""
DEVIATIONS = 3.0
"""Standard deviations on each side of the mean that ``zscore`` keeps."""


def reading(data: DataConfig) -> dict[str, Any]:
    """The fields of an input policy about reading files.

    Raises:
        InputError: Settings conflict.
    """
    bands, window, fixed = data.bands, data.window, data.range
    if bands is not None and (len(bands) not in (1, 3) or min(bands) < 0):
        raise InputError(f"data.bands={list(bands)}: give one band or three, counted from 0")
    for key, limits, policy in (("window", window, "window"), ("range", fixed, "fixed")):
        if limits is not None and data.intensity != policy:
            raise InputError(
                f"data.{key}={list(limits)}: needs data.intensity={policy}; set that too"
            )
        if limits is not None and not limits[0] < limits[1]:
            raise InputError(f"data.{key}={list(limits)}: must be the low and the high value")
    return {
        "bands": bands,
        "intensity": data.intensity,
        "limits": window or fixed,
        "slice_axis": data.slice_axis,
    }


def policy_of(data: DataConfig) -> InputPolicy:
    """An input policy for reading files without a frame.

    Raises:
        InputError: See :func:`reading`.
    """
    return InputPolicy((1, 1), **reading(data))


def settings_of(header: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of ``data`` for which :func:`reading` returns this stored input policy."""
    stored = InputPolicy.of(header)
    found: dict[str, Any] = {"intensity": stored.intensity, "slice_axis": stored.slice_axis}
    if stored.bands is not None:
        found["bands"] = list(stored.bands)
    if stored.limits is not None:
        found["window" if stored.intensity == "window" else "range"] = list(stored.limits)
    return found


def check_same(data: DataConfig, policy: InputPolicy) -> None:
    """Refuses settings with which files would be read differently than in training.

    Raises:
        InputError: A setting differs; the message names the first one.
    """
    for key, value in reading(data).items():
        trained = getattr(policy, key)
        if key != "slice_axis" and value != trained:
            name = {"limits": "window" if policy.intensity == "window" else "range"}.get(key, key)
            how = "without it" if trained is None else f"with {trained}"
            raise InputError(
                f"data.{name}={value}: the checkpoint was trained {how}, and its images must be "
                "read the same way; leave it out"
            )


def to_rgb(array: NDArray, policy: InputPolicy | None, path: Path) -> NDArray[np.uint8]:
    """Selects the policy's bands of ``(h, w, channels)`` and converts them to ``(h, w, 3)`` bytes.

    - ``percentile``: bytes stay; for deeper values the 0.5th percentile becomes 0, the 99.5th 255.
    - ``zscore``: three standard deviations below the mean become 0, three above 255.
    - ``window`` and ``fixed``: the lower limit becomes 0, the upper one 255; by default the DICOM
      file's own for ``window``, those of the stored integers for ``fixed``.

    The statistics are computed over all channels of the image together; if bands are chosen, for
    each band separately. Values beyond the limits are clipped. NaN, infinite values and pixels
    masked as without data are left out of the statistics and become 0.

    Raises:
        InputError: There are more than four channels without a choice, a band does not exist,
            floats have no range, or there is no window.
    """
    bands = None if policy is None else policy.bands
    values = _take_bands(array, bands, path)
    blank = _blank(values, bands is not None)
    _remark_numbers(values, path)
    values = np.ma.getdata(values)
    if policy is None or policy.intensity == "percentile":
        if values.dtype == bool:
            values = values.astype(np.uint8) * 255
        rgb = values
        if values.dtype != np.uint8:
            rgb = _spread(values, blank, bands is not None, _percentiles)
    elif policy.intensity == "zscore":
        rgb = _spread(values, blank, bands is not None, _deviations)
    else:
        limits = policy.limits or default_limits(policy, values, path)
        rgb = in_bytes(_finite(values), *limits)
    if blank is not None:
        rgb = np.where(blank, np.uint8(0), rgb)
    return np.ascontiguousarray(rgb if rgb.shape[2] == 3 else rgb.repeat(3, axis=2))


def _remark_numbers(values: NDArray, path: Path) -> None:
    """Counts values that are not finite, and refuses an image without any finite value."""
    if not np.issubdtype(values.dtype, np.inexact):
        return
    there = ~np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    data = np.ma.getdata(values)
    data = data if there is None else data[there]
    finite = np.isfinite(data)
    most = np.finfo(np.float32).max
    large = int((finite & (np.abs(data, where=finite, out=np.zeros_like(data)) > most)).sum())
    nan, infinite = int(np.isnan(data).sum()), int(np.isinf(data).sum())
    if data.size and not finite.any():
        what = f"all {data.size} values are NaN or infinite"
        raise DataError(path, "no numbers", what, "export the image again, or remove the pair")
    kinds = ((nan, "NaN"), (infinite, "infinite"), (large, f"beyond {most:.2g}"))
    met = [f"{count} {kind}" for count, kind in kinds if count]
    if met:
        what = f"{', '.join(met)} of {data.size} values"
        remedy = "legal; they are left out of the scale, and black"
        remark(path, NOT_FINITE, what, remedy)


def _blank(values: NDArray, apart: bool) -> NDArray[np.bool_] | None:
    """``(h, w, channels)``: true at pixels without data; ``None`` if there are none.

    A pixel with whole-number colours is blank only if all its channels are, because a single
    channel may well have the nodata value.
    """
    blank = None
    if isinstance(values, np.ma.MaskedArray):
        blank = np.ma.getmaskarray(values)
        if not apart and np.issubdtype(values.dtype, np.integer):
            blank = np.broadcast_to(blank.all(2, keepdims=True), values.shape)
    if np.issubdtype(values.dtype, np.inexact):
        infinite = ~(np.abs(np.ma.getdata(values)) <= np.finfo(np.float32).max)  # NaN too
        blank = infinite if blank is None else blank | infinite
    return blank if blank is not None and blank.any() else None


def _take_bands(array: NDArray, bands: tuple[int, ...] | None, path: Path) -> NDArray:
    count = array.shape[2]
    if bands is None:
        if count > 4:
            raise DataError(
                path,
                "many channels",
                f"the image has {count} channels, but a model takes three",
                "choose with data.bands=[i,j,k], or save each slice as a separate file",
            )
        return array[..., :3] if count > 2 else array[..., :1]
    if max(bands) >= count:
        raise DataError(
            path,
            "missing band",
            f"the image has {count} bands, 0 to {count - 1}, but data.bands={list(bands)}",
            "choose others, or remove the file",
        )
    return array[..., list(bands)]


def _spread(
    array: NDArray, blank: NDArray[np.bool_] | None, apart: bool, limits: Any
) -> NDArray[np.uint8]:
    values = _finite(array)
    there = None if blank is None else ~blank

    def scaled(part: NDArray[np.float32], known: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
        measured = part if known is None else part[known]
        return (
            in_bytes(part, *limits(measured)) if measured.size else np.zeros(part.shape, np.uint8)
        )

    if not apart:
        return scaled(values, there)
    bands = range(values.shape[2])
    known = [None if there is None else there[..., i] for i in bands]
    return np.stack([scaled(values[..., i], known[i]) for i in bands], axis=2)


def _percentiles(values: NDArray[np.float32]) -> tuple[float, float]:
    low, high = np.percentile(values, PERCENTILES)
    if high <= low:
        low, high = float(values.min()), float(values.max())
    return float(low), float(high)


def _deviations(values: NDArray[np.float32]) -> tuple[float, float]:
    mean, spread = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    return mean - DEVIATIONS * spread, mean + DEVIATIONS * spread


def default_limits(policy: InputPolicy, array: NDArray, path: Path) -> tuple[float, float]:
    """The values of black and of white if nobody says them, from the kind of the values.

    Raises:
        InputError: There is no window, or floats have no range.
    """
    if policy.intensity == "window":
        raise DataError(
            path,
            "no window",
            "data.intensity=window: the file contains no window",
            "set data.window=[low,high], as in [-160,240]",
        )
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"{path}: holds {array.dtype} values, which have no natural range; set "
            "data.range=[low,high]"
        )
    info = np.iinfo(array.dtype)
    return float(info.min), float(info.max)


def _finite(array: NDArray) -> NDArray[Any]:
    """The values as floats, in double precision if single would lose differences."""
    most = np.finfo(np.float32).max
    if np.issubdtype(array.dtype, np.inexact):
        array = np.where(np.abs(array) <= most, array, 0)  # also for NaN
    large = bool(array.size) and float(np.abs(array).max()) > _SAFE
    return array.astype(np.float64 if large else np.float32)


def in_bytes(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Values as bytes: the low one becomes 0, the high one 255, and others beyond are clipped."""
    stretched = (values - low) * (255.0 / max(high - low, 1e-12))
    return np.clip(stretched + 0.5, 0, 255).astype(np.uint8)
