"""The interface of an export format, and the registry of formats."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from samtune.errors import check_packages
from samtune.exports.onnx_files import Precision
from samtune.model.finetuned import FineTuned
from samtune.model.merging import in_one
from samtune.prompts import KINDS, NONE
from samtune.registry import Registry

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """A model to export, and how."""

    model: FineTuned
    """The model, in evaluation mode and on the CPU."""
    name: str
    """The name of the files, without an ending."""
    precision: Precision = "fp32"
    threshold: float = 0.0
    """Logits above it are inside; exported masks are cut at 0."""
    classes: Sequence[str] = ()
    """The names of the classes, if the model has some and they are known."""
    checkpoint: Path | None = None
    """The file that the model was read from."""
    base: Path | None = None
    """The file that its base was read from."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Values of the format's own settings."""

    def taking_images_whole(self) -> Job:
        """The same job with a model that cuts no image into tiles or crops."""
        if self.model.tuned_input.tiles == "whole":
            return self
        model = copy.deepcopy(self.model)  # the base is shared
        model.tuned_input = replace(model.tuned_input, tiles="whole")
        return replace(self, model=model)

    def of_one_strength(self, kinds: Sequence[str]) -> Job:
        """The same job with a model that has one strength, for one set of weights.

        Args:
            kinds: The kinds of prompts that the consumer asks with.
        """
        return replace(self, model=in_one(self.model, kinds if self.is_prompted else (NONE,)))

    @property
    def is_prompted(self) -> bool:
        """Whether the answer depends on prompts, so that two files are needed."""
        kinds = self.model.prompt_modes.kinds
        return self.model.acting.decoder.prompted and kinds != {NONE}


@dataclass(frozen=True)
class Ask:
    """The prompts for one image in a check."""

    kind: str
    """``box``, ``point``, ``mask`` or ``none``."""
    box: tuple[float, float, float, float] | None = None
    """xyxy in the image's pixels."""
    point: tuple[float, float] | None = None
    """xy in the image's pixels, inside the object."""
    mask: NDArray[np.float32] | None = None
    """``(1, 4H, 4W)`` logits of an earlier answer."""


class LastImage(Generic[T]):
    """The encoding of the last image, which several questions in a row share."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[NDArray[np.uint8], T]] = {}

    def get(self, how: str, image: NDArray[np.uint8], make: Callable[[], T]) -> T:
        """The encoding of an image, made anew if the last image was another one.

        Args:
            how: The name of that way.
            image: ``(h, w, 3)`` RGB; the same array is the same image.
            make: Encodes it.
        """
        if how not in self._last or self._last[how][0] is not image:
            self._last[how] = (image, make())
        return self._last[how][1]


class Answers(Protocol):
    """Exported files at work, on one image at a time, as their consumer runs them."""

    kinds: Sequence[str]
    """The kinds of prompts that the consumer can ask with."""

    def same_pixels(self, image: NDArray[np.uint8], ask: Ask) -> NDArray[np.float32]:
        """Logits ``(K, h, w)`` of the image's size, with pixels prepared as samtune does it.

        Args:
            image: ``(h, w, 3)`` RGB.
            ask: The prompts to answer.
        """

    def as_consumer(self, image: NDArray[np.uint8], ask: Ask) -> NDArray[np.float32] | None:
        """The same with pixels prepared as the consumer does it; ``None`` if that is the same.

        Logits may be bools if the consumer gives masks.
        """


class Format:
    """One consumer's files. A subclass is one module of ``samtune.exports.formats``."""

    name: ClassVar[str]
    """Set by the registry."""
    consumer: ClassVar[str]
    """The tools that read it, in a few words."""
    writes: ClassVar[str]
    """The files that it writes, in a few words."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Packages that it needs to be written and checked."""
    extra: ClassVar[str] = ""
    """The extra of samtune that installs them."""
    asks: ClassVar[tuple[str, ...]] = KINDS
    """The kinds of prompts that the consumer asks with, if the model takes prompts."""
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32",)
    keeps_checkpoint: ClassVar[bool] = False
    """Whether the consumer loads the checkpoint with samtune, so that each kind of prompt has its
    own strength."""
    cuts: ClassVar[bool] = False
    """Whether images are cut into tiles or crops as the model says; else they are taken whole."""
    names_classes: ClassVar[bool] = False
    """Whether the names of classes are among what it writes."""
    ignores: ClassVar[Mapping[str, str]] = {}
    """``name`` or ``threshold``, if it has no effect on the files, with the reason and remedy."""

    @dataclass(frozen=True)
    class Config:
        """No settings of its own."""

    def advice(self, job: Job) -> str:
        """The remedy where the consumer's own preparation of images costs agreement, or nothing.

        Args:
            job: The job of the exported model.
        """
        return ""

    @classmethod
    def check_installed(cls) -> None:
        """Refuses to go on without a package that the format needs.

        Raises:
            InputError: With the packages that are missing.
        """
        check_packages(f"--format={cls.name}", cls.needs, cls.extra)

    def check(self, job: Job) -> None:
        """Refuses what the format cannot express, before anything is written.

        Raises:
            InputError: With the reason, and what can be done instead.
        """

    def write(self, job: Job, folder: Path) -> Mapping[str, Any]:
        """Writes the files.

        Args:
            job: The job of the model to export.
            folder: An empty folder.

        Returns:
            What ``export.json`` says of them besides, as JSON values.
        """
        raise NotImplementedError(f"{self.name} does not define write")

    def answers(self, job: Job, folder: Path) -> Answers:
        """The files of a folder at work, as their consumer runs them."""
        raise NotImplementedError(f"{self.name} does not define answers")


FORMATS: Registry[Format] = Registry("format", "--format", "samtune.exports.formats")
"""All formats by name."""
