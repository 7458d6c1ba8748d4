"""The one error for wrong input."""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from types import FrameType
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

SYNONYMS = {
    "iterations": "max_steps",
    "iters": "max_steps",
    "gradient_accumulation_steps": "accumulate",
    "grad_accum": "accumulate",
    "max_grad_norm": "clip",
    "grad_clip": "clip",
    "early_stopping": "patience",
    "amp": "precision",
    "dtype": "precision",
    "resolution": "size",
    "path": "root",
    "dir": "root",
    "folder": "root",
    "checkpoint": "weights",
    "model": "base",
    "backbone": "base",
    "method": "adapter",
    "peft": "adapter",
    "head": "decoder",
    "bs": "batch_size",
    "dataset": "root",
    "data_dir": "root",
    "augmentation": "augment",
    "augmentations": "augment",
    "image_size": "size",
    "img_size": "size",
    "out": "output",
    "out_dir": "output",
    "output_dir": "output",
    "save_dir": "output",
    "gpu": "device",
    "cuda": "device",
}
"""Other systems' words for settings that no general rule maps to ours."""


class InputError(ValueError):
    """Raised for wrong input; its message is one line with the value, the rule and the remedy.

    The command line prints it without a traceback and ends with exit code 2.
    """


class OutputError(InputError):
    """Raised if a result cannot be written, as on a full disk, so that what follows could not be.

    Whoever goes on without an input that is wrong ends at this one.
    """


def check_packages(asked_by: str, needs: Iterable[str], extra: str) -> None:
    """Refuses to go on without packages that an extra of samtune installs.

    Args:
        asked_by: The word that needs them, as ``--format=onnx``.
        needs: Their names, as they are imported.
        extra: The name of the extra.

    Raises:
        InputError: With those that are missing.
    """
    missing = [package for package in needs if not is_installed(package)]
    if missing:
        raise InputError(f"{asked_by}: needs {', '.join(missing)}; pip install 'samtune[{extra}]'")


def is_installed(package: str) -> bool:
    """Whether a package can be imported; a folder of its name, as trackers write one, is none."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def warn_user(message: str, category: type[Warning]) -> None:
    """Warns as of the line outside of samtune that led here, which the reader knows."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and (is_of_samtune(frame) or _top_of(frame) == "torch"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def is_of_samtune(frame: FrameType) -> bool:
    """Whether samtune's own code runs in a frame, not that of a user or of another package."""
    return _top_of(frame) == "samtune"


def _top_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def checks_keywords(
    *settings: type,
    elsewhere: Mapping[str, str] | None = None,
    option: Callable[[str, Mapping[str, Any]], str] = lambda name, arguments: "",
) -> Callable[[Function], Function]:
    """Has a function refuse a keyword that it does not take, with the one that is meant.

    Args:
        settings: The dataclasses of settings that the function takes. Their fields are often given
            in their place, as in ``fit(model, data, epochs=5)``.
        elsewhere: Words that readers of other libraries try, each with a clause that says where the
            matter is settled here.
        option: Says the same of words that depend on the other arguments: it gets the word and the
            arguments by name, and returns a clause, or an empty text.

    Raises:
        InputError: From the function, with the keyword.
    """

    def checking(function: Function) -> Function:
        signature = inspect.signature(function)
        names = {key: each for key, each in signature.parameters.items() if key != "self"}
        label = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for name in kwargs:
                if name not in names:
                    known = {key: value for key, value in kwargs.items() if key in names}
                    arguments = dict(zip(signature.parameters, args, strict=False)) | known
                    hint = meant(name, elsewhere or {}) or option(name, arguments)
                    raise InputError(
                        f"{name}: {hint}"
                        if hint
                        else _no_such_keyword(label, name, names, settings)
                    )
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return checking


def meant(name: str, elsewhere: Mapping[str, str]) -> str:
    """The clause that says where a word, or the word of which it is a synonym, is settled."""
    return elsewhere.get(name) or elsewhere.get(SYNONYMS.get(name, name), "")


def _no_such_keyword(
    label: str, name: str, names: Mapping[str, inspect.Parameter], settings: Iterable[type]
) -> str:
    for schema in settings:
        if name in getattr(schema, "__dataclass_fields__", ()):
            what = f"{name}: is a setting of {schema.__name__}"
            kinds = {key: str(each.annotation) for key, each in names.items()}
            takes = [key for key, kind in kinds.items() if schema.__name__ in kind]
            takes.sort(key=lambda key: len(kinds[key]))  # that which takes little else comes first
            as_argument = "".join(f"{key}=" for key in takes[:1])
            return f"{what}; give {label} one, as in {as_argument}{schema.__name__}({name}=...)"
    return f"{name}: {label} takes no such argument{nearest(name, names)}; see help({label})"


def nearest(word: str, words: Iterable[str]) -> str:
    """A hint ``; did you mean 'x'?`` with the closest of ``words``, or an empty string.

    See :func:`closest`.
    """
    close = closest(word, words)
    return f"; did you mean {close!r}?" if close else ""


def closest(word: str, words: Iterable[str], alike: float = 0.5) -> str | None:
    """The closest of ``words``; ``None`` if none is close.

    Closest is, in this order: the same but for case, hyphens and plural, a known synonym, initials
    (``learning_rate`` and ``lr``), a part in common (``batch`` and ``batch_size``), and then the
    letters.

    Args:
        word: The word that somebody wrote.
        words: The words that exist.
        alike: How alike the letters are at least, from 0 to 1.
    """
    known, plain = list(words), word.lower().replace("-", "_")
    close = [
        *(name for name in known if name.lower() in (plain, f"{plain}s")),
        *(name for name in known if name == SYNONYMS.get(plain)),
        *(name for name in known if _initials(name) == plain or name == _initials(plain)),
        *(name for name in known if plain in name.split("_") or name in plain.split("_")),
        *difflib.get_close_matches(plain, known, n=1, cutoff=alike),
    ]
    return close[0] if close else None


def _initials(name: str) -> str:
    return "".join(part[:1] for part in name.split("_"))
