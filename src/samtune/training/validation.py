"""The validation of a training: the same images, with one or several prompt modes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np

from samtune.data import SegmentationDataset
from samtune.errors import InputError
from samtune.evaluation.automatic import evaluate_automatic, generator_of, inability
from samtune.evaluation.streaming import Evaluation, evaluate_prompts
from samtune.evaluation.sums import gather_items
from samtune.inference.predictor import PromptMismatch
from samtune.metrics.config import EvalConfig
from samtune.metrics.contract import ALWAYS
from samtune.metrics.intervals import Floats, t_quantile
from samtune.metrics.prompt_names import key_of
from samtune.model.finetuned import FineTuned
from samtune.prompts import AUTOMATIC
from samtune.training.criterion import Criterion, Term
from samtune.training.schedule import FitConfig

Row = dict[str, Any]
"""The numbers of one validation: metrics by name, those of a prompt mode as ``iou@point``."""
OF_MODES = ("iou", "dice")
"""The metrics measured for every prompt mode."""


@dataclass(frozen=True)
class Measurement:
    """The results of one validation, and their variation over its images."""

    row: Row
    images: int
    """How many images vary."""
    draw: Callable[[], Floats]
    """Gives :attr:`values`."""
    encodings: int = 0
    """How many images or tiles were encoded for it, by all processes."""
    draw_by: Callable[[Criterion], Floats] | None = None
    """The same for another criterion."""

    @cached_property
    def values(self) -> Floats:
        """The criterion for draws of the images, ``(draws,)``; the same draws for every model."""
        return self.draw()

    def judged_by(self, criterion: Criterion) -> Measurement:
        """The same results under another criterion over the prompt modes that were measured."""
        if (by := self.draw_by) is None:
            return self
        return replace(self, draw=lambda: by(criterion))

    def error_beside(self, other: Measurement, errors: float = 1.0) -> float:
        """The standard error of the difference to the same images' other validation.

        It is widened to what Student's distribution has for so few images, so that a difference
        beyond it is as rare by chance whatever their number; infinite for a single image.

        Args:
            other: The other validation.
            errors: The number of standard errors.
        """
        differences, n = self.values - other.values, self.images
        known = differences[np.isfinite(differences)]
        if n < 2 or 2 * len(known) < len(differences) or not len(known):
            return math.inf
        # bootstrap draws underestimate the variance: they divide by n, not by n - 1
        wide = math.sqrt(n / (n - 1)) * t_quantile(NormalDist().cdf(errors), n - 1)
        return wide * float(np.std(known))


class Validation:
    """Measures a model on the validation images.

    Args:
        val: Made with ``train=False``.
        config: How the training goes.
        measuring: How metrics are measured; which ones it names makes no difference.
        changes: Settings of automatic modes that are changed, by section and name.
    """

    def __init__(
        self,
        val: SegmentationDataset,
        config: FitConfig,
        measuring: EvalConfig,
        changes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.val, self.config, self.changes = val, config, changes
        self.criterion = Criterion.parse(config.metric)
        self.measuring = replace(measuring, metrics=self.criterion.measures)

    @property
    def own_mode(self) -> str | None:
        """The prompt mode of its images as they were given, unless they have several."""
        return self.val.modes.names[0] if len(self.val.modes) == 1 else None

    def check(self, model: FineTuned) -> None:
        """Refuses a criterion over automatic modes that a model cannot do.

        Raises:
            InputError: With what to do.
        """
        for mode in self.criterion.modes:
            if reason := inability(model, mode):
                raise InputError(f"train.metric={self.criterion}: {reason}")

    def measure(self, model: FineTuned, modes: Sequence[str]) -> Measurement:
        """The numbers of a model at its strength, in the prompt modes that count.

        Args:
            model: Left in evaluation mode.
            modes: The modes that are measured besides those of the criterion.
        """
        model.eval()  # in training mode its frame is that of full strength
        c, val = self.config, self.val.in_frame(model.input.size, model.mask_size)
        names = tuple(dict.fromkeys((*self.criterion.modes, *modes)))
        prompted = [mode for mode in names if mode not in AUTOMATIC]
        before = model.encodings
        evaluations = evaluate_prompts(
            model,
            [val, *(each for mode in prompted if (each := val.with_prompts(mode)) is not val)],
            batch_size=c.at_once,
            precision=c.precision,
            multimask=c.multimask,
            workers=val.data.workers,
            measuring=self.measuring,
        )
        first, others = evaluations[0], iter(evaluations[1:])
        by_mode: dict[str, Evaluation | None] = {}
        for mode in names:
            if mode in AUTOMATIC:
                by_mode[mode] = self._automatic(model, val, mode)
            else:
                by_mode[mode] = first if mode == self.own_mode else next(others)
        measures = self.criterion.measures
        row = {key: first.metrics[key] for key in dict.fromkeys((*ALWAYS, *measures))}
        for mode, evaluation in by_mode.items():
            keys = dict.fromkeys((*OF_MODES, *measures))
            if mode in AUTOMATIC:  # which have some metrics only
                keys = dict.fromkeys((*OF_MODES, *(t.measure for t in self._terms_of(mode))))
            values = {} if evaluation is None else evaluation.metrics
            row |= {key_of(key, mode): values.get(key, math.nan) for key in keys}
        row |= {str(self.criterion): self.criterion.value(row)}
        images = 0 if first.draws is None else first.draws.images
        encodings = sum(gather_items([model.encodings - before]))

        def draw(criterion: Criterion) -> Floats:
            return _values(criterion, first, by_mode)

        return Measurement(row, images, lambda: draw(self.criterion), encodings, draw)

    def _terms_of(self, mode: str) -> list[Term]:
        return [term for term in self.criterion.terms if term.mode == mode]

    def _automatic(
        self, model: FineTuned, val: SegmentationDataset, mode: str
    ) -> Evaluation | None:
        """The evaluation of an automatic mode; ``None`` of a base that cannot do it."""
        if model.strength == 0 and inability(model, mode):
            return None
        generator = generator_of(model, mode, self.config.precision, self.changes)
        with warnings.catch_warnings():  # a training has said what it is for
            warnings.simplefilter("ignore", PromptMismatch)
            return evaluate_automatic(model, val, generator, measuring=self.measuring)


def _values(
    criterion: Criterion, first: Evaluation, by_mode: Mapping[str, Evaluation | None]
) -> Floats:
    """A criterion for draws of the images, see :class:`Measurement`."""
    by_key: dict[str, Floats] = {}
    for term in criterion.terms:
        evaluation = first if term.mode is None else by_mode[term.mode]
        draws = None if evaluation is None else evaluation.draws
        if draws is not None and term.measure in draws.values:
            by_key[term.key] = draws.values[term.measure]
    count = min(map(len, by_key.values()), default=0)
    rows = ({key: values[i] for key, values in by_key.items()} for i in range(count))
    return np.array([criterion.value(row) for row in rows])
