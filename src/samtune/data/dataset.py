"""Files become examples: read, augment, sample prompts, fit into the model's frame."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from samtune.batch import Question
from samtune.data.asked_image import AskedImage
from samtune.data.changes import acts_in_frame, check_changes, check_own_size, training_frame
from samtune.data.collate import Example
from samtune.data.config import DataConfig, InputConfig, PromptConfig, targets_are_maps
from samtune.data.cuts import drawn_view
from samtune.data.dense_targets import in_frame
from samtune.data.draws import DRAWS, Draws, FirstDraws
from samtune.data.intensity import reading
from samtune.data.labels import Labels, Sample, areas
from samtune.data.late_images import late_image
from samtune.data.late_masks import prompts_and_late_masks
from samtune.data.loading import shared
from samtune.data.prompters import Objects, Sampling, assign, background_points, prompter
from samtune.data.sample_cache import SampleCache
from samtune.data.shapes import large_enough
from samtune.data.sources import Record
from samtune.data.transforms import cropped_rotated, fit, fit_mask
from samtune.errors import InputError
from samtune.geometry import Geometry, InputPolicy
from samtune.options import as_yaml
from samtune.prompts import NONE, PromptModes, Prompts


class SegmentationDataset(Dataset[Example]):
    """Images with prompts and targets, sampled anew each epoch.

    An example depends on ``(seed, epoch, index)``, or on fewer of them if ``data.redraw`` says so,
    and not on the number of workers. In training images are augmented, cropped and rotated, at most
    ``max_objects`` objects are drawn, and objects that have no pixel left in the model's frame get
    no prompt. If the input policy cuts images, one view is drawn
    (:func:`samtune.data.cuts.drawn_view`). Evaluation does not change images, prompts all objects,
    and keeps the targets in the original frame as well.

    Without prompts an image is one example with one target: the mask of all its objects, or, over
    several classes, their map ``(1, h, w)`` int64. Pixels without a class belong to the class
    ``data.background``, or are ignored if there is none.

    Args:
        records: The files.
        data: How masks are read, augmentation, cache.
        size: Height and width of the model's frame.
        resize: How images are resized into that frame.
        prompts: Jitter, number of points, number of objects.
        mask_size: Height and width of mask prompts: four times the token grid of the frame, by
            default that of tokens of 16 pixels.
        train: Whether examples are for training or for evaluation.
        mode: Prompt mode or list of them; by default ``prompts.train`` or ``prompts.eval``.
        seed: Seed of all random choices.
        input: The whole input policy, instead of ``size`` and ``resize``.

    Raises:
        InputError: There are no records, a mode is unknown, a prompt setting is out of range,
            ``none`` is combined with other modes over several classes, or changes of training
            images conflict.
    """

    def __init__(
        self,
        records: Sequence[Record],
        data: DataConfig,
        size: tuple[int, int],
        *,
        resize: str = "longest",
        prompts: PromptConfig | None = None,
        mask_size: tuple[int, int] | None = None,
        train: bool = False,
        mode: str | list[str] | None = None,
        seed: int = 0,
        input: InputPolicy | None = None,
    ) -> None:
        if not records:
            raise InputError(f"{data.root}: the data set is empty; add image and mask pairs")
        self.records, self.data, self.size = tuple(records), data, size
        self.resize, self.train, self.seed = resize, train, seed
        self.input = InputPolicy(size, resize, **reading(data)) if input is None else input
        self.prompts = prompts if prompts is not None else PromptConfig()
        if train:
            check_changes(data, self.input.tiles)
        self.frame = training_frame(data, self.input.size) if train else self.input.size
        """Height and width of its examples."""
        self.mask_size = mask_size or (self.frame[0] // 4, self.frame[1] // 4)
        key = "prompts.train" if train else "prompts.eval"
        self.modes = self.prompts.modes(train) if mode is None else PromptModes.of(mode, key)
        self.class_maps = targets_are_maps(data, self.modes)
        """Whether the targets are maps of classes."""
        self.originals = not train
        """Whether examples also have their targets in the original frame."""
        self.object_maps = False
        """Whether examples have their objects as maps, see :meth:`with_object_maps`."""
        self.rounds = self.modes.rounds(self.prompts.clicks)
        """Number of rounds in which a model is prompted, with one more click each time."""
        if self.class_maps and len(self.modes) > 1:
            raise InputError(
                f"{key}={','.join(self.modes)}: with {data.classes} classes, none means a map of "
                "all classes by a semantic decoder; use it alone, or use other prompts"
            )
        self.dense_targets: tuple[str, ...] = ()
        """The targets that examples have besides masks, see :meth:`with_dense_targets`."""
        self.late = False
        """Whether images are changed and resized on the device, see :meth:`with_late_images`."""
        self._rehearsed: PromptModes | None = None
        needed = 0 if data.workers == "auto" else data.workers
        self._epoch = shared(torch.zeros(1, dtype=torch.int64), needed)
        self.samples = SampleCache(self.records, data)

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        count = f"{len(self)} image{'' if len(self) == 1 else 's'}"
        use = f"{'training' if self.train else 'evaluation'} with {self.modes}"
        return f"SegmentationDataset({count}, frame {self.frame[1]}x{self.frame[0]} pixels, {use})"

    def set_epoch(self, epoch: int) -> None:
        """Chooses the random numbers of the next pass."""
        self._epoch[0] = epoch

    def in_frame(self, size: tuple[int, int], mask_size: tuple[int, int]) -> SegmentationDataset:
        """The same images and prompts for a model of another frame; itself if the frames agree.

        Args:
            size: Height and width of the other frame.
            mask_size: Height and width of mask prompts in it.
        """
        if (size, mask_size) == (self.input.size, self.mask_size):
            return self
        other = copy.copy(self)
        other.size = other.frame = size
        other.input, other.mask_size = replace(self.input, size=size), mask_size
        return other

    def with_prompts(self, *names: str) -> SegmentationDataset:
        """The same images with the prompts of another mode; itself if it already has them.

        Args:
            names: Prompt modes, as in ``prompts.eval``.

        Raises:
            InputError: An unknown mode.
        """
        modes = PromptModes.of(names, "prompts")
        if modes.names == self.modes.names:
            return self
        other = copy.copy(self)
        other.modes, other.rounds = modes, modes.rounds(self.prompts.clicks)
        return other

    asked_in = with_prompts  # its name in version 0.1.0

    def rehearsing(self, modes: Sequence[str]) -> SegmentationDataset:
        """The same images with additional rehearsal prompts, one object per further mode.

        Empty images get none. These prompts are drawn last, so that everything else is the same as
        without them.

        Args:
            modes: Values of ``prompts.train``; without any the result is the data set itself.

        Raises:
            InputError: An unknown mode.
        """
        if not modes:
            return self
        other = copy.copy(self)
        other._rehearsed = PromptModes.of(list(modes), "train.keep")
        return other

    def with_originals(self) -> SegmentationDataset:
        """The same images and prompts, with their targets in the original frame as well.

        In training that is the augmented and cropped image, before it is fitted into the model's
        frame.

        Raises:
            InputError: Images change in the model's frame, where they no longer have their own
                size.
        """
        check_own_size(self.data)
        other = copy.copy(self)
        other.originals = True
        return other

    def with_object_maps(self) -> SegmentationDataset:
        """The same images and prompts, each with its objects as one map instead of masks.

        An example is then as large as its image, however many objects there are. Maps of classes
        stay as they are.
        """
        other = copy.copy(self)
        other.object_maps = not self.class_maps
        return other

    def with_dense_targets(self, names: Sequence[str]) -> SegmentationDataset:
        """The same images and prompts, with targets that are computed from all objects of an image.

        They are computed in the model's frame, after the image has been changed and fitted.

        Args:
            names: Names of :data:`samtune.data.dense_targets.DENSE_TARGETS`; without any the result
                is the data set itself.
        """
        if not names:
            return self
        other = copy.copy(self)
        other.dense_targets = tuple(names)
        return other

    def with_late_images(self, late: bool) -> SegmentationDataset:
        """The same training images, which are changed and resized on the device, or here.

        Args:
            late: Whether they are, see :func:`samtune.data.late_images.are_late`.
        """
        (other := copy.copy(self)).late = late
        return other

    def sample(self, index: int) -> Sample:
        """The sample of one record, from the cache if it is there.

        Raises:
            InputError: A file is broken, or mask values violate the rules.
        """
        return self.samples.whole(index, self.input)

    def labels(self, index: int) -> Labels:
        """The objects of one record in the original frame.

        Raises:
            InputError: See :meth:`sample`.
        """
        return self.samples.image_of(index, self.input, self.train)[1]

    def __getitem__(self, index: int) -> Example:
        """One example; see the class."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        image, labels, pixels = self.samples.image_of(index, self.input, self.train)
        draws, late = self._draws(index), None
        if self.late and pixels is None:
            late = late_image(image, labels, self.data, self.input, draws)
            labels, pixels = late.change.of_labels(labels), late.nothing
            image = np.broadcast_to(np.uint8(0), (*labels.map.shape, 3))
        elif self.train:
            crops = self.data.crop is not None
            image, labels = draws.change(image, labels, self.data.augment, crops)
            image, labels = cropped_rotated(image, labels, self.data, self.input, draws)
            image, labels = drawn_view(image, labels, self.input, draws, self.modes)
        policy = replace(self.input, size=self.frame)
        if self.train and acts_in_frame(self.data):  # the first size was applied before
            policy = replace(policy, first_size=None)
        pixels, geometry = fit(image, policy, pixels)
        everywhere = np.ones(labels.map.shape, bool) if labels.valid is None else labels.valid
        if self.class_maps:
            everywhere = everywhere & (self._class_of(labels)[labels.map] >= 0)
        question = self._ask(labels, geometry, draws, self.modes)
        return Example(
            pixels=pixels,
            prompts=question.prompts.to_model(geometry),
            targets=question.targets,
            valid=torch.from_numpy(fit_mask(everywhere, geometry)),
            classes=torch.from_numpy(question.classes),
            geometry=geometry,
            name=self.records[index].name,
            original=question.originals if self.originals else None,
            original_valid=torch.from_numpy(everywhere) if self.originals else None,
            image=None if self.train or self.input.tiles == "whole" else torch.tensor(image),
            objects=question.map,
            rehearsal=self._rehearsal(labels, geometry, draws),
            dense=in_frame(self.dense_targets, labels, geometry),
            late=late,
        )

    def _rehearsal(self, labels: Labels, geometry: Geometry, draws: Draws) -> Question | None:
        if self._rehearsed is None:
            return None
        further = self._ask(labels, geometry, draws, self._rehearsed, rehearsed=True)
        return Question(
            further.prompts.to_model(geometry),
            further.targets,
            torch.from_numpy(further.classes),
            (further.originals,) if self.originals else (),
        )

    def _draws(self, index: int) -> Draws:
        """The random choices of one example; those of evaluation are the same in every epoch."""
        kind = DRAWS[as_yaml(self.data.redraw)] if self.train else FirstDraws
        epoch, views = int(self._epoch[0]), self.data.views
        return kind.of(self.seed, epoch if views is None else epoch % views, index)

    def _ask(
        self,
        labels: Labels,
        geometry: Geometry,
        draws: Draws,
        modes: PromptModes,
        rehearsed: bool = False,
    ) -> AskedImage:
        fitted = fit_mask(labels.map, geometry)
        objects = Objects(labels.map, fitted, len(labels), geometry.resized)
        if self.class_maps:
            table = self._class_of(labels)
            targets, original = (
                torch.from_numpy(table[m])[None] for m in (objects.fitted, objects.map)
            )
            return AskedImage(Prompts.of(count=1), targets, original, np.zeros(1, np.int64))
        sampling = Sampling(self.prompts, self.train, draws, self.mask_size)
        choices = tuple(mode for mode in modes if mode != NONE)
        if len(choices) < len(modes) and draws.mode(len(modes)) >= len(choices):
            prompts, the_one = Prompts.of(count=1), np.zeros(1, np.int64)
            return self._question(prompts, objects.as_one(), the_one, np.zeros(1, np.int64))
        which = self._objects(objects, draws)
        empty = not rehearsed and (self.prompts.ask_empty or self.data.crop is not None)
        if self.train and empty and not len(which):
            return AskedImage(
                Prompts.of(count=1),
                torch.zeros(1, *objects.fitted.shape, dtype=torch.bool),
                torch.zeros(1, *objects.map.shape, dtype=torch.bool),
                np.zeros(1, np.int64),
            )
        groups = assign(which, choices, draws, self.prompts.one_kind)
        which = np.concatenate([group for _, group in groups])
        classes = labels.classes[which]
        if self.object_maps:
            prompts, late = prompts_and_late_masks(objects, groups, sampling)
            return self._question(prompts, objects, which, classes).with_late(late)
        prompts = Prompts.cat([prompter(mode)(objects, group, sampling) for mode, group in groups])
        question = self._question(prompts, objects, which, classes)
        if not self.train or rehearsed or not self.prompts.background_points:
            return question
        return self._with_background(question, objects, labels, draws)

    def _with_background(
        self, question: AskedImage, objects: Objects, labels: Labels, draws: Draws
    ) -> AskedImage:
        """The same with points on the background, whose targets are empty."""
        everywhere = np.ones(labels.map.shape, bool) if labels.valid is None else labels.valid
        further = background_points(objects, everywhere, self.prompts.background_points, draws)
        empty = [
            targets.new_zeros(len(further) if rows else 0, *targets.shape[1:])
            for targets, rows in (
                (question.targets, True), (question.originals, self.originals)
            )
        ]  # fmt: skip
        return question._replace(
            prompts=Prompts.cat([question.prompts, further]),
            targets=torch.cat([question.targets, empty[0]]),
            originals=torch.cat([question.originals, empty[1]]),
            classes=np.concatenate([question.classes, np.zeros(len(further), np.int64)]),
        )

    def _question(
        self,
        prompts: Prompts,
        objects: Objects,
        which: NDArray[np.int64],
        classes: NDArray[np.int64],
    ) -> AskedImage:
        """The prompts with the targets of the objects ``which``, as masks or as a map."""
        masks = which[:0] if self.object_maps else which
        return AskedImage(
            prompts,
            objects.targets(masks),
            objects.originals(masks if self.originals else masks[:0]),
            classes,
            objects.as_map(which) if self.object_maps else None,
        )

    def _class_of(self, labels: Labels) -> NDArray[np.int64]:
        """The class of each value of the label map; -1 for none."""
        none = -1 if self.data.background is None else self.data.background
        return np.concatenate([np.array([none], np.int64), labels.classes])

    def _objects(self, objects: Objects, draws: Draws) -> NDArray[np.int64]:
        """The objects to prompt: in the order of the label map, or drawn if there are many."""
        there = large_enough(objects.map, objects.count, self.data)
        if not self.train:
            return np.flatnonzero(there)
        if not self.originals:  # otherwise it is compared at its own size
            there &= areas(objects.fitted, objects.count) > 0
        which = np.flatnonzero(there)
        if len(which) > self.prompts.max_objects:
            which = draws.some_of(which, self.prompts.max_objects)
        return which


__all__ = ["DataConfig", "InputConfig", "SegmentationDataset"]
