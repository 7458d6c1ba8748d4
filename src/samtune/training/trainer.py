"""One training, from its first validation to its best weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samtune.data import SegmentationDataset
from samtune.distributed import finite_mean, from_main, place, share_buffers
from samtune.errors import InputError
from samtune.interrupts.boundaries import end_if_stopped
from samtune.interrupts.signals import holding_stops, without_interrupts
from samtune.losses.dense import check_dense
from samtune.model.compiling import compiling_of
from samtune.model.finetuned import FineTuned
from samtune.model.strength import Strength, StrengthSetting, set_demanded
from samtune.training.accelerator import make_accelerator
from samtune.training.average import add_to_mean, is_averaged
from samtune.training.budget import Budget, event_of_length
from samtune.training.callbacks import ON_STEP, ON_VALIDATION, CallbackState
from samtune.training.choice import Judge, choose, drop_base, measure_again, take_validation
from samtune.training.faults import Diverged
from samtune.training.keeping import Keeping
from samtune.training.micro_batches import Gradients, event_of_halving
from samtune.training.objective import Objective
from samtune.training.optimiser import make_optimisation
from samtune.training.order import batches_per_epoch
from samtune.training.outcome import EARLY, end_of, result_of
from samtune.training.result import End, FitResult
from samtune.training.saves import Saves, tensors_of
from samtune.training.schedule import (
    FitConfig,
    most_validations,
    total_steps,
    validates,
    warm_up_steps,
)
from samtune.training.state import TrainingState
from samtune.training.stepping import Stepper
from samtune.training.stream import batches_from
from samtune.training.user_parts import UserParts
from samtune.training.validation import Measurement, Row

Event = dict[str, Any]
NOTHING = "the validation images have nothing to measure"


class Trainer:
    """One training: its parts and where it stands."""

    judge: Judge | None = None
    """Compares validations, if there are images for them."""
    budget: Budget | None = None
    """Chooses the number of steps, if the time is limited."""
    progress: Callable[[int, int], None] | None = None
    """Called with the number of steps done and of all steps, after each; it stops nothing, so that
    processes need not agree on it."""

    def __init__(
        self,
        model: FineTuned,
        train: SegmentationDataset,
        config: FitConfig,
        seed: int,
        on_event: Callable[[Event], None],
        device: torch.device | None,
        output: Path | None,
        parts: UserParts,
    ) -> None:
        if not model.trainable():
            raise InputError(
                f"nothing to train: adapter {model.adapter.name!r} with decoder "
                f"{model.decoder.name!r} has no parameters; set decoder.name=tuned or an adapter"
            )
        if config.demanded_strength is not None:
            set_demanded(model, config.demanded_strength)
            model.strength = 1
        config = config.with_rate(model.learning_rate)
        self.config, self.seed, self.on_event = config, seed, on_event
        train = train.with_dense_targets(model.decoder.dense_targets)
        self.train = train.with_originals() if config.loss_at == "image" else train
        self.accelerator = make_accelerator(config, device, output)
        self.saves = Saves(output, self.accelerator, config.save_every)
        self.keeping = Keeping.of(config, model, train)
        model.checkpointing, where = config.checkpointing, self.accelerator.device
        model.compiling, self.model = compiling_of(config.compile, where), model.to(where)
        size, share, last = config.whole_batch, config.epoch_fraction, config.last_batch
        self.batches = batches_per_epoch(len(train), size, place()[1], share, last)
        self.total = total_steps(config, self.batches)
        steps = self.total, self.batches
        self.optimisation = make_optimisation(
            model, config, *steps, parts.optimizer, parts.schedule
        )
        parts.place(self.accelerator.device)
        rule = config.multimask, train.rounds, self.keeping.rehearsal, config.keep_to == "base"
        loss = parts.loss_of(config)
        check_dense(loss, model.decoder.dense_targets, model.decoder.prompted, train.modes)
        objective = Objective(model, loss, *rule)
        both = self.accelerator.prepare(objective, self.optimisation.optimizer)
        self.wrapped, optimizer = both
        inner, how_far = self.optimisation.optimizer, (config.clip, config.precision)
        self.stepper = Stepper(self.wrapped, self.accelerator, optimizer, inner, *how_far)
        how = self.accelerator, config, seed, self._restore_buffers, self._halved
        self.gradients = Gradients(self.wrapped, *how)
        self.callbacks, self.stopping = parts.callbacks, False
        self.state = TrainingState()
        self._whole = False
        """Whether weights and counters agree, so that they can be saved."""
        self._buffers: dict[str, Tensor] = {}
        self._loss, self._row = math.nan, Row()
        """The mean loss of the last step, and the last validation."""

    def run(self) -> FitResult:
        """Trains to the end, or to an early stop; leaves the best weights in the model."""
        self.saves.begin(self.state.seconds)
        if self.model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.model.zero_grad()  # an interrupted training may have left some
        self._whole = True
        self.gradients.at_once = self.state.at_once or self.config.at_once
        with holding_stops(place()[1] > 1):
            try:
                self._train()
            except BaseException as error:
                self._rescue(error)
                raise
        self.model.eval()
        for tracker in self.accelerator.trackers:
            tracker.finish()
        return result_of(self.state, self.judge, self.keeping, self.model, self._end())

    def _train(self) -> None:
        """The work of :meth:`run`, until an error or an interrupt."""
        if self.state.zero_shot is None:
            self._save_last()
        self._measure_base()
        self._fit_to_time(self.state.step)
        self.train = self.train.rehearsing(self.keeping.rehearsed(self.state.kept_modes))
        self._loop()
        share_buffers(self.model)
        self._save_last()
        self._finish()

    def restore(self, measure_anew: bool) -> None:
        """Goes back to where ``output/last`` was written."""
        self.state = self.saves.read(self.model, self.optimisation)
        if self.judge is not None:
            drop_base(self.judge, self.state)
        if self.budget is not None:
            self.budget.pace = self.state.pace
            self.saves.begin(self.state.seconds)
            self._fit_to_time(self.state.step)
        if measure_anew and self.judge is not None:
            present = tensors_of(self.model)
            measure_again(self.judge, self.state, self.model)
            self._put(present, 1.0)
        if self.state.choice is not None and self.state.step < self.total:  # it goes on
            self.state.choice, self.state.averaged, self.state.mean = None, 0, {}

    def check_schedule(self) -> None:
        """Refuses a user's schedule that needs validations of another kind, or any.

        Raises:
            InputError: See :meth:`samtune.training.optimiser.Optimisation.check_validation`.
        """
        criterion = None if self.judge is None else self.judge.validation.criterion
        self.optimisation.check_validation(criterion)

    def _rescue(self, error: BaseException) -> None:
        """Saves what an error or an interrupt would lose, unless it is of the weights."""
        if not self._whole or isinstance(error, Diverged):
            return
        self._restore_buffers()
        with suppress(InputError):  # a full disk: the error that there was says more
            self._save_last()

    def _restore_buffers(self) -> None:
        self.model.load_state_dict(self._buffers, strict=False)

    def _halved(self, at_once: int) -> None:
        self.state.at_once = at_once
        self._emit(event_of_halving(self.state.step, at_once))

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
        measured = self._measure(self.judge, self.keeping.looked_at())
        row, state.encodings, self.model.strength = measured.row, measured.encodings, 1
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

    def _put(self, tensors: Mapping[str, Tensor], strength: StrengthSetting) -> None:
        self.model.load_state_dict(tensors)
        self.model.strength = strength

    def _put_best(self) -> None:
        best, demanded = self.state.best, self.config.demanded_strength
        tensors = self.state.best_tensors or self.model.state_dict()
        unmeasured = 1.0 if demanded is None else demanded
        self._put(tensors, unmeasured if best is None else Strength.read(best))

    def _loop(self) -> None:
        stream = batches_from(self.train, self.config, self.seed, self.state.step)
        if self._due() and self.state.validated < self.state.step:  # interrupted right before
            self._validate()
        while self.state.step < self.total and self._end() not in EARLY:
            self._buffers = {name: b.clone() for name, b in self.model.named_buffers()}
            start = time.perf_counter()
            self.model.train()
            losses = self.gradients.of_step(self.state.step, stream)
            if self.budget is not None:
                losses[-1].item()  # waits for the end of what is timed
                self.budget.note_step(time.perf_counter() - start)
                self._fit_to_time(self.state.step + 1)
            with without_interrupts():
                self._update(losses)
            end_if_stopped()
            if self.progress is not None:
                self.progress(self.state.step, self.total)
            self._call(ON_STEP)
            if self._due() or (self.stopping and self.judge is not None):
                self._validate()
            elif self.saves.is_due():
                self._save_last()

    def _update(self, losses: Sequence[Tensor]) -> None:
        """One step of the optimiser, from the gradients added up."""
        state, c = self.state, self.config
        self._step(losses)
        if state.step % c.log_every == 0 or state.step == self.total:
            self._read_outcomes()
            row = {"event": "train", "step": state.step, "loss": finite_mean(state.losses)}
            row |= {"lr": self.optimisation.rate}
            row |= {"not_finite": state.not_finite} if state.not_finite else {}
            state.losses, state.not_finite = [], 0
            self._emit(row)

    def _step(self, losses: Sequence[Tensor]) -> None:
        state, c = self.state, self.config
        self.stepper.measure(losses)  # may wait for processes in vain, so all is as it was saved
        with self._changing():
            self.optimisation.set_rates(state.step + 1)
            self.stepper.take()
            self.optimisation.end_step()
            state.step += 1
            if is_averaged(c, state.step, self.total):
                add_to_mean(state.mean, state.averaged, self.model)
                state.averaged += 1
        if self.stepper.waits:
            self._read_outcomes()

    def _read_outcomes(self) -> None:
        """Counts the steps whose losses were not read yet."""
        for outcome in self.stepper.outcomes():
            self._loss = outcome.loss
            outcome.note(self.state, self.config.lr)

    def _due(self) -> bool:
        c, state, how = self.config, self.state, (place()[1], self.model.adapter.detached)
        most = most_validations(c, self.total, state.encodings, *how)
        due = validates(c, state.step, self.total, self.batches, most)
        return self.judge is not None and due

    def _validate(self) -> None:
        assert self.judge is not None
        state = self.state
        share_buffers(self.model)
        measured = self._measure(self.judge, self.judge.watched(state))
        row: Row = {"step": state.step, **measured.row}
        forgotten = self.judge.forgotten(row, state)
        self._row = row
        self.optimisation.end_validation(self.judge.validation.criterion.value(row))
        with without_interrupts():
            warm = state.step >= warm_up_steps(self.config, self.total)
            improved = take_validation(self.judge, state, row, tensors_of(self.model), warm)
            state.validated = state.step
            self._emit({"event": "val", **row, **({"forgotten": forgotten} if forgotten else {})})
            self._save_last()
            if improved:
                self._save_best()
        self._call(ON_VALIDATION)

    def _measure(self, judge: Judge, modes: Sequence[str]) -> Measurement:
        start = time.perf_counter()
        measured = judge.validation.measure(self.model.eval(), modes)
        if self.budget is not None:
            detached = self.model.adapter.detached
            self.budget.note_validation(time.perf_counter() - start, measured.encodings, detached)
        return measured

    def _fit_to_time(self, done: int) -> None:
        """Chooses the number of all steps by the time that is left, after ``done`` of them."""
        if (budget := self.budget) is None:
            return
        how = place()[1], self.model.adapter.detached
        budget.most = most_validations(self.config, self.total, self.state.encodings, *how)
        self.total = from_main(lambda: budget.total(done, self.total, self.saves.spent()))
        self.optimisation.total, self.state.pace = self.total, budget.pace
        if budget.tells(done):
            self._emit(event_of_length(done, self.total, budget))

    def _call(self, hook: str) -> None:
        """Calls the user's functions of one time, which may stop the training."""
        if self.callbacks.call(hook, self._seen_by_user):
            self.stopping = True

    def _seen_by_user(self) -> CallbackState:
        self._read_outcomes()
        state = self.state
        return CallbackState(
            step=state.step,
            total=self.total,
            epoch=state.step * self.config.accumulate / self.batches,
            loss=self._loss,
            lr=self.optimisation.rate,
            metrics=self._row,
            best=state.best,
            zero_shot=state.zero_shot,
            model=self.model,
            optimizer=self.optimisation.optimizer,
            output=self.saves.output,
            is_main=self.accelerator.is_main_process,
        )

    def _save_best(self) -> None:
        """Writes the present weights, if they are the best; turned down if the base is better."""
        state, best = self.state, self.state.best
        acts = best is not None and bool(Strength.read(best))
        if not acts or (best is not None and best["step"] == state.step):
            self.saves.write_best(self.model, 1 if acts else 0)

    def _end(self) -> End:
        """The reason why the training ends, as far as it is known now."""
        by_time = self.budget is not None and self.total < self.budget.bound
        return end_of(self.config, self.state, self.stopping, by_time)

    def _save_last(self) -> None:
        self._read_outcomes()
        with without_interrupts():
            self.saves.write(self.state, self.model, self.optimisation)

    def _emit(self, event: Event) -> None:
        if self.accelerator.is_main_process:
            event = {**event, "total": self.total}
            self.on_event(event)
            if event["event"] != "strength":  # trackers take one value per step
                numbers = {k: v for k, v in event.items() if isinstance(v, int | float)}
                self.accelerator.log(numbers, step=event["step"])
