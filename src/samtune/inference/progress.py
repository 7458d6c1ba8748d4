"""The journal of a prediction, with which an interrupted one continues."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from samtune.data import Record
from samtune.files import replacing
from samtune.inference.checked_lines import append, changed_meanwhile, checked_line, content_of
from samtune.model.checkpoint import describe
from samtune.model.finetuned import FineTuned
from samtune.sam.weights import fingerprint

Entry = dict[str, Any]


class Journal:
    """A file with one line per finished image, after a line that identifies the prediction.

    Lines are written to disk at once. A line that is incomplete or has changed is dropped with what
    follows it, and lines of another prediction are not used.

    Args:
        path: The file; it is there until all images are finished.
        identity: A digest of everything that affects all images, from :func:`identity_of`.
        remedy: See :func:`samtune.files.replacing`.
    """

    def __init__(self, path: Path, identity: str, remedy: str) -> None:
        self.path, self.identity, self.remedy = path, identity, remedy
        self._places: dict[str, int] = {}
        """The position of each image's line, by its key."""
        self._masks: dict[str, int] = {}
        """The number of masks of each image, by its key."""
        first = json.dumps({"of": identity})
        self._end = self._read(first) if path.is_file() else 0
        with replacing(path, remedy) as partial:
            kept = path.read_bytes()[: self._end] if self._end else f"{first}\n".encode()
            partial.write_bytes(kept)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def masks(self, keys: Iterable[str]) -> int:
        """The number of masks of some images, of those that are finished."""
        return sum(self._masks.get(key, 0) for key in keys)

    def add(self, key: str, entries: Sequence[Entry], size: tuple[int, int]) -> None:
        """Records that an image is finished.

        Args:
            key: The key from :func:`key_of`.
            entries: The entries of its masks.
            size: Height and width of the image.

        Raises:
            OutputError: The disk is full.
        """
        line = checked_line({"key": key, "size": size, "entries": list(entries)})
        place = append(self.path, line, self.remedy)
        self._places[key], self._masks[key] = place, len(entries)

    def finish(self, target: Path, keys: Sequence[str], stays: bool = False) -> None:
        """Writes the entries of all images as one list, and removes the journal.

        If no image is finished, nothing is written, and an empty folder is removed.

        Args:
            target: The file of the list.
            keys: The images in order; unfinished ones are left out.
            stays: Whether the journal stays, for a call that does the unfinished ones.

        Raises:
            OutputError: It cannot be written.
        """
        if not self._places:
            self.path.unlink()
            with suppress(OSError):
                self.path.parent.rmdir()
            return
        with replacing(target, self.remedy) as partial, partial.open("w", encoding="ascii") as file:
            rows = self.rows(keys)
            texts = (json.dumps(entry) for _, entries, _ in rows for entry in entries)
            file.write("[")
            for number, text in enumerate(texts):
                file.write(f"{', ' if number else ''}{text}")
            file.write("]\n")
        if not stays:
            self.path.unlink()

    def rows(self, keys: Iterable[str]) -> Iterator[tuple[str, list[Entry], tuple[int, int]]]:
        """The key, the entries and the size of each image that is done, read one by one.

        Args:
            keys: The images in the order in which they come.

        Raises:
            OutputError: The file has changed since it was written.
        """
        with self.path.open("rb") as file:
            for key in keys:
                if key in self._places:
                    file.seek(self._places[key])
                    row = content_of(file.readline())
                    if row is None:
                        raise changed_meanwhile(self.path)
                    yield key, row["entries"], (row["size"][0], row["size"][1])

    def _read(self, first: str) -> int:
        """Reads the finished images, and returns the end of the last complete line."""
        end = 0
        with suppress(OSError), self.path.open("rb") as file:
            if file.readline().decode("ascii", "replace").strip() != first:
                return 0
            end = file.tell()
            for line in file:
                row = content_of(line)
                if row is None:
                    break
                key = row["key"]
                self._places[key], self._masks[key] = end, len(row["entries"])
                end += len(line)
        return end


def identity_of(model: FineTuned, **others: Any) -> str:
    """A digest of a model at its strength, and of further settings."""
    given = model.adapter_options is None or model.decoder_options is None  # as modules
    header = {"base": fingerprint(model.sam)} if given else describe(model)
    about = {**header, **others}
    digest = blake2b(json.dumps(about, sort_keys=True, default=str).encode(), digest_size=16)
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def key_of(record: Record, request: Any) -> str:
    """A digest of an image's name, its file's current state, and its prompts."""
    state = record.file.stat() if record.file.is_file() else None
    seen = None if state is None else (state.st_size, state.st_mtime_ns)
    text = repr((record.name, seen, request)).encode("utf-8", "backslashreplace")
    return blake2b(text, digest_size=16).hexdigest()
