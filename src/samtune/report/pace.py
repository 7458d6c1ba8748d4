"""How fast a piece of work goes, and how long it will still take."""

from __future__ import annotations

import time
from collections import deque
from statistics import median

from samtune.report.quantities import duration, rate_of

LATEST = 20
"""The rate is that of so many latest intervals, of which a validation between two is only one."""
SURE = 3
"""Number of intervals that are needed before an estimate is shown."""


class Pace:
    """The pace of work that is done in pieces, such as steps.

    Args:
        images: Images in a piece; 0 if the pieces are none.
    """

    def __init__(self, images: int = 0) -> None:
        self.images = images
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] = (0.0, 0)
        self._seconds: deque[float] = deque(maxlen=LATEST)
        """Per piece, of the latest intervals."""

    def note(self, done: int) -> None:
        """Notes that so many pieces are done by now."""
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
        elif done > self._last[1]:
            self._seconds.append((now - self._last[0]) / (done - self._last[1]))
        self._last = now, done

    @property
    def images_per_second(self) -> float | None:
        """The rate of the latest pieces alone; ``None`` while too little is known."""
        if not self.images or len(self._seconds) < SURE or median(self._seconds) <= 0:
            return None
        return self.images / median(self._seconds)

    def seconds_left(self, total: int) -> float | None:
        """The time left at the pace of everything so far, with pauses; ``None`` while unknown."""
        if self._first is None or len(self._seconds) < SURE:
            return None
        (start, before), (now, done) = self._first, self._last
        return (now - start) / (done - before) * (total - done)

    def words(self, total: int) -> str:
        """The pace in words, as ``12.3 images/s, 2 min 10 s left``; empty while it is unknown."""
        rate, left = self.images_per_second, self.seconds_left(total)
        told = [] if rate is None else [f"{rate_of(rate)} images/s"]
        told += [f"{duration(left)} left"] if left else []
        return ", ".join(told)
