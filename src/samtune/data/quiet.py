"""Hides the output of libraries while they read a file; samtune reports what matters."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile

_LOGGERS = ("PIL", "nibabel", "nibabel.global", "pydicom", "rasterio", "tifffile")
_NOWHERE = logging.NullHandler()
"""Without it, what a logger does not pass on would go to stderr."""


class _Silence:
    """The state of the process while any thread reads: the first sets it, the last restores it.

    Python's own context for warnings loses the state if threads overlap in it.
    """

    def __init__(self) -> None:
        self.lock, self.depth, self.undo = threading.Lock(), 0, ExitStack()

    def enter(self) -> None:
        """Counts a reader, and silences the output for the first one."""
        with self.lock:
            self.depth += 1
            if self.depth > 1:
                return
            self.undo.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            for name in _LOGGERS:
                # not by levels: to set one, logging forgets those of all loggers of the process
                logger = logging.getLogger(name)
                logger.addHandler(_NOWHERE)
                self.undo.callback(logger.removeHandler, _NOWHERE)
                for switch, off in (("disabled", True), ("propagate", False)):
                    self.undo.callback(setattr, logger, switch, getattr(logger, switch))
                    setattr(logger, switch, off)
            self.undo.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
            Image.MAX_IMAGE_PIXELS = None

    def leave(self) -> None:
        """Counts a reader off, and restores the output after the last one."""
        with self.lock:
            self.depth -= 1
            if not self.depth:
                self.undo.close()


_SILENCE = _Silence()


@contextmanager
def quiet() -> Iterator[None]:
    """Silences warnings and logs of the libraries that read, and lifts Pillow's limit of pixels."""
    _SILENCE.enter()
    try:
        yield
    finally:
        _SILENCE.leave()


@contextmanager
def opened_picture(source: str | Path | BinaryIO) -> Iterator[ImageFile.ImageFile]:
    """A picture of any size, opened by Pillow without its warnings.

    Raises:
        OSError: It cannot be read; other usual error types occur too.
    """
    with quiet(), Image.open(source) as opened:
        yield opened
