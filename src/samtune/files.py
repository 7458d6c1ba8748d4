"""Files that are written whole or not at all.

Each is written under another name beside its place, and then renamed: a reader never sees half a
file, and what fails or is interrupted leaves the earlier one as it was.
"""

from __future__ import annotations

import json
import os
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samtune.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

REMEDY = "free some space or choose another output"
CHECKSUM = "checksum"
"""The entry of a file that its other contents are checked with."""
WRITTEN_BY = "samtune_verb"
"""The entry of a file of weights that names the verb which wrote it."""


def as_path(text: str | Path) -> Path:
    """A path as a person writes it: ``~`` is the home folder, ``~name`` that of a user.

    Everything else is literal, and so is ``~name`` where that lies here or no such user is known.

    Raises:
        InputError: No system has such a path.
    """
    path = Path(text)
    try:
        impossible = b"\0" in os.fsencode(path)
    except UnicodeEncodeError:
        impossible = True
    if impossible:
        raise InputError(
            f"{str(path)[:80]!r}: is no path; it has a character that no path can have"
        )
    first = path.parts[:1]
    if first and first[0] != "~" and first[0].startswith("~") and Path(first[0]).exists():
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def same_place(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file or folder, by links or by a file system without cases."""
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet
        return one.resolve() == other.resolve()


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies anywhere in it, also where the path is not there yet."""
    real = path.resolve()
    return any(same_place(each, folder) for each in (real, *real.parents))


def refuse_onto(option: str, target: Path, sources: Iterable[str | Path | None]) -> None:
    """Refuses a file to write that is one of those to read.

    Args:
        option: What the line calls the target, as in ``--out=model.pth``.
        target: The file to write.
        sources: The files and folders that are read; those that are not there do not count.

    Raises:
        InputError: It names another file.
    """
    for source in (as_path(each) for each in sources if each is not None):
        within = source.is_dir() and lies_in(target, source)
        if within or (source.exists() and same_place(target, source)):
            folder = source.resolve().parent if within else target.parent
            other = free_path(folder / f"{target.stem}-new{target.suffix}")
            raise InputError(
                f"{option}: {source} is read, and what is written needs a path of its own; choose "
                f"another, as in {other}"
            )


def refuse_to_replace(option: str, target: Path, verb: str) -> None:
    """Refuses to write where a file is that the verb did not write.

    Args:
        option: What the line calls the target, as in ``--out=model.pth``.
        target: The file to write.
        verb: The verb that may replace its own files, see :func:`written_by`.

    Raises:
        InputError: It names another file.
    """
    if os.path.lexists(target) and written_by(target) != verb:
        raise InputError(
            f"{option}: is there already, and not written by samtune {verb}; choose another file, "
            f"as in {free_path(target)}, or remove it first"
        )


def written_by(path: Path) -> str | None:
    """The verb that wrote a file of weights, as the file itself says; ``None`` of any other."""
    from safetensors import SafetensorError, safe_open

    try:
        if zipfile.is_zipfile(path):  # a file of torch.save
            with zipfile.ZipFile(path) as archive:
                return archive.comment.decode("utf-8").partition(f"{WRITTEN_BY}=")[2] or None
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get(WRITTEN_BY)
    except (OSError, ValueError, SafetensorError, zipfile.BadZipFile):
        return None


def sign_archive(path: Path, verb: str) -> None:
    """Notes in a file of ``torch.save``, behind its tensors, which verb wrote it."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = f"{WRITTEN_BY}={verb}".encode()


def free_path(path: Path) -> Path:
    """The path, or where that exists the first of ``NAME-2``, ``NAME-3``, ... that does not."""
    ending = path.suffix if path.is_file() else ""
    count, stem = 1, path.name.removesuffix(ending)
    while path.exists():
        count += 1
        path = path.with_name(f"{stem}-{count}{ending}")
    return path


def check_room(folder: Path, remedy: str = REMEDY, room: int = 2**20) -> None:
    """Refuses a folder that cannot be written, or a disk without any room, before any work.

    What is tried is removed again, and so is the folder if it was made for that.

    Args:
        folder: Where something will be written.
        remedy: See :func:`replacing`.
        room: Bytes that must fit.

    Raises:
        InputError: They do not.
    """
    new_folders = [each for each in (folder, *folder.parents) if not each.exists()]
    probe = folder / f".{os.getpid()}.partial"
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
    """Writes bytes, or text as UTF-8; a file's name that is none stands as its escaped bytes.

    Args:
        path: The file to write or to replace.
        content: All of it.
        remedy: See :func:`replacing`.

    Raises:
        InputError: The file could not be written.
    """
    with replacing(path, remedy) as partial:
        partial.write_bytes(
            content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
        )
    return Path(path)


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    remedy: str = REMEDY,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Writes tensors as safetensors, with a checksum of all that the file holds.

    Args:
        path: The file to write or to replace.
        tensors: By name, each contiguous and with memory of its own.
        remedy: See :func:`replacing`.
        metadata: What the file's header says besides.

    Raises:
        InputError: The file could not be written.
    """
    from safetensors.torch import save_file

    notes = dict(metadata or {})
    notes[CHECKSUM] = checksum_of(tensors, notes)
    with replacing(path, remedy) as partial:
        save_file(dict(tensors), partial, metadata=notes)
    return Path(path)


def read_tensors(path: str | Path, remedy: str) -> dict[str, Tensor]:
    """The tensors of a file of :func:`write_tensors`, on the CPU.

    Args:
        path: The file; what other or earlier programs wrote has no checksum, and is not checked.
        remedy: What a reader can do about a damaged file, the end of its one line.

    Raises:
        InputError: It cannot be read, or holds something else than was written.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            notes = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, ValueError, SafetensorError) as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
        raise InputError(f"{path}: {what}; {remedy}") from error
    written = notes.pop(CHECKSUM, None)
    if written is not None and written != checksum_of(tensors, notes):
        raise InputError(f"{path}: is damaged (its checksum is of other contents); {remedy}")
    return tensors


def checksum_of(tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> str:
    """A hash of tensors with their names, kinds and shapes, and of what is noted beside them."""
    import torch

    total = blake2b(json.dumps(dict(notes), sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def sealed_json(tree: Mapping[str, Any]) -> str:
    """A tree as JSON with a checksum of itself, see :func:`read_sealed`."""
    return json.dumps({**tree, CHECKSUM: _checksum_of_tree(tree)}, indent=1) + "\n"


def read_sealed(path: str | Path, remedy: str) -> dict[str, Any]:
    """What :func:`sealed_json` made a file of; one without a checksum is of an earlier version.

    Args:
        path: The file.
        remedy: What a reader can do about a damaged file, the end of its one line.

    Raises:
        InputError: It is missing, no JSON object, or holds something else than was written.
    """
    try:
        tree = json.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: is missing; {remedy}") from error
    except (OSError, ValueError, RecursionError) as error:
        what = f"is damaged, not readable as JSON ({str(error).splitlines()[0]})"
        raise InputError(f"{path}: {what}; {remedy}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path}: is damaged, no JSON object; {remedy}")
    written = tree.pop(CHECKSUM, None)
    if written is not None and written != _checksum_of_tree(tree):
        raise InputError(f"{path}: is damaged (its checksum is of other contents); {remedy}")
    return tree


def _checksum_of_tree(tree: Mapping[str, Any]) -> str:
    return blake2b(json.dumps(tree, sort_keys=True).encode(), digest_size=16).hexdigest()


def _is_of_writing(error: Exception) -> bool:
    """Whether an error is the disk's: torch and safetensors have types of their own for those."""
    from safetensors import SafetensorError

    # torch's writer of archives raises nothing more special than this.
    of_torch = isinstance(error, RuntimeError) and "PytorchStreamWriter" in str(error)
    return of_torch or isinstance(error, OSError | SafetensorError)
