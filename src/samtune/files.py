"""Files that are written whole or not at all.

Each file is written under another name in the same folder, waited for until it is on the disk, and
then renamed. A reader never sees half a file, and a failed write, a kill or a power cut leaves the
earlier file as it was.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samtune.errors import InputError, OutputError
from samtune.leftovers import (
    earlier_path,
    partial_path,
    put_in_place,
    refuse_other_kind,
    remove_abandoned,
)
from samtune.texts import read_json

if TYPE_CHECKING:
    from torch import Tensor

REMEDY = "free some space or choose another output"
CHECK_PATH = "check the path"
"""The remedy if there is nothing at a path."""
CHECKSUM = "checksum"
"""The entry of a file with the checksum of its other contents."""
WRITTEN_BY = "samtune_verb"
"""The entry of a weights file that names the verb that wrote it."""


def as_path(text: str | Path) -> Path:
    """A path as people write it: ``~`` is the home folder, ``~name`` that of a user.

    Everything else is literal; so is ``~name`` if a file of that name exists here or no such user
    is known.

    Raises:
        InputError: The text cannot be a path on any system.
    """
    if not isinstance(text, str | os.PathLike):
        raise InputError(f"{type(text).__name__}: is no path; give a text or a pathlib.Path")
    path = Path(text)
    try:
        impossible = b"\0" in os.fsencode(path)
    except UnicodeEncodeError:
        impossible = True
    if impossible:
        raise InputError(
            f"{str(path)[:80]!r}: is not a path; it contains a character that paths cannot have"
        )
    first = path.parts[:1]
    if first and first[0] != "~" and first[0].startswith("~") and Path(first[0]).exists():
        return path
    with suppress(RuntimeError):
        return path.expanduser()
    return path


def why_no_folder(path: Path) -> str:
    """A clause that says why a path is no folder; empty if it is one."""
    if path.is_dir():
        return ""
    return f"the folder {'is a file, not a folder' if path.exists() else 'does not exist'}"


def same_place(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file or folder, by links or by a case-insensitive system."""
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist yet
        return one.resolve() == other.resolve()


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies anywhere in it; the path need not exist yet."""
    real = path.resolve()
    return any(same_place(each, folder) for each in (real, *real.parents))


def refuse_onto(option: str, target: Path, sources: Iterable[str | Path | None]) -> None:
    """Refuses to write to a file that is one of the inputs.

    Args:
        option: The target as messages name it, as in ``--out=model.pth``.
        target: The file to write.
        sources: The files and folders that are read; missing ones are ignored.

    Raises:
        InputError: The message suggests another name.
    """
    for source in (as_path(each) for each in sources if each is not None):
        within = source.is_dir() and lies_in(target, source)
        if within or (source.exists() and same_place(target, source)):
            folder = source.resolve().parent if within else target.parent
            other = free_path(folder / f"{target.stem}-new{target.suffix}")
            raise InputError(
                f"{option}: {source} is an input and is never overwritten; choose another path, "
                f"as in {other}"
            )


def refuse_to_replace(option: str, target: Path, verb: str) -> None:
    """Refuses to overwrite a file that the verb did not write.

    Args:
        option: The target as messages name it, as in ``--out=model.pth``.
        target: The file to write.
        verb: The verb that may replace its own files, see :func:`written_by`.

    Raises:
        InputError: The message suggests another name.
    """
    if os.path.lexists(target) and written_by(target) != verb:
        raise InputError(
            f"{option}: is there already, and not written by samtune {verb}; choose another file, "
            f"as in {free_path(target)}, or remove it first"
        )


def written_by(path: Path) -> str | None:
    """The verb that wrote a weights file, as noted in the file; ``None`` for other files."""
    from safetensors import SafetensorError, safe_open

    try:
        if zipfile.is_zipfile(path):  # a file written by torch.save
            with zipfile.ZipFile(path) as archive:
                return archive.comment.decode("utf-8").partition(f"{WRITTEN_BY}=")[2] or None
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get(WRITTEN_BY)
    except (OSError, ValueError, SafetensorError, zipfile.BadZipFile):
        return None


def free_path(path: Path) -> Path:
    """The path, or if it exists the first of ``NAME-2``, ``NAME-3``, ... that does not."""
    if not path.name or path.name == "..":  # as of the folder that one is in
        path = path.resolve()
    if not path.name:  # of a disk as a whole
        path = path / "samtune"
    ending = path.suffix if path.is_file() else ""
    count, stem = 1, path.name.removesuffix(ending)
    while path.exists():
        count += 1
        path = path.with_name(f"{stem}-{count}{ending}")
    return path


def check_room(folder: Path, remedy: str = REMEDY, room: int = 2**20) -> None:
    """Refuses a folder that cannot be written, or a full disk, before any work is done.

    The test file is removed again, and so is the folder if it was created for the test.

    Args:
        folder: The folder in which something will be written.
        remedy: See :func:`replacing`.
        room: Number of bytes that must fit.

    Raises:
        InputError: Writing failed.
    """
    new_folders = [each for each in (folder, *folder.parents) if not each.exists()]
    probe = partial_path(folder / "room")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(bytes(room))
    except OSError as error:
        raise InputError(f"{folder}: could not be written ({error.strerror}); {remedy}") from error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
            for each in new_folders:
                each.rmdir()


@contextmanager
def replacing(path: str | Path, remedy: str = REMEDY, lasting: bool = True) -> Iterator[Path]:
    """Gives a block a path to write to, and afterwards moves that file to ``path``.

    A missing folder is created. The permissions follow the umask, even if a writer such as
    safetensors grants fewer. After an error or Ctrl-C no partial file is left.

    Args:
        path: The file to write or to replace.
        remedy: The end of an error message: what the user can do about it.
        lasting: Whether a power cut must not take it, as one of many that are made anew if needed.

    Raises:
        InputError: The file could not be written.
    """
    path = Path(path)
    if not path.name:
        raise InputError(f"{path}: is not a file name; give one, as in {path / 'NAME'}")
    refuse_other_kind(path, "file")
    # One name per process, so that two processes that write the same file do not collide.
    partial = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        partial.touch()
        mode = stat.S_IMODE(partial.stat().st_mode)
        yield partial
        partial.chmod(mode)
        put_in_place(partial, path, lasting)
    except Exception as error:
        if not _is_of_writing(error):
            raise
        raise OutputError(f"{path}: could not be written ({error}); {remedy}") from error
    finally:
        with suppress(OSError):  # its folder may not exist
            partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path, remedy: str = REMEDY) -> Iterator[Path]:
    """Gives a block an empty folder to fill; after the block it takes the place of ``folder``.

    After an error the earlier folder, if there was one, is as it was, and no partial one is left.

    Args:
        folder: The folder to write or to replace.
        remedy: See :func:`replacing`.

    Raises:
        InputError: It could not be written.
    """
    refuse_other_kind(folder, "folder")
    partial, earlier = partial_path(folder), earlier_path(folder)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if folder.exists():
            os.replace(folder, earlier)
        os.replace(partial, folder)
    except Exception as error:
        if earlier.exists() and not folder.exists():
            os.replace(earlier, folder)
        if _is_of_writing(error):
            raise OutputError(f"{folder}: could not be written ({error}); {remedy}") from error
        if isinstance(error, InputError) and str(partial) in str(error):  # a file within it
            raise InputError(str(error).replace(str(partial), str(folder))) from error
        raise
    finally:
        for each in (partial, earlier):
            shutil.rmtree(each, ignore_errors=True)


def check_permission(path: str | Path) -> None:
    """Refuses a file that must not be read, which safetensors would call missing.

    Raises:
        PermissionError: It names the file.
    """
    if Path(path).exists() and not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def write_whole(
    path: str | Path, content: bytes | str, remedy: str = REMEDY, lasting: bool = True
) -> Path:
    """Writes bytes, or text as UTF-8; undecodable bytes of file names are restored.

    Args:
        path: The file to write or to replace.
        content: The whole content.
        remedy: See :func:`replacing`.
        lasting: See there.

    Raises:
        InputError: The file could not be written.
    """
    whole = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with replacing(path, remedy, lasting) as partial:
        partial.write_bytes(whole)
    return Path(path)


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    remedy: str = REMEDY,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Writes tensors as safetensors, with a checksum of the whole content.

    What killed writers of the same file left is removed, because it may be large.

    Args:
        path: The file to write or to replace.
        tensors: By name, each contiguous and in its own memory.
        remedy: See :func:`replacing`.
        metadata: Additional entries of the file's header.

    Raises:
        InputError: The file could not be written.
    """
    from safetensors.torch import save_file

    notes = dict(metadata or {})
    notes[CHECKSUM] = checksum_of(tensors, notes)
    remove_abandoned(Path(path).parent, Path(path).name)
    with replacing(path, remedy) as partial:
        save_file(dict(tensors), partial, metadata=notes)
    return Path(path)


def read_tensors(path: str | Path, remedy: str) -> dict[str, Tensor]:
    """Reads a file of :func:`write_tensors` to the CPU.

    Args:
        path: The file; files of other or earlier programs have no checksum and are not checked.
        remedy: The end of an error message: what the user can do about a damaged file.

    Raises:
        InputError: The file is damaged, or its contents have changed.
        PermissionError: It must not be read, so that nobody knows whether it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    check_permission(path)
    if Path(path).exists() and not Path(path).is_file():  # a pipe may have no end
        raise InputError(f"{path}: is damaged (not a file); {remedy}")
    try:
        with safe_open(path, "pt") as file:
            notes = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, ValueError, SafetensorError) as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
        raise InputError(f"{path}: {what}; {remedy}") from error
    written = notes.pop(CHECKSUM, None)
    if written is not None and written != checksum_of(tensors, notes):
        raise InputError(f"{path}: is damaged (its checksum does not match); {remedy}")
    return tensors


def checksum_of(tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> str:
    """A hash of tensors with their names, dtypes and shapes, and of the metadata."""
    total = blake2b(json.dumps(dict(notes), sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        import torch  # not for notes alone

        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def sealed_json(tree: Mapping[str, Any]) -> str:
    """A tree as JSON with a checksum of itself, see :func:`read_sealed`."""
    return json.dumps({**tree, CHECKSUM: checksum_of({}, tree)}, indent=1) + "\n"


def read_sealed(path: str | Path, remedy: str) -> dict[str, Any]:
    """Reads a file of :func:`sealed_json`; a file without a checksum is of an earlier version.

    Args:
        path: The file.
        remedy: The end of an error message: what the user can do about a damaged file.

    Raises:
        InputError: The file is missing, is not a JSON object, or its contents have changed.
        PermissionError: It must not be read, so that nobody knows whether it is damaged.
    """
    try:
        tree = read_json(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: is missing; {remedy}") from error
    except PermissionError:
        raise
    except (OSError, ValueError) as error:
        what = f"is damaged, not readable as JSON ({str(error).splitlines()[0]})"
        raise InputError(f"{path}: {what}; {remedy}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path}: is damaged, no JSON object; {remedy}")
    written = tree.pop(CHECKSUM, None)
    if written is not None and written != checksum_of({}, tree):
        raise InputError(f"{path}: is damaged (its checksum does not match); {remedy}")
    return tree


def _is_of_writing(error: Exception) -> bool:
    """Whether an error comes from the disk, also as the types of torch and safetensors."""
    from safetensors import SafetensorError

    # torch's archive writer raises no more specific type.
    of_torch = isinstance(error, RuntimeError) and "inline_container.cc" in str(error)
    return of_torch or isinstance(error, OSError | SafetensorError)
