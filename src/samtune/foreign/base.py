"""What a dialect is: how one system lays out its checkpoints, in the words of this library."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from samtune.geometry import InputPolicy
from samtune.sam.spec import SamSpec
from samtune.sam.weights import Names, State, renamed

Options = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """The options that a file's tensors tell of."""

    adapter: Options = field(default_factory=dict)
    decoder: Options = field(default_factory=dict)


def no_options(state: State, spec: SamSpec) -> Settings:
    """Nothing to tell."""
    return Settings()


def native_side(spec: SamSpec) -> int:
    """Of a base's native square, in pixels."""
    return spec.image_size


def longest_policy(spec: SamSpec) -> InputPolicy:
    """SAM's own: the longest side fitted, padded to the native square."""
    return InputPolicy((spec.image_size,) * 2)


def preset_policy(
    preset: str, side: Callable[[SamSpec], int] = native_side
) -> Callable[[SamSpec], InputPolicy]:
    """The policy of a preset for each base.

    Args:
        preset: A value of ``input.preset``.
        side: Of the square frame, in pixels; what the preset says of it is for one base.
    """
    return lambda spec: InputPolicy.of_preset(preset, (side(spec),) * 2)


@dataclass(frozen=True)
class Dialect:
    """How one system writes its checkpoints.

    What is trained is found by name: :meth:`theirs` gives the system's name of each tensor of our
    model. All else in a file must be the frozen base, under the official names.
    """

    name: str
    system: str
    """Whose checkpoints, in a few words."""
    adapter: str
    decoder: str
    marks: tuple[str, ...]
    """Names, as regular expressions, that a file of this dialect has."""
    names: Names = ()
    """Patterns from our names to theirs, applied one after another."""
    aliases: Names = ()
    """Patterns from names that stand for the same tensor to the one that counts."""
    ignored_names: str = r"(?!)"
    """Names of what the system stores and never uses."""
    flattened_names: str = r"(?!)"
    """Their names of convolutions that the system stores as linear layers over patches."""
    absent_names: str = r"(?!)"
    """Official names that a whole file of this dialect does not hold either."""
    optional_names: str = r"(?!)"
    """Official names that some whole files of this dialect do not hold."""
    holds: Literal["trained", "all", "either"] = "either"
    """Whether the files have the frozen base too."""
    settings: Callable[[State, SamSpec], Settings] = no_options
    policy: Callable[[SamSpec], InputPolicy] = longest_policy
    prompts: str = "box"
    variants: tuple[str, ...] = ()
    """What an import can choose of its input: ``channels``, ``first_size``, ``native_raw``."""
    sized: bool = False
    """Whether the system takes images of several sizes, which a file does not tell."""

    def theirs(self, ours: str) -> str:
        """The system's name of a tensor that our model names ``ours``."""
        return renamed(ours, self.names)

    def unmarked(self, state: Mapping[str, Tensor]) -> list[str]:
        """The marks of this dialect that a file lacks."""
        return [mark for mark in self.marks if not any(re.search(mark, key) for key in state)]


DIALECTS: dict[str, Dialect] = {}
"""All dialects by name."""


def register(dialect: Dialect) -> Dialect:
    """Adds a dialect."""
    DIALECTS[dialect.name] = dialect
    return dialect


def count(state: State, pattern: str) -> int:
    """How many members a list has whose index the pattern's group captures."""
    matches = (re.search(pattern, key) for key in state)
    return max((int(match[1]) + 1 for match in matches if match), default=0)
