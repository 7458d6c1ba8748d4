"""NumPy files, read by any number of threads at once.

NumPy parses the header of an array with :mod:`ast`. Before Python 3.11.8 and 3.12.1 two threads
that parse at the same time can disturb each other (SystemError, python/cpython#106905), so headers
are read one at a time.
"""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

_ONE_HEADER = Lock()

if hasattr(os, "register_at_fork"):  # else a child could wait for a thread that it does not have
    os.register_at_fork(
        before=_ONE_HEADER.acquire,
        after_in_parent=_ONE_HEADER.release,
        after_in_child=_ONE_HEADER.release,
    )


def mapped(path: Path) -> NDArray:
    """The array of an ``.npy`` file, whose values are read from disk as they are used.

    Raises:
        OSError, ValueError, EOFError: It is no such file, or it holds Python objects.
    """
    if not path.is_file():  # a pipe may have no end
        raise ValueError("is not a file")
    with _ONE_HEADER:
        return np.load(path, mmap_mode="r")


class Archive:
    """The arrays of an ``.npz`` file by name, to be used in a ``with`` statement.

    Raises:
        OSError, ValueError, EOFError, zipfile.BadZipFile: It is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")  # it is ours to close where NumPy refuses the file
        try:
            with _ONE_HEADER:  # NumPy takes an .npy file here too
                self._archive = np.load(self._file)
            if not isinstance(self._archive, np.lib.npyio.NpzFile):
                raise ValueError("is not an .npz archive")
        except BaseException:
            self._file.close()
            raise
        self.names = list(self._archive.files)

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()
        self._file.close()

    def __getitem__(self, name: str) -> NDArray:
        """The array of this name.

        Raises:
            KeyError: There is none.
            OSError, ValueError, zipfile.BadZipFile: It cannot be read, or holds Python objects.
        """
        if name not in self.names:
            raise KeyError(f"{name} is not a file in the archive")
        members = self._archive.zip.namelist()
        stream = BytesIO(self._archive.zip.read(name if name in members else f"{name}.npy"))
        with _ONE_HEADER:  # what takes long, the decompression, is done
            return np.lib.format.read_array(stream, allow_pickle=False)
