"""The load of one step of a configuration: its model, its loss, and a batch of its shapes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from samtune.batch import Batch, Question
from samtune.data.changes import training_frame
from samtune.data.config import targets_are_maps
from samtune.geometry import Geometry
from samtune.losses import Loss
from samtune.model.finetuned import FineTuned
from samtune.planning.counting import Count, count_step
from samtune.prompts import NONE, Prompts, kind_of, numbered_mode
from samtune.runs.assembly import tuned
from samtune.runs.config import RunConfig
from samtune.sam.model import Sam
from samtune.sam.weights import spec_of
from samtune.training.keeping import rehearsal_weight
from samtune.training.objective import Objective
from samtune.training.schedule import AUTO, check_keep

OBJECTS = 4
"""Objects per image if nobody says how many there are."""


@dataclass(frozen=True)
class Load:
    """The step of a training that is not run."""

    config: RunConfig
    objects: int = OBJECTS
    """Prompted objects per image."""

    @property
    def mode(self) -> str:
        """The prompt mode that costs most: the one of most clicks, or with a mask."""
        modes = self.config.prompts.modes(train=True).names
        cost = {mode: (self._rounds_of(mode), kind_of(mode) == "mask") for mode in modes}
        return max(modes, key=lambda mode: cost[mode])

    @property
    def rounds(self) -> int:
        """How often each prompt is answered."""
        return self._rounds_of(self.mode)

    def _rounds_of(self, mode: str) -> int:
        kind, number = numbered_mode(mode) or (mode, self.config.prompts.clicks)
        return number if kind == "clicks" else 1

    @property
    def prompts_to_keep(self) -> int:
        """Prompts per image that the training must not forget."""
        if self.config.train.keep == "none" or not self._takes_prompts or not self._rehearsal:
            return 0
        return min(self.objects, self.config.prompts.max_objects)

    @cached_property
    def _rehearsal(self) -> float:
        """The weight of the loss of these prompts."""
        train = self.config.train
        with torch.device("meta"):  # it only says what it is
            model = self.model()
        return rehearsal_weight(train, model, check_keep(train.keep))

    @property
    def prompts(self) -> int:
        """Prompts per image; the mode without a prompt asks for all objects at once."""
        objects = min(self.objects, self.config.prompts.max_objects)
        return 1 if self.mode == NONE or not self._takes_prompts else objects

    @cached_property
    def _takes_prompts(self) -> bool:
        from samtune.decoders import DECODERS

        return bool(DECODERS[self.config.decoder["name"]].prompted) and not self.has_maps

    @property
    def has_maps(self) -> bool:
        """Whether targets are maps of classes."""
        return targets_are_maps(self.config.data, self.config.prompts.modes(train=True))

    def model(self) -> FineTuned:
        """The model, with values only if there are values."""
        return tuned(self.config, Sam(spec_of(self.config.base.name)).freeze())

    def objective(self) -> Objective:
        """The model and its loss, which a step differentiates."""
        model, train = self.model(), self.config.train
        model.checkpointing, model.multimask = train.checkpointing, train.multimask
        loss = Loss.parse(train.loss)
        to_base = train.keep_to == "base"
        return Objective(model, loss, train.multimask, 1, self._rehearsal, to_base)

    def batch(self, images: int) -> Batch:
        """A batch of the shapes that a step sees; clicks one after another count side by side."""
        frame = training_frame(self.config.data, self.frame)
        n, size = images * self.prompts * self.rounds, Geometry(frame, frame, frame)
        kind = torch.int64 if self.has_maps else torch.bool
        batch = Batch(
            pixels=torch.zeros(images, 3, *frame, dtype=torch.uint8),
            sizes=torch.tensor([frame] * images),
            prompts=self._prompts_of(images, n // images, self.mode),
            targets=torch.zeros(n, *frame, dtype=kind),
            valid=torch.ones(images, *frame, dtype=torch.bool),
            classes=torch.zeros(n, dtype=torch.long),
            geometries=(size,) * images,
            names=tuple(map(str, range(images))),
            dense=self._dense(images, frame),
        )
        if not self.prompts_to_keep:
            return batch
        kept = self._prompts_of(images, self.prompts_to_keep, "point")
        targets = torch.zeros(len(kept), *frame, dtype=torch.bool)
        return replace(
            batch, rehearsal=Question(kept, targets, torch.zeros(len(kept), dtype=torch.long))
        )

    @cached_property
    def frame(self) -> tuple[int, int]:
        """Height and width of the model's frame."""
        size, spec = self.config.input.size, spec_of(self.config.base.name)
        if size is None:
            return spec.image_size, spec.image_size
        return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

    def _dense(self, images: int, frame: tuple[int, int]) -> dict[str, torch.Tensor]:
        from samtune.decoders import DECODERS

        names = DECODERS[self.config.decoder["name"]].dense_targets
        return {name: torch.zeros(images, 3, *frame) for name in names}

    def _prompts_of(self, images: int, each: int, mode: str) -> Prompts:
        image = torch.arange(images).repeat_interleave(each)
        n, kind = len(image), kind_of(mode)
        if kind == "box":
            return Prompts.of(
                boxes=torch.tensor([[8.0, 8.0, 40.0, 40.0]]).repeat(n, 1), image=image
            )
        if kind == "point":
            number = (numbered_mode(mode) or ("point", self.config.prompts.points))[1]
            points = torch.full((n, max(1, number), 2), 16.0)
            labels = torch.ones(n, max(1, number), dtype=torch.long)
            return Prompts.of(points=points, labels=labels, image=image)
        if kind == "mask":
            stride = 4
            size = [max(1, side // stride) for side in self.frame]
            return Prompts.of(masks=torch.zeros(n, 1, *size), image=image)
        return Prompts.of(image=image, count=n)

    @cached_property
    def counts(self) -> tuple[Count, Count]:
        """The counts of a step with one and with two images at once.

        Raises:
            InputError: See :func:`samtune.planning.counting.count_step`.
        """
        precision = self.config.train.precision
        one, two = (count_step(self.objective, self.batch(n), precision) for n in (1, 2))
        return one, two

    def count(self, images: int) -> Count:
        """The count of a step with some images at once."""
        one, two = self.counts
        return one if images == 1 else two.for_images(one, images)

    def keep_setting(self) -> list[str] | str:
        """The value of ``train.keep`` for a training without validations, which would choose it."""
        if self.config.train.keep != AUTO:
            return self.config.train.keep
        return ["point"] if self.prompts_to_keep else "none"
