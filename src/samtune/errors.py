"""The one error that means: what the user gave is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Wrong input: one line that says the value, the rule and the remedy.

    The command line prints it without a traceback and ends with exit code 2.
    """


def nearest(word: str, words: Iterable[str]) -> str:
    """A hint ``; did you mean 'x'?`` with the closest of ``words``, or an empty string."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
