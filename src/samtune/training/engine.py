"""Training: the only place with optimiser, schedule and distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from samtune.batch import Batch
from samtune.data import SegmentationDataset
from samtune.data.changes import images_vary
from samtune.data.opening import DataSplits
from samtune.distributed import finite_mean, mean_over_processes, place, share_buffers
from samtune.errors import InputError
from samtune.evaluation.prepare import Images, training_images
from samtune.losses import Loss
from samtune.metrics.config import EvalConfig
from samtune.model.feature_cache import FeatureCache
from samtune.model.finetuned import FineTuned
from samtune.model.strength import check_demanded, no_base
from samtune.training.accelerator import make_accelerator
from samtune.training.average import add_to_mean, is_averaged
from samtune.training.choice import Judge, choose, drop_base, measure_again, take_validation
from samtune.training.faults import Diverged
from samtune.training.interrupts import without_interrupts
from samtune.training.keeping import Keeping
from samtune.training.memory import peak_memory
from samtune.training.objective import Objective
from samtune.training.optimiser import parameter_groups
from samtune.training.result import FitResult
from samtune.training.saves import Saves, tensors_of
from samtune.training.schedule import (
    FitConfig,
    batches_per_epoch,
    check,
    check_feature_cache,
    learning_rate,
    most_validations,
    stream_seed,
    total_steps,
    validates,
)
from samtune.training.state import TrainingState
from samtune.training.stream import batches_from
from samtune.training.validation import Row, Validation

Event = dict[str, Any]
NOTHING = "the validation images have nothing to measure"
BAD_STEPS = 10
"""Training stops after this many steps in a row without a finite loss."""


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
    header: dict[str, Any] | None = None,
    cpu: bool = False,
    measuring: EvalConfig | None = None,
) -> FitResult:
    """Trains a model's adapter and decoder; the model ends with its best validated weights.

    The base is validated before the first step, and is a candidate like all that follows, unless
    the model answers with classes, which the base does not know: if nothing was better, the model
    ends at strength 0, and answers as the base.

    Args:
        model: From ``FineTuned``; its base is not touched.
        train: What :func:`samtune.open_data` gives, a split, or prepared images.
        val: A split, or prepared images; without any the last weights stay.
        config: How to train; it may stand in the place of ``val``.
        output: Folder for ``best.safetensors`` and ``last/``; nothing is written without it.
        resume: Go on from ``output/last``; ``anew`` measures what it has on images that changed.
        seed: Of the order of images, of dropout, and of the draws of splits.
        on_event: Called with each logged row: ``zero_shot`` (the base: step 0, metrics), ``train``
            (step, lr, the mean loss of all steps and processes since the last row, how many are
            ``not_finite``), ``val`` (step, metrics, ``forgotten``), and after the last step
            ``strength`` (step, strength, weights, metrics).
        header: Further values for the checkpoint's header.
        cpu: Stay on the CPU if there is a faster device.
        measuring: How ``config.metric`` is measured; which metrics it names makes no difference.

    ``output/last`` is written before the first step, by time, at every validation, and when an
    interrupt (Ctrl-C) or an error ends the training, unless that is of the weights themselves. A
    resumed training gives what an uninterrupted one does, with ``feature_cache`` up to rounding.

    Raises:
        InputError: Nothing to train, wrong settings or images, no state, or a loss not finite.
    """
    config, val = (val, None) if isinstance(val, FitConfig) else (config or FitConfig(), val)
    check(config)
    model.strength = 1
    images, others = training_images(model, train, val, seed)
    how = on_event or (lambda event: None), cpu, None if output is None else Path(output)
    trainer = _Trainer(model, images, config, seed, *how)
    trainer.saves.header = header or {}
    if others is not None:
        validation = Validation(others, config, measuring or EvalConfig())
        trainer.judge = Judge(validation, trainer.keeping, config, no_base(model))
    if resume:
        trainer.restore(measure_anew=resume == "anew")
    model.cache = FeatureCache(config.feature_cache) if config.feature_cache else None
    try:
        return trainer.run()
    finally:
        model.cache = None


class _Trainer:
    """One training: its parts and where it stands."""

    judge: Judge | None = None
    """Compares validations, if there are images for them."""

    def __init__(
        self,
        model: FineTuned,
        train: SegmentationDataset,
        config: FitConfig,
        seed: int,
        on_event: Callable[[Event], None],
        cpu: bool,
        output: Path | None,
    ) -> None:
        if not model.trainable():
            raise InputError(
                f"nothing to train: adapter {model.adapter.name!r} with decoder "
                f"{model.decoder.name!r} has no parameters; set decoder.name=tuned or an adapter"
            )
        changes, detached = images_vary(train.data, train.input.tiles), model.adapter.detached
        check_feature_cache(config, model.adapter.name, detached, changes)
        if config.demanded_strength is not None:
            check_demanded(model, config.demanded_strength)
        self.config, self.seed, self.on_event = config, seed, on_event
        self.train = train.with_originals() if config.loss_at == "image" else train
        self.accelerator = make_accelerator(config, cpu, output)
        self.saves = Saves(output, self.accelerator, config.save_every)
        self.keeping = Keeping.of(config, model, train)
        model.checkpointing = config.checkpointing
        self.model = model.to(self.accelerator.device)
        optimizer = torch.optim.AdamW(parameter_groups(model, config), lr=config.lr)
        loss = Loss.parse(config.loss, config.loss_at)
        how = config.multimask, train.rounds, config.rehearsal, config.keep_to == "base"
        objective = Objective(model, loss, *how)
        self.wrapped, self.optimizer = self.accelerator.prepare(objective, optimizer)
        size, share, last = config.batch_size, config.epoch_share, config.last_batch
        self.batches = batches_per_epoch(len(train), size, place()[1], share, last)
        self.total = total_steps(config, self.batches)
        self.state = TrainingState()
        self._whole = False
        """Whether weights and counters agree, so that they can be saved."""
        self._buffers: dict[str, Tensor] = {}

    def run(self) -> FitResult:
        """Trains to the end, or to an early stop; leaves the best weights in the model."""
        self.saves.begin(self.state.seconds)
        if self.model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.model.zero_grad()  # an interrupted training may have left some
        self._whole = True
        try:
            if self.state.zero_shot is None:
                self._save_last()
            self._measure_base()
            kept = self.state.kept_modes if self.config.rehearsal else ()
            self.train = self.train.rehearsing(kept)
            self._loop()
            share_buffers(self.model)
            self._save_last()
            self._finish()
        except BaseException as error:
            self._rescue(error)
            raise
        self.model.eval()
        for tracker in self.accelerator.trackers:
            tracker.finish()
        return self._result()

    def restore(self, measure_anew: bool) -> None:
        """Goes back to where ``output/last`` was written."""
        self.state = self.saves.read(self.model, self.optimizer.optimizer)
        if self.judge is not None:
            drop_base(self.judge, self.state)
        if measure_anew and self.judge is not None:
            present = tensors_of(self.model)
            measure_again(self.judge, self.state, self.model)
            self._put(present, 1.0)
        if self.state.choice is not None and self.state.step < self.total:  # it goes on
            self.state.choice, self.state.averaged, self.state.mean = None, 0, {}

    def _rescue(self, error: BaseException) -> None:
        """Saves what an error or an interrupt would lose, unless it is of the weights."""
        if not self._whole or isinstance(error, Diverged):
            return
        self.model.load_state_dict(self._buffers, strict=False)  # what half a step did to them
        with suppress(InputError):  # a full disk: the error that there was says more
            self._save_last()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """While weights and counters do not agree, nothing can be saved; not after an error."""
        self._whole = False
        yield
        self._buffers = {}
        self._whole = True

    def _measure_base(self) -> None:
        """Validates the base, the first candidate; from it follows what must not be forgotten."""
        state = self.state
        if self.judge is None:
            state.kept_modes = list(self.keeping.modes_to_keep({}))
        if self.judge is None or state.zero_shot is not None:
            return
        self.model.strength = 0
        measured = self.judge.validation.measure(self.model, self.keeping.looked_at())
        self.model.strength, row, state.encodings = 1, measured.row, measured.encodings
        state.zero_shot = {"step": 0, **row}
        state.kept_modes = list(self.keeping.modes_to_keep(row))
        free = self.config.demanded_strength is None and not self.judge.no_base
        if free and self.judge.is_better(state.zero_shot, state.best):
            state.best = {**state.zero_shot, "strength": 0.0}
        if state.step == 0:  # else it is a run of an earlier version, which goes on
            self._emit({"event": "zero_shot", **state.zero_shot, **self._warning(row)})
            self._save_last()

    def _warning(self, row: Row) -> dict[str, str]:
        assert self.judge is not None
        if self.judge.rank(row) > -math.inf:
            return {}
        what = f"train.metric={self.config.metric}"
        return {"warning": f"{what}: {NOTHING}; the last weights will be kept, not the best"}

    def _finish(self) -> None:
        """Puts the weights that are best into the model, at their strength, and saves them."""
        state, last = self.state, tensors_of(self.model)
        if self.judge is not None and state.choice is None:
            try:
                with self._changing():
                    choose(self.judge, state, self.model, last)
            finally:
                self._put(last, 1.0)
        with without_interrupts():
            choice = state.choice or {"weights": "", "curve": []}
            about = {"event": "strength", "step": state.step, "weights": choice["weights"]}
            for row in choice["curve"]:
                self._emit({**row, **about})
            self._save_last()
            with self._changing():
                self._put_best()
                self.saves.write_best(self.model)

    def _put(self, tensors: Mapping[str, Tensor], strength: float) -> None:
        self.model.load_state_dict(tensors)
        self.model.strength = strength

    def _put_best(self) -> None:
        best, demanded = self.state.best, self.config.demanded_strength
        tensors = self.state.best_tensors or self.model.state_dict()
        unmeasured = 1.0 if demanded is None else demanded
        self._put(tensors, unmeasured if best is None else best.get("strength", 1.0))

    def _result(self) -> FitResult:
        state, cache, memory = self.state, self.model.cache, peak_memory(self.model.device)
        choice = state.choice or {"weights": "", "curve": []}
        return FitResult(
            state.step,
            state.best,
            state.seconds,
            memory,
            0 if cache is None else cache.left_out,
            state.zero_shot,
            tuple(state.kept_modes),
            () if self.judge is None else self.judge.watched(state),
            state.top,
            choice["weights"],
            tuple(choice["curve"]),
            "" if self.judge is None else self.judge.no_base,
        )

    def _loop(self) -> None:
        stream = batches_from(self.train, self.config, self.seed, self.state.step)
        if self._due() and self.state.validated < self.state.step:  # interrupted right before
            self._validate()
        while self.state.step < self.total and not self._out_of_patience():
            self._buffers = {name: b.clone() for name, b in self.model.named_buffers()}
            parts = range(self.config.accumulate)
            losses = [self._micro_step(part, next(stream)) for part in parts]
            with without_interrupts():
                self._update(losses)
            if self._due():
                self._validate()
            elif self.saves.is_due():
                self._save_last()

    def _micro_step(self, part: int, batch: Batch) -> float:
        """Adds the gradient of one batch, the ``part``-th of a step; returns its loss."""
        # Dropout depends on the step alone, so a resumed training draws what it would have drawn.
        torch.manual_seed(stream_seed(self.seed, self.state.step, part, place()[0]))
        self.model.train()
        batch = batch.to(self.accelerator.device)
        with self.accelerator.accumulate(self.wrapped):
            loss = self.wrapped(batch)
            self.accelerator.backward(loss)
        return float(loss.detach())

    def _update(self, losses: Sequence[float]) -> None:
        """One step of the optimiser, from the gradients added up."""
        state, c = self.state, self.config
        with self._changing():
            self._step(losses)
        if state.step % c.log_every == 0 or state.step == self.total:
            row = {"event": "train", "step": state.step, "loss": finite_mean(state.losses)}
            row |= {"lr": learning_rate(c, state.step, self.total, self.batches)}
            row |= {"not_finite": state.not_finite} if state.not_finite else {}
            state.losses, state.not_finite = [], 0
            self._emit(row)

    def _step(self, losses: Sequence[float]) -> None:
        state, c = self.state, self.config
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(c, state.step + 1, self.total, self.batches)
        parameters = self.wrapped.parameters()
        norm = float(self.accelerator.clip_grad_norm_(parameters, c.clip or math.inf))
        # fp16's scaler meets gradients that overflow by skipping the step itself
        scaled = c.precision == "fp16"
        mean, not_finite = mean_over_processes(losses, self.model.device)
        sound = not not_finite and (scaled or math.isfinite(norm))
        if sound or scaled:  # a step on NaN would spoil the weights for good
            self.optimizer.step()
        self.optimizer.zero_grad()
        state.step += 1
        state.bad = 0 if sound else state.bad + 1
        state.losses.append(mean)
        state.not_finite += not_finite
        if state.bad >= BAD_STEPS:
            raise Diverged(
                f"train.lr={c.lr}: the loss was not finite {BAD_STEPS} times in a row; lower "
                "train.lr, or use train.precision=fp32"
            )
        if is_averaged(c, state.step, self.total):
            add_to_mean(state.mean, state.averaged, self.model)
            state.averaged += 1

    def _due(self) -> bool:
        c, state, how = self.config, self.state, (place()[1], self.model.adapter.detached)
        most = most_validations(c, self.total, state.encodings, *how)
        due = validates(c, state.step, self.total, self.batches, most)
        return self.judge is not None and due

    def _validate(self) -> None:
        assert self.judge is not None
        state = self.state
        share_buffers(self.model)
        measured = self.judge.validation.measure(self.model.eval(), self.judge.watched(state))
        row: Row = {"step": state.step, **measured.row}
        forgotten = self.judge.forgotten(row, state)
        with without_interrupts():
            improved = take_validation(self.judge, state, row, tensors_of(self.model))
            state.validated = state.step
            self._emit({"event": "val", **row, **({"forgotten": forgotten} if forgotten else {})})
            self._save_last()
            if improved:
                self._save_best()

    def _save_best(self) -> None:
        """Writes the present weights, if they are the best; turned down if the base is better."""
        state, best = self.state, self.state.best
        acts = best is not None and best["strength"] > 0
        if not acts or (best is not None and best["step"] == state.step):
            self.saves.write_best(self.model, 1 if acts else 0)

    def _out_of_patience(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.state.since_best >= patience

    def _save_last(self) -> None:
        with without_interrupts():
            self.saves.write(self.state, self.model, self.optimizer.optimizer)

    def _emit(self, event: Event) -> None:
        if self.accelerator.is_main_process:
            event = {**event, "total": self.total}
            self.on_event(event)
            if event["event"] != "strength":  # trackers have one value a step
                numbers = {k: v for k, v in event.items() if isinstance(v, int | float)}
                self.accelerator.log(numbers, step=event["step"])
