"""The kinds of a command line's words: data, a recipe, a file or a setting; needs no torch."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from samtune.errors import InputError, nearest
from samtune.files import as_path

DATA_FILES = (".csv", ".json", ".tsv")
"""Endings of files that list a data set, which can be given instead of its folder."""


def names_data(word: str, groups: Collection[str]) -> bool:
    """Whether a word of the command line is an existing folder, or a file that lists data.

    A setting is neither, even if a folder has this name: ``./a=b`` is the folder.

    Args:
        word: The word.
        groups: The settings of a run and the groups of them, as ``train``.
    """
    key = word.partition("=")[0].partition(".")[0]
    if "=" in word and key in groups:
        return False
    if word.endswith((".yaml", ".yml")):  # with a trailing slash, it is the folder
        return False
    path = as_path(word)
    return path.is_dir() or (path.is_file() and path.suffix.lower() in DATA_FILES)


def no_such_word(word: str, shipped: Collection[str]) -> InputError:
    """The error for a word that is of no kind; the nearest folder or recipe is suggested.

    Args:
        word: The word.
        shipped: The names of the recipes.
    """
    return InputError(
        f"{word}: neither a folder, a recipe, a .yaml file nor key=value"
        f"{nearest(word, [*_folders_beside(word), *shipped])}; see samtune recipes"
    )


def _folders_beside(word: str) -> list[str]:
    """The folders where a word would be one, as it would name them."""
    place = as_path(word).parent
    names = sorted(each.name for each in place.iterdir() if each.is_dir()) if place.is_dir() else []
    return [str(Path(word).parent / name) for name in names if not name.startswith(".")]
