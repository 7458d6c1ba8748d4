"""Length and speed of a training: its settings with ranges, the order of images, and the rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Literal

from samtune.errors import InputError
from samtune.losses import DEFAULT_LOSS, Loss, LossAt
from samtune.losses.plugins import TERMS
from samtune.metrics.contract import MEASURES
from samtune.model.rates import USUAL
from samtune.options import (
    Count,
    Fraction,
    NotNegative,
    PositiveFraction,
    Range,
    Settings,
    name_of,
    setting,
)
from samtune.precision import Precision
from samtune.prompts import PromptModes, numbered_mode
from samtune.registry import Registry
from samtune.training.caching import Caching
from samtune.training.criterion import Criterion
from samtune.training.durations import seconds_in
from samtune.training.last_batch import LAST_BATCHES
from samtune.training.trackers import check_names_of_trackers

AUTO, NONE = "auto", "none"
"""The values of settings that samtune chooses itself, and of what is turned off."""
UNSAFE = {"strength": NONE, "average": NONE, "keep": NONE}
"""The settings of trainings in which only the best step counts: published ones, and those of
version 0.1.0."""
FORWARD, BACKWARD = 1, 2
"""The encoder cost of an image in passes: the gradient takes two."""
MOST_VALIDATIONS, LEAST_VALIDATIONS = 20, 4
"""Bounds of the default number of validations."""
BATCH = 4
"""Images per batch if nothing else is set."""
DEFAULT_EPOCHS = 20
"""Number of epochs if no other length is set."""


_OF_FIT = {
    **{
        name: name
        for name in (
            "optimizer", "schedule", "callbacks", "on_step", "on_validation", "output", "resume",
            "seed", "device", "measuring", "progress",
        )
    },
    "optimiser": "optimizer",
    "scheduler": "schedule",
    "lr_scheduler": "schedule",
    "callback": "callbacks",
    "cpu": "device",
}  # fmt: skip
"""Words that are taken for settings of a training, and the arguments of ``fit`` that they mean."""


class Cosine:
    """The points in time at which the learning rate falls.

    :meth:`along` says how far along the cosine a step of the optimiser lies: 0 at its start, 1 at
    its lowest point.
    """

    @staticmethod
    def along(config: FitConfig, step: int, total: int, batches: int) -> float:
        """Arguments as :func:`learning_rate`; the step lies after the warm-up."""
        raise NotImplementedError


COSINES: Registry[Cosine] = Registry("cosine", "train.cosine", "samtune.published")
"""The values of ``train.cosine``."""


@dataclass(frozen=True)
class FitConfig(Settings):
    """The settings of a training."""

    section = "train"
    former_names = MappingProxyType({"epoch_share": "epoch_fraction"})
    elsewhere = MappingProxyType(
        {
            **{
                name: f"is an argument of fit itself, as in samtune.fit(model, data, {word}=...)"
                for name, word in _OF_FIT.items()
            },
        }
    )

    max_steps: Count | None = None
    """Optimiser steps in all; if epochs is also set, the earlier end counts."""
    epochs: Count | None = None
    """Passes over the training images; 20 if neither this nor max_steps nor time is set."""
    time: str | None = None
    """Time that the run may take, as 90s, 30m, 2h or 1h30m: so many steps are done as fit into it,
    by the pace of the first ones, with all validations and the measurement of the test images. A
    resumed run goes on with what is left, or with what a longer time adds. If steps or epochs are
    set too, the earlier end counts."""
    epoch_fraction: PositiveFraction = setting(1.0, level="published")
    """Fraction of the training images in an epoch, drawn anew for each; at least one image."""
    batch_size: Literal["auto"] | Count = BATCH
    """Images per batch and device; auto means 4 with train.micro_batch=auto: a step then has 4
    images even if the memory holds fewer at once."""
    micro_batch: Literal["auto"] | Count | None = setting(None, level="expert")
    """Images of a batch that are computed at once; their gradients add up to the batch's, so that
    fewer need less memory. By default the whole batch; auto takes as many as the memory holds. If
    memory runs out, the number is halved and the step begins anew."""
    last_batch: str = setting("fill", level="published", names=LAST_BATCHES)
    """The treatment of the last images of an epoch if they do not fill a batch."""
    accumulate: Count = setting(1, level="expert")
    """Number of batches whose gradients are added up for one step."""
    lr: Literal["auto"] | Annotated[float, Range(above=0, remedy="choose one such as 1e-4")] = (
        "auto"
    )
    """Learning rate after the warm-up; auto uses the rate that the method declares (samtune methods
    NAME), 3e-4 for most, 1e-3 for a copy of SAM's decoder that is trained without prompts."""
    min_lr: Fraction = setting(0.01, level="expert")
    """The lowest learning rate, where the cosine ends, as a fraction of lr."""
    cosine: str = setting("step", level="published", names=COSINES)
    """The times at which the learning rate falls along its cosine."""
    warmup: Fraction = setting(0.05, level="expert")
    """Fraction of all steps in which the rate rises from zero."""
    weight_decay: Fraction = setting(1e-4, level="expert")
    """Weight decay of AdamW; it is not applied to biases and other vectors."""
    decay_vectors: bool = setting(False, level="published")
    """Apply the weight decay to biases and norms too."""
    loss: str = DEFAULT_LOSS
    """Weighted sum of losses, as in 20*focal + dice: bce, bbce, bbce_per_mask, dice, focal, iou,
    structure, iou_head and quality_head; for the decoder instances also distances, foreground and
    object_ce; for maps of classes ce, ce_pooled and multi_dice."""
    loss_at: LossAt = setting("frame", level="expert")
    """The size at which the loss is computed: frame, that of the model's frame, or image, each
    image's own size (after augmentation and crops). The latter needs memory for masks of that size,
    and bbce then counts pixels per image."""
    clip: Annotated[float, Range(at_least=0, remedy="0 is no limit")] = setting(1.0, level="expert")
    """Greatest norm of the gradient; 0 for no limit."""
    precision: Precision = "auto"
    """Arithmetic of the forward pass; trained weights stay fp32. auto means bf16 on GPUs and CPUs
    with matrix units for it (NVIDIA since Ampere, Intel with AMX), and fp32 on others."""
    compile: Literal["auto", "graphs"] | bool = setting("auto", level="expert")
    """Compile the encoder's blocks in training, once per kind and size of block. auto does so on
    GPUs, true everywhere; graphs also launches the blocks as CUDA graphs, for small inputs. The
    first step takes up to a minute more."""
    checkpointing: Literal["gelu"] | bool = setting(False, level="expert")
    """Recompute each block in the backward pass: less memory, about a third more time. gelu
    recomputes only the hidden layer of each block's MLP, the widest of what is kept."""
    feature_cache: bool | int | float | str | list[str] = setting(0, level="expert")
    """Cache of the encoder's results for images, up to the first block that is trained: off (0),
    auto, a size of memory per process as 8GB (or bytes), ram=SIZE, disk=SIZE, or several, as
    ram=4GiB,disk=50GiB; with half they are stored in half precision. It needs blocks that are not
    trained (adapter.name=none, or late adapter.blocks), and images that repeat: data.augment=none
    without crops, data.views, or data.redraw=false. auto caches if that helps, in a quarter of the
    free memory. train.keep_to=base may take the same memory again."""
    feature_folder: str | None = setting(None, level="expert")
    """Folder of the cache on disk, which several trainings of one base may share, also at the same
    time; by default in the run's folder until the training is done, and one for all runs of a
    comparison."""
    multimask: bool = setting(False, level="expert")
    """Train and read SAM's three masks per prompt instead of its single one."""
    eval_every: Count | None = None
    """Steps between validations; by default one validation per epoch, at most 20 in all. If these
    would encode more images or tiles than the training, there are fewer, at least 4; a training
    image counts three times, because of its gradient, if the encoder is adapted."""
    eval_epochs: Count | None = setting(None, level="expert")
    """Epochs between validations, if eval_every is not set."""
    metric: str = "iou"
    """The validation metric that chooses the best checkpoint, any of samtune metrics; over several
    prompts the mean, iou@none+iou@point, or the worst, min(iou@none,iou@point); of all objects that
    are found without prompts, msa@instances. Without a prompt, the mean over the trained prompts of
    prompts.eval, or over all trained prompts if there are none."""
    strength: Literal["auto", "none"] | Fraction = "auto"
    """How far the result is blended from the base (0) to the trained weights (1): auto chooses by
    the validation images, for each kind of prompt; none means 1, or 0 if the base validates better;
    a number is used as it is, for all prompts."""
    average: Literal["auto", "none"] | PositiveFraction = setting("auto", level="expert")
    """Fraction of the steps, at the end, whose weights are averaged; the average is used if it
    validates better by more than the standard error. auto means a quarter."""
    keep: str | list[str] = "auto"
    """Prompts that are not trained for and must not get worse: auto means box and point, each if
    the base reaches an IoU of 0.5 with it on the validation images; none; or a list. Training uses
    those of a list on its images too, and those of auto unless each kind of prompt gets its own
    strength: then the base answers them."""
    keep_to: Literal["base", "targets"] = setting("base", level="expert")
    """Targets of the prompts of train.keep in training: base, the base's own answers, which costs
    one more encoding, or targets, the true masks."""
    rehearsal: Literal["auto"] | NotNegative = setting("auto", level="expert")
    """Weight of the loss of the prompts of train.keep; with 0 they are only measured. auto means 0
    if train.keep=auto and each kind of prompt gets its own strength, else 1."""
    forget: NotNegative = setting(0.01, level="expert")
    """Weights are not chosen if they lose more than this IoU, compared with the base, on the
    validation images with a prompt of train.keep or of training; train.keep=none turns this off,
    except for the prompts of a train.metric with several terms."""
    patience: Count | None = None
    """Stop after this many validations in a row without a better one. Validations count only after
    the warm-up, and only after the first weights that are better than the base."""
    log_every: Count = setting(10, level="expert")
    """Steps between logged training losses."""
    save_every: NotNegative = setting(10.0, level="expert")
    """Minutes between two saved states, besides those at validations; 0 saves one after each step.
    """
    trackers: tuple[str, ...] = setting((), level="expert")
    """Accelerate's trackers to report to as well: tensorboard, wandb, mlflow, ..."""

    def take_parts(self) -> None:
        """Accepts a class as the metric, and places, see :class:`Settings`."""
        if callable(self.loss):
            raise InputError(
                f"train.loss={name_of(self.loss)}: a function is an argument of fit itself, as in "
                "samtune.fit(model, data, loss=FUNCTION); here its place can stand, as in "
                "'my_pkg.mod:function'"
            )
        TERMS.outside.typed(self.loss)
        object.__setattr__(self, "metric", MEASURES.outside.typed(self.metric))

    def check_together(self) -> None:
        """Refuses sizes, losses, metrics, prompts to keep and trackers that do not exist."""
        Caching.read(self.feature_cache)
        Loss.parse(self.loss)
        Criterion.parse(self.metric)
        check_keep(self.keep)
        check_names_of_trackers(self.trackers)
        if self.micro_batch not in (None, AUTO) and int(self.micro_batch or 1) > self.whole_batch:
            raise InputError(
                f"train.micro_batch={self.micro_batch}: is more than train.batch_size="
                f"{self.batch_size}, of whose images it is a part; set a larger train.batch_size"
            )
        if self.time is not None:
            seconds_in(self.time)

    @property
    def seconds(self) -> float | None:
        """The seconds of ``time``."""
        return None if self.time is None else seconds_in(self.time)

    @property
    def is_bounded(self) -> bool:
        """Whether steps or epochs bound the length."""
        return self.max_steps is not None or self.epochs is not None

    @property
    def whole_batch(self) -> int:
        """Images per batch and device."""
        return BATCH if self.batch_size == AUTO else int(self.batch_size)

    @property
    def at_once(self) -> int:
        """Images of a batch that are computed at once, as far as the settings say."""
        whole = self.whole_batch
        return whole if self.micro_batch in (None, AUTO) else min(whole, int(self.micro_batch or 1))

    @property
    def fits_memory(self) -> bool:
        """Whether the number of images at once is to be chosen by the memory."""
        auto = self.batch_size == AUTO and self.micro_batch is None
        return auto or self.micro_batch == AUTO

    @property
    def peak_lr(self) -> float:
        """The learning rate after the warm-up; the usual one until the model's rate is known."""
        return USUAL.value if self.lr == AUTO else float(self.lr)

    def with_rate(self, rate: float) -> FitConfig:
        """The settings with the rate of a method in the place of ``auto``."""
        return replace(self, lr=rate) if self.lr == AUTO else self

    @property
    def demanded_strength(self) -> float | None:
        """The strength that was set; ``None`` if the validations choose it."""
        return None if self.strength in (AUTO, NONE) else float(self.strength)


def check_keep(setting: str | Sequence[str]) -> str | tuple[str, ...]:
    """The value of ``train.keep``: ``auto``, ``none``, or prompt modes.

    Raises:
        InputError: A mode is unknown, or has several rounds.
    """
    if setting in (AUTO, NONE):
        return str(setting)
    modes = PromptModes.of(setting, "train.keep").names
    for mode in modes:
        if asked_in_rounds(mode):
            raise InputError(f"train.keep={mode}: has several rounds; set train.keep=point")
    return modes


def asked_in_rounds(mode: str) -> bool:
    """Whether a prompt mode has several rounds, with one more click each time."""
    return (numbered_mode(mode) or (mode, 1))[0] == "clicks"


@COSINES.register("step")
class CosineOfSteps(Cosine):
    """The rate falls with every step, from the warm-up's end to the last step."""

    @staticmethod
    def along(config: FitConfig, step: int, total: int, batches: int) -> float:
        """The fraction of the steps after the warm-up."""
        warm = warm_up_steps(config, total)
        return min(1.0, (step - warm) / max(1, total - warm))


@COSINES.register("epoch")
class CosineOfEpochs(Cosine):
    """The rate stays within an epoch and falls between two."""

    @staticmethod
    def along(config: FitConfig, step: int, total: int, batches: int) -> float:
        """The fraction of the epochs."""
        return epoch_of(config, step, batches) / (total * config.accumulate / batches)


def learning_rate(config: FitConfig, step: int, total: int, batches: int = 1) -> float:
    """The rate of step ``1..total``: a linear warm-up to ``lr``, then a cosine to ``min_lr * lr``.

    The cosine is SGDR's without restarts (Loshchilov and Hutter 2017, arXiv:1608.03983).

    Args:
        config: The settings.
        step: Step of the optimiser, from 1.
        total: Steps of the whole training.
        batches: Batches of an epoch.
    """
    warm = warm_up_steps(config, total)
    if step < warm:
        return config.peak_lr * step / warm
    along = COSINES[config.cosine].along(config, step, total, batches)
    fall = 0.5 * (1 + math.cos(math.pi * along))
    return config.peak_lr * (config.min_lr + (1 - config.min_lr) * fall)


def warm_up_steps(config: FitConfig, total: int) -> int:
    """The step at which the warm-up ends."""
    return max(1, round(config.warmup * total))


def epoch_of(config: FitConfig, step: int, batches: int) -> int:
    """The epoch, from 0, in which step ``1..total`` begins."""
    return (step - 1) * config.accumulate // batches


def most_validations(
    config: FitConfig, total: int, encodings: int, world: int = 1, detached: bool = False
) -> int:
    """The default upper limit on the number of validations of a training.

    They may cost as much as the training, and number from 4 to 20.

    Args:
        config: The settings.
        total: Steps of the whole training.
        encodings: Images or tiles that one validation encodes; 0 if it is not known.
        world: Processes.
        detached: Whether the training has no gradient in the encoder.
    """
    if not encodings:
        return MOST_VALIDATIONS
    images = total * config.accumulate * config.whole_batch * world
    passes = images * (FORWARD if detached else FORWARD + BACKWARD)
    return min(MOST_VALIDATIONS, max(LEAST_VALIDATIONS, passes // encodings))


def validates(
    config: FitConfig, step: int, total: int, batches: int, most: int = MOST_VALIDATIONS
) -> bool:
    """Whether a validation follows step ``1..total``, given the number of batches per epoch.

    The last step has one. If epochs end within steps, the step in which an epoch ends has one.
    """
    if step < 1 or step == total:
        return step > 0
    if config.eval_every is None and config.eval_epochs is not None:
        length = config.eval_epochs * batches
        before, now = ((k * config.accumulate) // length for k in (step - 1, step))
        return now > before
    return step % (config.eval_every or validation_period(config, total, batches, most)) == 0


def validation_period(config: FitConfig, total: int, batches: int, most: int) -> int:
    """Steps between two validations by default, given the number of batches per epoch."""
    return max(batches // config.accumulate, math.ceil(total / most), 1)


def total_steps(config: FitConfig, batches: int) -> int:
    """Optimiser steps of the whole training, given the number of batches per epoch."""
    if config.max_steps is not None and config.epochs is None:
        return config.max_steps
    by_epochs = math.ceil((config.epochs or DEFAULT_EPOCHS) * batches / config.accumulate)
    return min(by_epochs, config.max_steps or by_epochs)
