"""Files that are written whole or not at all.

Each is written under another name beside its place, and then renamed: a reader never sees half a
file, and what fails or is interrupted leaves the earlier one as it was.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from samtune.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

REMEDY = "free some space or choose another output"


@contextmanager
def replacing(path: str | Path, remedy: str = REMEDY) -> Iterator[Path]:
    """Gives a block the path to write to; after the block that file takes the place of ``path``.

    The folder is made when missing. The permissions are those that the umask gives new files, also
    where a writer such as safetensors grants fewer. After an error or Ctrl-C no partial file is
    left.

    Args:
        path: The file to write or to replace.
        remedy: What a reader can do about a failure, the end of its one line.

    Raises:
        InputError: The file could not be written.
    """
    path = Path(path)
    if not path.name:
        raise InputError(f"{path}: is no name of a file; give one, as in {path / 'NAME'}")
    # One name per process: two that write the same file do not write into each other's.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        partial.touch()
        mode = stat.S_IMODE(partial.stat().st_mode)
        yield partial
        partial.chmod(mode)
        os.replace(partial, path)
    except Exception as error:
        if not _is_of_writing(error):
            raise
        raise InputError(f"{path}: could not be written ({error}); {remedy}") from error
    finally:
        with suppress(OSError):  # its folder may be none
            partial.unlink(missing_ok=True)


def write_whole(path: str | Path, content: bytes | str, remedy: str = REMEDY) -> Path:
    """Writes bytes, or text as UTF-8.

    Args:
        path: The file to write or to replace.
        content: All of it.
        remedy: See :func:`replacing`.

    Raises:
        InputError: The file could not be written.
    """
    with replacing(path, remedy) as partial:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return Path(path)


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    remedy: str = REMEDY,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Writes tensors as safetensors.

    Args:
        path: The file to write or to replace.
        tensors: By name, each contiguous and with memory of its own.
        remedy: See :func:`replacing`.
        metadata: What the file's header says besides.

    Raises:
        InputError: The file could not be written.
    """
    from safetensors.torch import save_file

    with replacing(path, remedy) as partial:
        save_file(dict(tensors), partial, metadata=metadata)
    return Path(path)


def _is_of_writing(error: Exception) -> bool:
    """Whether an error is the disk's: torch and safetensors have types of their own for those."""
    from safetensors import SafetensorError

    # torch's writer of archives raises nothing more special than this.
    of_torch = isinstance(error, RuntimeError) and "PytorchStreamWriter" in str(error)
    return of_torch or isinstance(error, OSError | SafetensorError)
