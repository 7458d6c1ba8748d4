"""The header of a checkpoint: what a model is, how it was trained, and what file that is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from samtune.errors import InputError, closest
from samtune.files import as_path, check_permission
from samtune.model.on_hub import FILE, file_on_hub, is_on_hub
from samtune.model.packages import wrong_rows
from samtune.prompts import KINDS
from samtune.texts import parse_json

BEST = "best.safetensors"
"""The checkpoint in the folder of a run."""
FORMAT = 1
BUNDLE_FORMAT = 2
"""The format of bundles, see ``samtune.model.bundle``; older versions refuse them."""
HEADER = "samtune"
BUNDLE = "bundle"
"""The entry of a header that only such files have."""
SUMMARY = "summary.json"
"""The numbers of a run, in its folder."""
NUMBERS = ("tuned", "zero_shot", "guesses")
"""The parts of a summary that a model's card shows."""
MODULE = "module"
"""The entry of an adapter or decoder that was a module: its class, by module and name."""
ENTRIES = ("format", "base", "adapter", "decoder", "input", "prompts")
"""The entries that every header has."""

FURTHER = ("config", "metrics", "classes", "summary", "precision", "imported", "notes",
           "everything", "watershed")  # fmt: skip
"""The entries that a header may have besides, which say how a model was trained and is applied."""


def check_further(entries: Mapping[str, Any], function: str) -> None:
    """Refuses further entries of a header that nothing reads, or that are no JSON.

    Args:
        entries: By name.
        function: The function that takes them, for messages.

    Raises:
        InputError: With the name that is meant, or the place for one's own values.
    """
    for name, value in entries.items():
        if name not in FURTHER:
            near = closest(name, FURTHER, 0.65)
            hint = f"did you mean {near!r}? " if near else ""
            raise InputError(
                f"{name}: is no entry that {function} takes; {hint}values of your own are "
                f"notes={{{name!r}: ...}}, the others {', '.join(sorted({*FURTHER} - {'notes'}))}"
            )
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{name}={type(value).__name__}: is no JSON value ({error}); give numbers, texts, "
                "lists and dictionaries of them"
            ) from error
        if name in ("config", "notes") and not isinstance(value, dict):
            raise InputError(f"{name}={value!r}: must be a dictionary of JSON values")


def checkpoint_file(path: str | Path, download: bool = False) -> Path:
    """The file of a checkpoint; of a folder the best weights in it, if there are any.

    Args:
        path: A file, the folder of a run or of ``save_pretrained``, or ``hf:owner/name``.
        download: Whether a repository of the hub may be fetched; else it is in the local cache.

    Raises:
        InputError: A repository that is not there.
    """
    if not isinstance(path, str | PathLike):
        what = type(path).__name__
        raise InputError(f"{what}: is no path; give the file that samtune.save wrote, or a folder")
    if is_on_hub(path):
        return file_on_hub(path, download)
    place = as_path(path)
    return next((place / name for name in (BEST, FILE) if (place / name).is_file()), place)


def summary_beside(file: Path) -> dict[str, Any]:
    """The numbers that a run came to, beside its best weights: ``{}`` if there are none.

    Args:
        file: A checkpoint.
    """
    place = file.with_name(SUMMARY)
    if file.name != BEST or not place.is_file():
        return {}
    try:
        tree = parse_json(place.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    known = tree if isinstance(tree, dict) else {}
    return {key: known[key] for key in NUMBERS if isinstance(known.get(key), dict)}


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint of samtune."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return HEADER in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_header(path: str | Path) -> dict[str, Any]:
    """The header of a checkpoint, or of that in the folder of a run, without its tensors.

    Raises:
        InputError: The file does not exist or is not a checkpoint of samtune.
        PermissionError: It must not be read.
    """
    from safetensors import SafetensorError, safe_open

    path = checkpoint_file(path)
    if path.is_dir():
        raise InputError(
            f"{path}: a folder without {BEST}, which a training writes at its validations; give a "
            "checkpoint or the folder of a run that has one"
        )
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; give the path of a .safetensors file")
    check_permission(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        header = parse_json(metadata[HEADER])
    except KeyError:
        raise InputError(
            f"{path}: not a samtune checkpoint; bring others' files in with `samtune import`, "
            "and give a base's weights with base.weights="
        ) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a readable checkpoint ({error}); it may be cut short, copy it again"
        ) from error
    header = header if isinstance(header, dict) else {}
    if isinstance(number := header.get("format"), int) and number > BUNDLE_FORMAT:
        raise InputError(
            f"{path}: written by samtune {header.get('samtune')}, newer than this one; "
            "upgrade with pip install -U samtune"
        )
    if any(key not in header for key in ENTRIES):
        raise InputError(
            f"{path}: not a samtune checkpoint, its header lacks entries; each has "
            f"{', '.join(ENTRIES)}"
        )
    if wrong := _other_kinds(header):
        raise InputError(
            f"{path}: not a samtune checkpoint, its header has other kinds of values than samtune "
            f"writes: {', '.join(wrong)}; copy it again"
        )
    return header


def _other_kinds(header: Mapping[str, Any]) -> list[str]:
    """The entries of a header that are of another kind than :func:`save` writes."""
    kinds: dict[str, Any] = {**dict.fromkeys(ENTRIES, dict), "format": int, "prompts": str}
    kinds |= {"config": dict, "strength": (int, float), "strengths": dict}
    wrong = [key for key in kinds.keys() & header.keys() if not isinstance(header[key], kinds[key])]
    names = {"base": ("name", "sha256"), "adapter": ("name",), "decoder": ("name",)}
    for part, keys in names.items():
        if part not in wrong:
            wrong += [f"{part}.{key}" for key in keys if not isinstance(header[part].get(key), str)]
    strengths = header.get("strengths", {})
    if isinstance(strengths, dict) and not _are_strengths(strengths):
        wrong.append("strengths")
    if wrong_rows(header.get("packages", [])):
        wrong.append("packages")
    if "config" not in wrong and not isinstance(header.get("config", {}).get("data", {}), dict):
        wrong.append("config.data")
    return wrong


def _are_strengths(tree: Mapping[str, Any]) -> bool:
    numbers = (isinstance(value, int | float) and 0 <= value <= 1 for value in tree.values())
    return tree.keys() <= set(KINDS) and all(numbers)


def check_modules(header: Mapping[str, Any], origin: str, modules: Sequence[str] = ()) -> None:
    """Refuses a checkpoint of an own module, which only Python code can make again.

    Args:
        header: The header, as :func:`read_header` gives it.
        origin: The name of the file in the message.
        modules: The parts for which there is a module: ``adapter``, ``decoder``.

    Raises:
        InputError: With the call that loads it.
    """
    for kind in ("adapter", "decoder"):
        if MODULE in header[kind] and kind not in modules:
            raise InputError(
                f"{origin}: its {kind} is a module of Python, {header[kind][MODULE]}, which no "
                f"file can hold; make one, and give it as samtune.load(path, {kind}=module)"
            )
