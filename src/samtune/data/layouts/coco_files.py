"""COCO's JSON files: their entries, ids as text, and categories."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from samtune.data.problems import DataError, complain
from samtune.texts import read_json

_NONE = ("", "none", "null")


@lru_cache(maxsize=4)
def _loaded(file: Path, modified: int) -> dict[str, Any]:
    try:
        tree = read_json(file)
    except (ValueError, OSError) as error:
        what = f"not readable as JSON ({str(error).splitlines()[0]})"
        raise DataError(file, "unreadable list", what, "download it again") from error
    parts = ("images", "annotations", "categories")
    lists = isinstance(tree, dict) and all(isinstance(tree.get(part), list) for part in parts)
    if not lists:
        what = (
            "not an annotation file of COCO, which has lists of images, annotations and categories"
        )
        raise DataError(file, "no annotation file", what, "export it as COCO instances")
    return tree


def tree_of(file: Path) -> dict[str, Any]:
    """The whole file.

    Raises:
        InputError: It is not readable, or not a COCO file.
    """
    return _loaded(file, file.stat().st_mtime_ns)


def categories_of(files: dict[str | None, Path]) -> dict[str, str]:
    """Names of the categories by id, in the order of ids; the same in all files."""
    names: dict[str, str] = {}
    first = next(iter(files.values()))
    for file in files.values():
        categories = _categories_of(file)
        if not categories:
            remedy = "add those of its annotations"
            raise DataError(file, "no categories", "has no categories", remedy)
        if names and categories != names:
            what, remedy = (
                f"has other categories than {first.name}",
                "give all splits the same list",
            )
            raise DataError(file, "other categories", what, remedy)
        names = categories
    idle = _super_of_all(list(files.values()), names)
    return {key: name for key, name in names.items() if key != idle}


def _categories_of(file: Path) -> dict[str, str]:
    by_id: dict[str, str] = {}
    for entry in entries_of(file, "categories", ("id", "name")):
        key, name = id_of(entry["id"]), str(entry["name"])
        if by_id.setdefault(key, name) != name:
            what = f"the category {key} is both {by_id[key]} and {name}"
            remedy = "give one of the two, and its annotations, a new id"
            complain(DataError(file, "category id twice", what, remedy))
    numbers = all(key.lstrip("-").isdigit() for key in by_id)
    return dict(sorted(by_id.items(), key=lambda item: int(item[0]) if numbers else 0))


def _super_of_all(files: list[Path], names: dict[str, str]) -> str | None:
    """The id of the entry that Roboflow adds above all classes and never uses."""
    entries = [e for file in files for e in entries_of(file, "categories", ("id", "name"))]
    tops = {id_of(e["id"]) for e in entries if str(e.get("supercategory") or "").lower() in _NONE}
    below = [e for e in entries if id_of(e["id"]) not in tops]
    supers = {str(e.get("supercategory")) for e in below}
    if len(tops) != 1 or not below or supers != {names[next(iter(tops))]}:
        return None
    (top,) = tops
    annotated = (id_of(e.get("category_id")) for file in files for e in tree_of(file)["annotations"]
                 if isinstance(e, dict))  # fmt: skip
    return None if top in annotated else top


def id_of(value: Any) -> str:
    """An id, which tools write as a number or as text."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value).strip()


def entries_of(file: Path, part: str, keys: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The entries of a list that have all these keys; others are reported."""
    for i, entry in enumerate(tree_of(file)[part]):
        if not isinstance(entry, dict) or not set(keys) <= entry.keys():
            what = f"entry {i} of {part} lacks one of {', '.join(keys)}"
            complain(DataError(file, "incomplete entry", what, "export it again"))
            continue
        yield entry
