"""The definition of a dialect: how one system lays out its checkpoints, in samtune's terms."""

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
    """The options that a file's tensors imply."""

    adapter: Options = field(default_factory=dict)
    decoder: Options = field(default_factory=dict)


def no_options(state: State, spec: SamSpec) -> Settings:
    """No implied options."""
    return Settings()


def native_side(spec: SamSpec) -> int:
    """Native side of a base in pixels."""
    return spec.image_size


def longest_policy(spec: SamSpec) -> InputPolicy:
    """SAM's own input policy: the longest side fitted, padded to the native square."""
    return InputPolicy((spec.image_size,) * 2)


def preset_policy(
    preset: str, side: Callable[[SamSpec], int] = native_side
) -> Callable[[SamSpec], InputPolicy]:
    """The input policy of a preset for each base.

    Args:
        preset: A value of ``input.preset``.
        side: Side of the square frame in pixels, because the preset's own is for one base only.
    """
    return lambda spec: InputPolicy.of_preset(preset, (side(spec),) * 2)


@dataclass(frozen=True)
class Dialect:
    """How one system writes its checkpoints.

    Trained tensors are found by name: :meth:`theirs` returns the system's name of each tensor of
    our model. All other tensors of a file must be the frozen base, under the official names.
    """

    name: str
    system: str
    """The system, in a few words."""
    adapter: str
    decoder: str
    marks: tuple[str, ...]
    """Regular expressions for tensor names that every file of this dialect has."""
    names: Names = ()
    """Patterns from our names to theirs, applied one after another."""
    aliases: Names = ()
    """Patterns that map a second name of a tensor to the one that is used."""
    ignored_names: str = r"(?!)"
    """Names of tensors that the system stores and never uses."""
    flattened_names: str = r"(?!)"
    """The system's names of convolutions that it stores as linear layers over patches."""
    absent_names: str = r"(?!)"
    """Official names that even a complete file of this dialect does not hold."""
    optional_names: str = r"(?!)"
    """Official names that some complete files of this dialect do not hold."""
    holds: Literal["trained", "all", "either"] = "either"
    """Whether the files include the frozen base."""
    settings: Callable[[State, SamSpec], Settings] = no_options
    policy: Callable[[SamSpec], InputPolicy] = longest_policy
    prompts: str = "box"
    variants: tuple[str, ...] = ()
    """The choices about input that an import has: ``channels``, ``first_size``, ``native_raw``."""
    sized: bool = False
    """Whether the system supports several image sizes, which its files do not record."""

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
    """Number of members of a list whose index the pattern's group captures."""
    matches = (re.search(pattern, key) for key in state)
    return max((int(match[1]) + 1 for match in matches if match), default=0)
