"""Words of the command line that are numbers: boxes, points and sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from samtune.errors import InputError
from samtune.inference.prompt_files import read_prompts
from samtune.inference.requests import EVERY, check_prompts


def _numbers(word: str, counts: tuple[int, ...]) -> list[float]:
    values = [float(value) for value in word.split(",")]
    if len(values) not in counts:
        raise ValueError(word)
    return values


def size_of(option: str, word: str | None) -> tuple[int, int] | None:
    """Reads ``height,width`` in pixels.

    Raises:
        InputError: Anything else; the message names the option.
    """
    if word is None:
        return None
    try:
        h, w = (int(side) for side in word.split(","))
    except ValueError:
        h = w = 0
    if h < 1 or w < 1:
        raise InputError(f"{option}={word}: is height,width in pixels, as 360,480")
    return h, w


def prompts_of(boxes: list[str], points: list[str], file: Path | None) -> dict[str, Any]:
    """Reads boxes and points for every image, and a file of prompts by image name.

    Args:
        boxes: Each ``x0,y0,x1,y1`` in pixels.
        points: Each ``x,y`` or ``x,y,label`` in pixels.
        file: See :func:`samtune.inference.prompt_files.read_prompts`.

    Raises:
        InputError: Malformed numbers, or a malformed file.
    """
    prompts: dict[str, Any] = {} if file is None else dict(read_prompts(file))
    everywhere: dict[str, Any] = {}
    try:
        if boxes:
            everywhere["boxes"] = [_numbers(word, (4,)) for word in boxes]
        if points:
            rows = [_numbers(word, (2, 3)) for word in points]
            everywhere["points"] = [row[:2] for row in rows]
            everywhere["labels"] = [row[2] if len(row) > 2 else 1 for row in rows]
    except ValueError as error:
        raise InputError(
            f"{' '.join([*boxes, *points])}: --box takes x0,y0,x1,y1 in pixels, and --point x,y or "
            "x,y,label"
        ) from error
    if not everywhere:
        return prompts
    if EVERY in prompts:
        raise InputError(
            f"{file}: has prompts for all other images ({EVERY}), and so are --box and --point; "
            "leave one of them out"
        )
    try:
        return {**prompts, EVERY: check_prompts({EVERY: everywhere}, "--box/--point")[EVERY]}
    except InputError as error:
        raise InputError(str(error).replace(f": {EVERY}:", ":")) from error
