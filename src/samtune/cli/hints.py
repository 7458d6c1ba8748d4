"""Finds the verb or option that a user meant by an unknown one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from samtune.errors import closest

VERBS = {
    "resume": "train resume=FOLDER",
    "continue": "train resume=FOLDER",
    "finetune": "train",
    "fine-tune": "train",
    "fit": "train",
    "evaluate": "eval",
    "test": "eval",
    "val": "eval",
    "validate": "eval",
    "infer": "predict",
    "inference": "predict",
    "segment": "predict",
    "automatic": "everything",
    "instances": "everything",
    "convert": "import",
    "check": "data check",
    "datasets": "data list",
    "list": "methods",
}
"""The names of verbs in other tools."""
TAKE_SETTINGS = ("train", "demo", "eval", "compare", "predict", "everything", "calibrate", "check")
"""The verbs whose words are settings."""
CLOSE = 0.65
"""How alike the letters of a verb or an option must be."""


def meant(error: Any, args: Sequence[str]) -> str:
    """The line of a verb or an option that there is not, with what it stands for.

    Args:
        error: The exception of typer.
        args: The words after ``samtune``.

    Returns:
        Nothing if it was raised for another reason.
    """
    context = getattr(error, "ctx", None)
    if context is None:
        return ""
    option = getattr(error, "option_name", None)
    if option and hasattr(error, "possibilities"):
        known = [name.lstrip("-") for row in context.command.params for name in row.opts]
        near = closest(option.lstrip("-"), ["help", *known], CLOSE)
        hint = f"; did you mean --{near}?" if near else _setting(option, context.info_name, args)
        return f"{option}: no such option{hint}"
    verbs = getattr(context.command, "commands", {})
    inside = args[args.index(context.command.name) + 1 :] if context.parent and args else args
    word = next((word for word in inside if not word.startswith("-")), None)
    if not verbs or word in {None, *verbs}:
        return ""
    name = closest(str(word), sorted(verbs), CLOSE)
    other = VERBS.get(str(word).lower())
    told = f"samtune {other}" if other else f"{context.command_path} {name}"
    return f"{word}: no such verb" + (f"; did you mean {told}?" if name or other else "")


def _setting(option: str, verb: str, args: Sequence[str]) -> str:
    """The setting that an option such as ``--lr`` stands for, as a hint; or nothing."""
    if verb not in TAKE_SETTINGS:
        return ""
    from samtune.cli.completion import OF_A_COMPARISON
    from samtune.cli.settings_index import setting_names

    word, value = option.lstrip("-"), _value(option, args)
    own = f"{word}={value}" if verb == "compare" and f"{word}=" in OF_A_COMPARISON else None
    setting = own or setting_names().meaning(word, value)
    return f"; settings have no dashes, write {setting}" if setting else ""


def _value(option: str, args: Sequence[str]) -> str:
    """The value after an option, in the same word or the next one; ``true`` if there is none."""
    for word, following in zip(args, [*args[1:], "--"], strict=True):
        name, equals, value = word.partition("=")
        if name == option:
            return value if equals else "true" if following.startswith("--") else following
    return "true"


def in_full(args: Sequence[str]) -> list[str]:
    """The words of a command line with what somebody may leave out.

    ``samtune data`` alone is its help. ``--resume FOLDER`` of ``samtune train`` is the setting that
    it means; without a folder that is ``resume=true``, the run in ``output``.
    """
    words = list(args)
    if words == ["data"]:
        return [*words, "--help"]
    for place, word in enumerate(words if words[:1] == ["train"] else ()):
        if word.startswith("--resume="):
            words[place] = word.removeprefix("--")
        elif word == "--resume":
            following = words[place + 1] if place + 1 < len(words) else "--"
            alone = following.startswith("--") or "=" in following
            words[place : place + 1 if alone else place + 2] = [
                f"resume={'true' if alone else following}"
            ]
            break
    return words
