"""Durations as people write them: ``90s``, ``30m``, ``2h``, ``1h30m``."""

from __future__ import annotations

import re

from samtune.errors import InputError

_UNITS = (86400, 3600, 60, 1)
_DURATION = re.compile(
    r"(?:([\d.]+)d)?(?:([\d.]+)h)?(?:([\d.]+)m(?:in)?)?(?:([\d.]+)s)?", re.IGNORECASE
)


def seconds_in(text: str, key: str = "train.time") -> float:
    """The seconds of a duration such as ``90s``, ``30m``, ``2h`` or ``1h30m``.

    Args:
        text: The duration.
        key: The name of the setting in messages.

    Raises:
        InputError: It is none, or not above 0.
    """
    match = _DURATION.fullmatch("".join(text.split()))
    try:
        parts = [float(part or 0) for part in match.groups()] if match else []
    except ValueError:  # several decimal points
        parts = []
    total = sum(n * unit for n, unit in zip(parts, _UNITS, strict=False))
    if total > 0:
        return total
    unit = "; it needs a unit" if re.fullmatch(r"[\d.]+", text.strip()) else ""
    raise InputError(f"{key}={text}: must be a duration, as 90s, 30m, 2h or 1h30m{unit}")
