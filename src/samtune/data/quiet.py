"""Hides the output of libraries while they read a file; samtune reports what matters."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile

_LOGGERS = ("PIL", "nibabel", "nibabel.global", "pydicom", "rasterio", "tifffile")
_NOWHERE = logging.NullHandler()
"""The handler without which messages that a logger does not pass on would go to stderr."""


class _Readers(threading.local):
    """How many readers of files are nested in this thread."""

    depth = 0


_HERE = _Readers()


class _WhileReading(type):
    def __subclasscheck__(cls, category: type) -> bool:
        return _HERE.depth > 0


class _OfReader(Warning, metaclass=_WhileReading):
    """Stands in the list of filters for every warning of a thread that reads, and of no other.

    The filter stays in the list, where it has no effect while nothing is read. Python's own context
    for warnings changes the list of the whole process before Python 3.14: contexts of two threads
    that overlap leave the list of one of them behind.
    """


class _Silence:
    """The state of the process while any thread reads: the first sets it, the last restores it."""

    def __init__(self) -> None:
        self.lock, self.depth, self.undo = threading.Lock(), 0, ExitStack()

    def enter(self) -> None:
        """Counts a reader, and silences the output for the first one."""
        with self.lock:
            if not warnings.filters or warnings.filters[0][2] is not _OfReader:
                warnings.simplefilter("ignore", _OfReader)
            self.depth += 1
            _HERE.depth += 1
            if self.depth > 1:
                return
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
            _HERE.depth -= 1
            self.depth -= 1
            if not self.depth:
                self.undo.close()

    def begin_in_child(self) -> None:
        """Forgets the readers of other threads, which a forked process does not have."""
        self.lock, self.depth = threading.Lock(), _HERE.depth
        if not self.depth:
            self.undo.close()


_SILENCE = _Silence()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_SILENCE.begin_in_child)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences warnings and logs of the libraries that read, and lifts Pillow's limit of pixels.

    Warnings are silent in this thread alone; logs and the limit are those of the whole process.
    """
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
