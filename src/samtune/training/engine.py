"""Training: the only place with optimiser, schedule and distribution."""

from __future__ import annotations

import math
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from samtune.batch import Batch
from samtune.data import SegmentationDataset, collate
from samtune.data.changes import varied
from samtune.distributed import place, share_buffers
from samtune.errors import InputError
from samtune.evaluation.streaming import evaluate
from samtune.losses import Loss
from samtune.metrics.config import EvalConfig
from samtune.metrics.contract import ALWAYS, MEASURES
from samtune.model.checkpoint import save, under_current_names
from samtune.model.feature_cache import FeatureCache
from samtune.model.finetuned import FineTuned
from samtune.training.accelerator import make_accelerator
from samtune.training.objective import Objective
from samtune.training.schedule import (
    FitConfig,
    batches_per_epoch,
    check,
    check_feature_cache,
    epoch_order,
    learning_rate,
    stream_seed,
    total_steps,
    validates,
)
from samtune.training.state import TrainingState, read_state, write_state

Event = dict[str, Any]
BAD_STEPS = 10
"""Training stops after this many steps in a row without a finite loss."""


@dataclass(frozen=True)
class FitResult:
    """The outcome of a training; the model itself holds the best weights."""

    steps: int
    best: dict[str, Any] | None
    """The best validation: its ``step`` and metrics; ``None`` without validation images."""
    seconds: float
    peak_memory_bytes: int
    """The most memory in use: the device's if it has its own, else the process's."""
    left_out: int = 0
    """How many of this process's images did not fit into ``config.feature_cache``."""


def fit(
    model: FineTuned,
    train: SegmentationDataset,
    val: SegmentationDataset | None,
    config: FitConfig | None = None,
    *,
    output: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    on_event: Callable[[Event], None] | None = None,
    header: dict[str, Any] | None = None,
    cpu: bool = False,
    measuring: EvalConfig | None = None,
) -> FitResult:
    """Trains a model's adapter and decoder; the model ends with its best validated weights.

    Args:
        model: From ``FineTuned``; its base is not touched.
        train: Made with ``train=True``.
        val: Made with ``train=False``; ``None`` to keep the last weights.
        config: How to train.
        output: Folder for ``best.safetensors`` and ``last/``; nothing is written without it.
        resume: Go on from ``output/last``.
        seed: Of the order of images and of dropout.
        on_event: Called with each logged row: ``train`` (step, loss, lr), ``val`` (step, metrics).
        header: Further values for the checkpoint's header.
        cpu: Stay on the CPU where there is a faster device.
        measuring: How ``config.metric`` is measured; which metrics it names makes no difference.

    An interrupt (Ctrl-C) between two steps leaves ``output/last`` behind; a resumed training gives
    the weights and rows of an uninterrupted one, with ``feature_cache`` up to rounding.

    Raises:
        InputError: Nothing to train, settings out of range, a loss that stays not finite, or no
            state to resume.
    """
    config = config or FitConfig()
    check(config)
    folder = None if output is None else Path(output)
    on_event = on_event or (lambda event: None)
    trainer = _Trainer(model, train, val, config, seed, on_event, cpu, folder)
    trainer.header = header or {}
    trainer.measuring = replace(measuring or EvalConfig(), metrics=(config.metric,))
    if resume:
        trainer.restore()
    model.cache = FeatureCache(config.feature_cache) if config.feature_cache else None
    try:
        return trainer.run()
    finally:
        model.cache = None


class _Trainer:
    """One training: its parts and where it stands."""

    header: dict[str, Any]
    measuring: EvalConfig

    def __init__(
        self,
        model: FineTuned,
        train: SegmentationDataset,
        val: SegmentationDataset | None,
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
        changes, detached = varied(train.data, train.input.tiles), model.adapter.detached
        check_feature_cache(config, model.adapter.name, detached, changes)
        self.config, self.seed, self.on_event = config, seed, on_event
        self.train = train.with_originals() if config.loss_at == "image" else train
        self.val, self.output = val, output
        self.accelerator = make_accelerator(config, cpu, output)
        model.checkpointing = config.checkpointing
        self.model = model.to(self.accelerator.device)
        optimizer = torch.optim.AdamW(_groups(model, config), lr=config.lr)
        loss = Loss.parse(config.loss, config.loss_at)
        objective = Objective(model, loss, config.multimask, train.rounds)
        self.wrapped, self.optimizer = self.accelerator.prepare(objective, optimizer)
        size, share, last = config.batch_size, config.epoch_share, config.last_batch
        self.batches = batches_per_epoch(len(train), size, place()[1], share, last)
        self.total = total_steps(config, self.batches)
        self.state = TrainingState()
        self._start = time.perf_counter()

    def run(self) -> FitResult:
        """Trains to the end, or to an early stop; leaves the best weights in the model."""
        self._start = time.perf_counter() - self.state.seconds
        if self.model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.model.zero_grad()  # an interrupted training may have left some
        try:
            self._loop()
        except KeyboardInterrupt:
            self._save_last()
            raise
        share_buffers(self.model)
        self._save_last()
        if self.state.best_tensors:
            self.model.load_state_dict(self.state.best_tensors)
        elif self.output is not None and self.accelerator.is_main_process:
            save(self.model, self.output / "best.safetensors", **self.header)
        self.model.eval()
        for tracker in self.accelerator.trackers:
            tracker.finish()
        state, cache, memory = self.state, self.model.cache, peak_memory(self.model.device)
        left_out = 0 if cache is None else cache.left_out
        return FitResult(state.step, state.best, state.seconds, memory, left_out)

    def restore(self) -> None:
        """Goes back to where ``output/last`` was written."""
        if self.output is None:
            raise InputError("resume: give the run's folder as output")
        self.state = read_state(self.output / "last", self.model, self.optimizer.optimizer)
        if self.state.scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(self.state.scaler)
        best = self.output / "best.safetensors"
        if self.state.best is not None and best.is_file():
            from safetensors.torch import load_file

            self.state.best_tensors = under_current_names(self.model, load_file(best))

    def _loop(self) -> None:
        stream = self._stream()
        if self._due() and self.state.validated < self.state.step:  # interrupted right before
            self._validate()
        while self.state.step < self.total and not self._out_of_patience():
            parts = range(self.config.accumulate)
            losses = [self._micro_step(part, next(stream)) for part in parts]
            with _uninterrupted():
                self._update(losses)
            if self._due():
                self._validate()

    def _stream(self) -> Iterator[Batch]:
        """Batches without end, from where the state stands; each epoch in its own seeded order."""
        c, (rank, world) = self.config, place()
        done = self.state.step * c.accumulate
        while True:
            epoch, skip = divmod(done, self.batches)
            self.train.set_epoch(epoch)
            how = rank, world, c.epoch_share, c.last_batch
            order = epoch_order(len(self.train), c.batch_size, self.seed, epoch, *how)
            workers = self.train.data.workers
            for batch in DataLoader(
                self.train, batch_sampler=order[skip:], num_workers=workers, collate_fn=collate
            ):
                done += 1
                yield batch

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
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(c, state.step + 1, self.total, self.batches)
        parameters = self.wrapped.parameters()
        norm = float(self.accelerator.clip_grad_norm_(parameters, c.clip or math.inf))
        # fp16's scaler meets gradients that overflow by skipping the step itself
        scaled = c.precision == "fp16"
        sound = all(map(math.isfinite, losses)) and (scaled or math.isfinite(norm))
        if sound or scaled:  # a step on NaN would spoil the weights for good
            self.optimizer.step()
        self.optimizer.zero_grad()
        state.step += 1
        state.bad = 0 if sound else state.bad + 1
        state.losses.append(_mean(losses))
        self._guard()
        if state.step % c.log_every == 0 or state.step == self.total:
            row = {"event": "train", "step": state.step, "loss": _mean(state.losses)}
            state.losses = []
            self._emit({**row, "lr": learning_rate(c, state.step, self.total, self.batches)})

    def _guard(self) -> None:
        if self.state.bad >= BAD_STEPS:
            raise InputError(
                f"train.lr={self.config.lr}: the loss was not finite {BAD_STEPS} times in a row; "
                "lower train.lr, or use train.precision=fp32"
            )

    def _due(self) -> bool:
        due = validates(self.config, self.state.step, self.total, self.batches)
        return self.val is not None and due

    def _validate(self) -> None:
        assert self.val is not None
        c = self.config
        share_buffers(self.model)
        metrics = evaluate(
            self.model,
            self.val,
            batch_size=c.batch_size,
            precision=c.precision,
            multimask=c.multimask,
            workers=self.val.data.workers,
            measuring=self.measuring,
        ).metrics
        keys = dict.fromkeys((*ALWAYS, c.metric))
        row = {"step": self.state.step, **{key: metrics[key] for key in keys}}
        with _uninterrupted():
            self._judge(row)
            self._save_last()
            self._emit({"event": "val", **row})

    def _judge(self, row: dict[str, Any]) -> None:
        """Keeps the weights if they are the best so far."""
        best, metric = self.state.best, self.config.metric
        self.state.validated = self.state.step
        if best is not None and _rank(row[metric], metric) <= _rank(best[metric], metric):
            self.state.since_best += 1
            return
        self.state.best, self.state.since_best = row, 0
        self.state.best_tensors = {
            key: t.detach().cpu().clone() for key, t in self.model.state_dict().items()
        }
        if self.output is not None and self.accelerator.is_main_process:
            save(self.model, self.output / "best.safetensors", **self.header)

    def _out_of_patience(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.state.since_best >= patience

    def _save_last(self) -> None:
        self.state.seconds = time.perf_counter() - self._start
        if self.accelerator.scaler is not None:
            self.state.scaler = self.accelerator.scaler.state_dict()
        if self.output is not None and self.accelerator.is_main_process:
            write_state(self.output / "last", self.state, self.model, self.optimizer.optimizer)

    def _emit(self, event: Event) -> None:
        if self.accelerator.is_main_process:
            event = {**event, "total": self.total}
            self.on_event(event)
            numbers = {k: v for k, v in event.items() if isinstance(v, int | float)}
            self.accelerator.log(numbers, step=event["step"])


def peak_memory(device: torch.device) -> int:
    """The most memory used so far, in bytes: the device's own, or the process's on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Lets Ctrl-C wait to the end of the block, where weights and counters agree."""
    if threading.current_thread() is not threading.main_thread():
        yield  # interrupts reach the main thread only
        return
    caught: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if caught:
        raise KeyboardInterrupt


def _groups(model: FineTuned, config: FitConfig) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels; on biases and norms it is a pull to nowhere."""
    decay, flat_decay = config.weight_decay, config.weight_decay if config.decay_vectors else 0.0
    wide = [p for p in model.parameters() if p.dim() > 1]
    flat = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": wide, "weight_decay": decay}, {"params": flat, "weight_decay": flat_decay}]
    return [group for group in groups if group["params"]]


def _rank(value: float, metric: str) -> float:
    """For comparing, higher is better: what is not a number loses against any number."""
    if math.isnan(value):
        return -math.inf
    return value if MEASURES[metric].higher else -value


def _mean(values: Sequence[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return sum(finite) / len(finite) if finite else math.nan
