"""Numbers in the form in which people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, TypeGuard


def metric(value: float | None, sign: bool = False) -> str:
    """A fraction as ``0.812`` (``+0.812`` with ``sign``), a count as it is, a dash for ``None``."""
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    if isinstance(value, Integral):
        return str(value)
    value = round(value, 3) + 0.0  # a difference of zero has no sign
    text = f"{value:+.3f}" if sign and value else f"{value:.3f}"
    return text.replace("-", "\N{MINUS SIGN}")


def span(ends: Sequence[float | None] | None, sign: bool = False) -> str:
    """An interval as ``0.781-0.834``, with ``sign`` ``+0.010 to +0.034``; empty without one."""
    if not ends or None in ends:
        return ""
    signed = sign or any(end is not None and end < 0 for end in ends)
    return (" to " if signed else "\N{EN DASH}").join(metric(end, sign) for end in ends)


def quantity(value: float, unit: str = "") -> str:
    """A number with a decimal prefix: ``1.2 M``, ``1.4 GB``."""
    for power, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * power:
            return f"{value / power:.3g} {prefix}{unit}"
    return f"{value:.0f} {unit}".rstrip()


def count(value: float) -> str:
    """A whole number, not rounded off, and short if it ends in zeros: ``1250``, ``20 k``."""
    whole = round(value)
    for power, least, prefix in ((10**9, 10**9, "G"), (10**6, 10**6, "M"), (10**3, 10**4, "k")):
        if whole >= least and whole % power == 0:
            return f"{whole // power} {prefix}"
    return str(whole)


def counted(number: int, noun: str, nouns: str | None = None) -> str:
    """A number of things: ``1 image``, ``3 images``.

    Args:
        number: How many.
        noun: The word for one of them.
        nouns: The word for several, if that is not the noun with an ``s``.
    """
    return f"{number} {noun if number == 1 else nouns or f'{noun}s'}"


def duration(seconds: float) -> str:
    """A time in its two largest units: ``8.4 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def rate_of(per_second: float | None) -> str:
    """A rate per second in three digits: ``0.412``, ``12.3``, ``840``; a dash for ``None``."""
    if per_second is None:
        return metric(None)
    digits = max(0, 2 - math.floor(math.log10(per_second))) if per_second > 0 else 0
    return f"{per_second:.{min(digits, 3)}f}"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a number and not a bool."""
    return isinstance(value, Real) and not isinstance(value, bool)
