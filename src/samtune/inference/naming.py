"""The names of images in files and in prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from samtune.data import Record
from samtune.data.pairing import nfc
from samtune.errors import InputError
from samtune.inference.requests import EVERY, Request


def label_of(record: Record) -> str:
    """The name of an image in files: its path below the source, or for a slice its own name."""
    return record.name if record.group else str(Path(record.name).with_name(record.file.name))


def requests_by_name(
    prompts: Mapping[str, Request], records: Sequence[Record]
) -> dict[str, Request]:
    """The prompts by record name, from paths below the source, file names, stems, or ``*``."""
    by_key: dict[str, set[str]] = defaultdict(set)
    paths: dict[str, set[str]] = {}  # a whole path counts before a name of another folder's image
    for record in records:
        label = label_of(record)
        paths[nfc(label)] = {record.name}
        for key in (record.name, label, Path(label).name, Path(record.name).name):
            by_key[nfc(key)].add(record.name)
    requests = {record.name: prompts[EVERY] for record in records} if EVERY in prompts else {}
    keys: dict[str, str] = {}
    for key, entry in prompts.items():
        if key == EVERY:
            continue
        names = (
            paths.get(nfc(key)) or by_key.get(nfc(key)) or by_key.get(nfc(Path(key).name), set())
        )
        if not names:
            raise InputError(f"prompts for {key}: no such image in the source; check its name")
        if len(names) > 1:
            raise InputError(
                f"prompts for {key}: {len(names)} images have this name ({min(names)}, ...); "
                "give the folder before it too"
            )
        (name,) = names
        if name in keys:
            raise InputError(f"prompts for {key} and {keys[name]}: are of one image; join them")
        keys[name], requests[name] = key, entry
    return requests


def checked_names(records: Sequence[Record], ignoring_case: bool = False) -> Sequence[Record]:
    """The records, whose output files must differ.

    Args:
        records: All images.
        ignoring_case: Whether the output's file system takes ``A`` and ``a`` for one name.

    Raises:
        InputError: Two of them would have the same output file.
    """
    by_name: dict[str, Record] = {}
    for record in records:
        name = record.name.casefold() if ignoring_case else record.name
        if name in by_name:
            why = " on a disk that ignores case" if record.name != by_name[name].name else ""
            raise InputError(
                f"{record.file}: its mask would have the name of that of "
                f"{by_name[name].file.name}{why}; rename one of the two"
            )
        by_name[name] = record
    return records
