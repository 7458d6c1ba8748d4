"""Training: the only place with optimiser, schedule and distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch.optim import Optimizer

from samtune.data import SegmentationDataset
from samtune.data.changes import images_vary
from samtune.data.late_images import are_late
from samtune.data.opening import DataSplits
from samtune.data.sample_store import FOLDER as DECODED
from samtune.distributed import any_process, is_main
from samtune.errors import checks_keywords
from samtune.evaluation.prepare import Images, training_images
from samtune.files import as_path
from samtune.interrupts.signals import heeding_signals
from samtune.losses.functions import LossFunction
from samtune.metrics.config import EvalConfig
from samtune.model.checks import check_model
from samtune.model.finetuned import FineTuned
from samtune.model.header import check_further
from samtune.model.strength import no_base
from samtune.options import speaks_python
from samtune.options.arguments import check_made_as, check_whole
from samtune.precision import Device, device_named
from samtune.training.budget import Budget, Outside
from samtune.training.caching import FOLDER, check_feature_cache, feature_cache, remove_store
from samtune.training.callbacks import Callback, Callbacks
from samtune.training.choice import Judge, measurements_at_end
from samtune.training.kinds import kinds_to_choose
from samtune.training.optimiser import OptimizerFactory, ScheduleFactory
from samtune.training.result import FitResult
from samtune.training.saves import goes_on, locked_by_main
from samtune.training.schedule import NONE, FitConfig
from samtune.training.trackers import check_trackers
from samtune.training.trainer import Event, Trainer
from samtune.training.user_parts import UserParts
from samtune.training.validation import Validation


@speaks_python()
@checks_keywords(
    FitConfig,
    EvalConfig,
    elsewhere={
        "cpu": "give device='cpu' to stay on the CPU",
        "settings": "the settings are config=FitConfig(...), as in config=FitConfig(epochs=5)",
        "prompts": "the prompts are the model's, as in FineTuned(sam, ..., prompts='box,point')",
        "scheduler": "give schedule=, a function that makes one from the optimizer",
        "optimiser": "give optimizer=, a function that makes one from the list of parameters",
    },
)
def fit(
    model: FineTuned,
    train: Images | DataSplits,
    val: Images | FitConfig | None = None,
    config: FitConfig | None = None,
    *,
    output: str | Path | None = None,
    resume: bool | Literal["anew"] = False,
    seed: int = 0,
    on_event: Callable[[Event], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    header: dict[str, Any] | None = None,
    device: Device | None = None,
    measuring: EvalConfig | None = None,
    loss: LossFunction | str | None = None,
    optimizer: Optimizer | OptimizerFactory | None = None,
    schedule: ScheduleFactory | None = None,
    on_step: Callback | None = None,
    on_validation: Callback | None = None,
    callbacks: Any | Sequence[Any] = (),
    outside: Outside | None = None,
    automatic: Mapping[str, Mapping[str, Any]] | None = None,
) -> FitResult:
    """Trains a model's adapter and decoder; the model ends with its best validated weights.

    The base is validated before the first step, and is a candidate like all that follows, unless
    the model answers with classes, which the base does not know: if nothing was better, the model
    ends at strength 0, and answers as the base.

    Args:
        model: From ``FineTuned``; its base is not touched.
        train: A data set of :func:`samtune.open_data`, a split, or prepared images.
        val: A split, or prepared images; without any the last weights stay.
        config: How to train; it may stand in the place of ``val``.
        output: Folder for ``best.safetensors`` and ``last/``; nothing is written without it. If it
            holds a training already, it is refused, unless ``resume`` is set.
        resume: Go on from ``output/last``, or begin if there is none yet; ``anew`` also measures
            again what the training has, because the images have changed.
        seed: The seed of the order of images, of dropout, and of the draws of splits.
        on_event: Called with each logged row: ``zero_shot`` (the base: step 0, metrics), ``train``
            (step, lr, the mean loss of all steps and processes since the last row, how many are
            ``not_finite``), ``val`` (step, metrics, ``forgotten``), and after the last step
            ``strength`` (step, strength, weights, metrics).
        progress: Called with the number of steps done and of all steps, after each.
        header: Further entries of the checkpoint's header, as :func:`samtune.save` takes them.
        device: The device, as ``cpu`` or ``cuda:1``, to which the model moves, and where it stays.
            By default it is the fastest that there is: CUDA, MPS, CPU.
        measuring: Options of the metrics with which ``config.metric`` is measured; its list of
            metrics is ignored.
        loss: An own ``function(logits, targets, valid)`` in the place of ``config.loss``, see
            :class:`samtune.losses.FunctionLoss`; or an expression.
        optimizer: A function that makes an optimiser of torch from the list of trained parameters,
            or an optimiser. Its rates are the highest, which warm-up and cosine lead to and from.
        schedule: A function that makes a schedule of torch from the optimiser, in the place of
            warm-up and cosine; it is moved on after each step, and may take ``total_steps``.
        on_step: Called with a :class:`samtune.training.callbacks.CallbackState` after each step.
        on_validation: The same after each validation of what is trained.
        callbacks: An object with methods of these two names, or several.
        outside: The time that a run has used before this call, and what it measures after it, all
            of which ``config.time`` covers; only :mod:`samtune.runs` sets it.
        automatic: How ``config.metric`` finds objects without prompts, as in ``msa@instances``:
            settings that are changed, by section (``everything``, ``watershed``) and name.

    ``output/last`` is written before the first step, by time, at every validation, and when a
    signal (Ctrl-C, SIGTERM, SIGHUP) or an error ends the training, unless the error is that weights
    are not finite. A resumed training gives what an uninterrupted one does, with ``feature_cache``
    up to rounding.

    Raises:
        InputError: Nothing to train, wrong settings or images, a folder that holds another
            training, a loss that is not finite, or own parts that do not fit.
        KeyboardInterrupt: A signal has ended the training, unless the program handles it itself.
    """
    check_model(model)
    config, val = (val, None) if isinstance(val, FitConfig) else (config or FitConfig(), val)
    check_made_as("config", config, FitConfig, "samtune.FitConfig(epochs=20)")
    device = None if device is None else device_named(device)
    check_further(header or {}, "header")
    check_trackers(config.trackers)
    check_whole("seed", seed, 0)
    check_made_as("measuring", measuring, EvalConfig, "samtune.EvalConfig(nsd_tolerance=2)")
    folder = None if output is None else as_path(output)
    with locked_by_main(folder):
        begun = goes_on(folder, bool(resume))
        if isinstance(loss, str):
            config, loss = replace(config, loss=loss), None
        model.strength, model.multimask = 1, config.multimask
        images, others = training_images(model, train, val, seed)
        both = [each for each in (images, others) if each is not None]
        _store_decoded(both, folder)
        vary, whose = images_vary(images.data, images.input.tiles), model.adapter.name
        check_feature_cache(config.feature_cache, whose, model.first_block > 0, vary)
        how = on_event or (lambda event: None), device, folder
        own = UserParts(loss, optimizer, schedule, Callbacks(on_step, on_validation, callbacks))
        trainer = Trainer(model, images, config, seed, *how, own)
        trainer.saves.header, trainer.progress, trainer.train = (
            header or {}, progress, _changed_on(trainer.train, trainer.accelerator.device)
        )  # fmt: skip
        if others is not None:
            validation = Validation(others, config, measuring or EvalConfig(), automatic)
            trainer.judge = _judge_of(trainer, validation)
        if config.seconds is not None:
            judge, images_at_end = trainer.judge, 0 if others is None else len(others)
            at_end = images_at_end, 0 if judge is None else measurements_at_end(judge, model)
            trainer.budget = Budget(config, trainer.batches, *at_end, outside)
        trainer.check_schedule()
        if begun:
            trainer.restore(measure_anew=resume == "anew")
        mine = None if folder is None else folder / FOLDER
        of_user = None if config.feature_folder is None else as_path(config.feature_folder)
        where = of_user or mine, of_user is not None
        model.cache = feature_cache(model, config.feature_cache, vary, *where)
        try:
            with heeding_signals():
                result = trainer.run()
        finally:
            if model.cache is not None:
                model.cache.flush()  # also after an interrupt, for the training that goes on
            model.cache, model.compiling = None, "none"
        left_out = sum(each.samples.count_left_out(each.input, each.train) for each in both)
        if folder is not None:
            any_process(False, model.device)  # all of them have written what they had
            _remove_stores(folder, both, of_user is None)
        return replace(result, samples_left_out=left_out)


def _changed_on(train: SegmentationDataset, device: torch.device) -> SegmentationDataset:
    """Training images that are augmented and resized on a device, if it helps or is demanded.

    Raises:
        InputError: It is demanded, and another setting has images changed where they are loaded.
    """
    return train.with_late_images(are_late(train.data, train.input, device))


def _store_decoded(both: Sequence[SegmentationDataset], folder: Path | None) -> None:
    """Has decoded images stored in the folder of a training, if its settings say so."""
    if folder is None:
        return
    for each in both:
        each.samples.store_in(folder / DECODED)


def _remove_stores(folder: Path, both: Sequence[SegmentationDataset], features: bool) -> None:
    """Removes what was cached for one training in its own folder, and not in one of the user's."""
    decoded = both[0].data.cache_folder is None
    for each in both if decoded else ():
        each.samples.store = None  # whoever reads on would begin it anew
    for name, is_own in ((FOLDER, features), (DECODED, decoded)):
        if is_own and is_main():
            remove_store(folder / name)


def _judge_of(trainer: Trainer, validation: Validation) -> Judge:
    """The comparison of the validations of a training.

    Raises:
        InputError: The criterion is over automatic modes that the model cannot do.
    """
    model, keeping, config = trainer.model, trainer.keeping, validation.config
    validation.check(model)
    kinds = kinds_to_choose(config, model, keeping.trained_modes, keeping.setting != NONE)
    return Judge(validation, keeping, config, no_base(model), kinds)
