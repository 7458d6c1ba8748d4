"""Training: the only place with optimiser, schedule and distribution."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.utils.data import DataLoader

from samtune.checkpoint import save
from samtune.data import SegmentationDataset, collate
from samtune.errors import InputError
from samtune.evaluation import Precision, evaluate, place
from samtune.finetuned import FineTuned
from samtune.losses import DEFAULT_LOSS, Loss
from samtune.state import TrainingState, read_state, write_state
from samtune.types import Batch

if TYPE_CHECKING:
    from accelerate import Accelerator

Event = dict[str, Any]
METRICS = ("iou", "dice", "iou_pooled", "dice_pooled")
BAD_STEPS = 10
"""Training stops after this many steps in a row without a finite loss."""


@dataclass(frozen=True)
class FitConfig:
    """How training goes; each docstring is the help text."""

    max_steps: int | None = None
    """Optimiser steps in all; with epochs given too, whichever ends first."""
    epochs: int | None = None
    """Passes over the training images; 20 when neither this nor max_steps is given."""
    batch_size: int = 4
    """Images in a batch, on each device."""
    accumulate: int = 1
    """Batches to add up before a step."""
    lr: float = 1e-3
    """Learning rate after the warm-up."""
    min_lr: float = 0.01
    """Where the cosine ends, as a part of lr."""
    warmup: float = 0.05
    """Part of all steps in which the rate rises from zero."""
    weight_decay: float = 1e-4
    """AdamW's; not applied to biases and other vectors."""
    loss: str = DEFAULT_LOSS
    """Weighted sum of bce, dice, focal, iou, structure and iou_head, as in 20*focal + dice."""
    clip: float = 1.0
    """Greatest norm of the gradient; 0 for no limit."""
    precision: Precision = "fp32"
    """Arithmetic of the forward pass; trained weights stay fp32."""
    checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, about a third more time."""
    multimask: bool = False
    """Train and read SAM's three masks per prompt instead of its single one."""
    eval_every: int | None = None
    """Steps between validations; by default once an epoch, and not more than 20 times in all."""
    metric: Literal["iou", "dice", "iou_pooled", "dice_pooled"] = "iou"
    """The validation metric that chooses the best checkpoint."""
    patience: int | None = None
    """Stop after this many validations without a better one."""
    log_every: int = 10
    """Steps between logged training losses."""
    trackers: tuple[str, ...] = ()
    """Accelerate's trackers to report to as well: tensorboard, wandb, mlflow, ..."""


@dataclass(frozen=True)
class FitResult:
    """What a training left behind; the model itself holds the best weights."""

    steps: int
    best: dict[str, Any] | None
    """The best validation: its ``step`` and metrics; ``None`` without validation images."""
    seconds: float
    peak_memory_bytes: int
    """Of the device where it has its own memory, of the process otherwise."""


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

    Raises:
        InputError: Nothing to train, a loss that stays not finite, or no state to resume.
    """
    config = config or FitConfig()
    trainer = _Trainer(model, train, val, config, seed, on_event or (lambda event: None))
    trainer.output = None if output is None else Path(output)
    trainer.header = header or {}
    if resume:
        trainer.restore()
    return trainer.run()


class _Trainer:
    """One training: its parts and where it stands."""

    output: Path | None = None
    header: dict[str, Any]

    def __init__(
        self,
        model: FineTuned,
        train: SegmentationDataset,
        val: SegmentationDataset | None,
        config: FitConfig,
        seed: int,
        on_event: Callable[[Event], None],
    ) -> None:
        if not model.trainable():
            raise InputError(
                f"nothing to train: adapter {model.adapter.name!r} with decoder "
                f"{model.decoder.name!r} has no parameters; set decoder.name=tuned or an adapter"
            )
        self.config, self.seed, self.on_event = config, seed, on_event
        self.train, self.val = train, val
        self.loss = Loss.parse(config.loss)
        self.accelerator = _accelerator(config)
        model.checkpointing = config.checkpointing
        self.model = model.to(self.accelerator.device)
        optimizer = torch.optim.AdamW(_groups(model, config.weight_decay), lr=config.lr)
        self.wrapped, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.batches = _batches_per_epoch(len(train), config.batch_size, place()[1])
        self.total = _total_steps(config, self.batches)
        self.state = TrainingState()

    def run(self) -> FitResult:
        """Trains to the end, or to an early stop; leaves the best weights in the model."""
        start = time.perf_counter()
        if self.model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        torch.manual_seed(self.seed + self.state.step)
        try:
            self._loop()
        except KeyboardInterrupt:
            self._save_last()
            raise
        finally:
            # accelerate replaces forward by its autocast wrapper: give the plain one back
            self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self._save_last()
        best = self.state.best
        if self.state.best_tensors:
            self.model.load_state_dict(self.state.best_tensors)
        elif self.output is not None and self.accelerator.is_main_process:
            save(self.model, self.output / "best.safetensors", **self.header)
        self.model.eval()
        self.accelerator.end_training()
        seconds = time.perf_counter() - start
        return FitResult(self.state.step, best, seconds, peak_memory(self.model.device))

    def restore(self) -> None:
        """Goes back to where ``output/last`` was written."""
        if self.output is None:
            raise InputError("resume: give the run's folder as output")
        self.state = read_state(self.output / "last", self.model, self.optimizer.optimizer)
        best = self.output / "best.safetensors"
        if self.state.best is not None and best.is_file():
            from safetensors.torch import load_file

            self.state.best_tensors = load_file(best)

    def _loop(self) -> None:
        every = self.config.eval_every or max(
            self.batches // self.config.accumulate, math.ceil(self.total / 20), 1
        )
        losses: list[float] = []
        for batch in self._stream():
            value = self._micro_step(batch)
            losses.append(value)
            if not self.accelerator.sync_gradients:
                continue
            self.state.step += 1
            step = self.state.step
            self._guard(losses)
            if step % self.config.log_every == 0 or step == self.total:
                row = {"event": "train", "step": step, "loss": _mean(losses)}
                self._emit({**row, "lr": self._lr(step)})
                losses.clear()
            if self.val is not None and (step % every == 0 or step == self.total):
                self._validate()
                if self._out_of_patience():
                    return
            if step >= self.total:
                return

    def _stream(self) -> Iterator[Batch]:
        """Batches without end, from where the state stands; each epoch in its own seeded order."""
        workers = self.train.data.workers
        while True:
            epoch, skip = divmod(self.state.step * self.config.accumulate, self.batches)
            self.train.set_epoch(epoch)
            order = _order(len(self.train), self.batches, self.config.batch_size, self.seed, epoch)
            loader = DataLoader(
                self.train, batch_sampler=order[skip:], num_workers=workers, collate_fn=collate
            )
            yield from loader

    def _micro_step(self, batch: Batch) -> float:
        self.model.train()
        batch = batch.to(self.accelerator.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr(self.state.step + 1)
        with self.accelerator.accumulate(self.wrapped):
            masks = self.wrapped(batch.pixels, batch.prompts, batch.sizes, self.config.multimask)
            loss = self.loss(masks, batch)
            self.accelerator.backward(loss)
            if self.config.clip and self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.config.clip)
            value = float(loss.detach())
            if math.isfinite(value):  # a step on NaN would spoil the weights for good
                self.optimizer.step()
            self.optimizer.zero_grad()
        return value

    def _lr(self, step: int) -> float:
        c = self.config
        warm = max(1, round(c.warmup * self.total))
        if step < warm:
            return c.lr * step / warm
        along = (step - warm) / max(1, self.total - warm)
        return c.lr * (c.min_lr + (1 - c.min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, along))))

    def _guard(self, losses: Sequence[float]) -> None:
        self.state.bad = 0 if math.isfinite(losses[-1]) else self.state.bad + 1
        if self.state.bad >= BAD_STEPS:
            raise InputError(
                f"train.lr={self.config.lr}: the loss was not finite {BAD_STEPS} times in a row; "
                "lower train.lr, or use train.precision=fp32"
            )

    def _validate(self) -> None:
        assert self.val is not None
        c = self.config
        found = evaluate(
            self.model,
            self.val,
            batch_size=c.batch_size,
            precision=c.precision,
            multimask=c.multimask,
            workers=self.val.data.workers,
        ).metrics
        row = {"step": self.state.step, **{key: found[key] for key in METRICS}}
        self._emit({"event": "val", **row})
        best = self.state.best
        if best is None or _rank(row[c.metric]) > _rank(best[c.metric]):
            self.state.best, self.state.since_best = row, 0
            self.state.best_tensors = {
                key: t.detach().cpu().clone() for key, t in self.model.state_dict().items()
            }
            if self.output is not None and self.accelerator.is_main_process:
                save(self.model, self.output / "best.safetensors", **self.header)
        else:
            self.state.since_best += 1
        self._save_last()

    def _out_of_patience(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.state.since_best >= patience

    def _save_last(self) -> None:
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


def _accelerator(config: FitConfig) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    precision = "no" if config.precision == "fp32" else config.precision
    # Heads that the chosen masks do not use get no gradient, which DDP must be told.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(
        mixed_precision=precision,
        gradient_accumulation_steps=config.accumulate,
        kwargs_handlers=[unused],
        log_with=list(config.trackers) or None,
        project_dir="." if config.trackers else None,
    )
    if config.trackers:
        accelerator.init_trackers("samtune")
    return accelerator


def _groups(model: FineTuned, decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only: on biases and norms it is a pull to nowhere."""
    wide = [p for p in model.parameters() if p.dim() > 1]
    flat = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": wide, "weight_decay": decay}, {"params": flat, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _batches_per_epoch(images: int, batch_size: int, world: int) -> int:
    """Batches of one process in an epoch; every process has as many."""
    return max(1, math.ceil(images / (batch_size * world)))


def _total_steps(config: FitConfig, batches: int) -> int:
    if config.max_steps is None or config.epochs is not None:
        by_epochs = (config.epochs or 20) * math.ceil(batches / config.accumulate)
        return max(1, min(by_epochs, config.max_steps or by_epochs))
    return max(1, config.max_steps)


def _order(images: int, batches: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The batches of this process in one epoch: a seeded order, dealt out evenly.

    The last batches are filled up from the start of the order, so that all are full and every
    process has as many; only where that would repeat an image within a batch is a batch smaller.
    """
    rank, world = place()
    generator = torch.Generator().manual_seed(hash((seed, epoch)) % 2**63)
    order = torch.randperm(images, generator=generator).tolist()
    size = min(batch_size, images)
    wanted = batches * size * world
    order = (order * math.ceil(wanted / images))[:wanted]
    mine = order[rank::world]
    return [mine[i : i + size] for i in range(0, len(mine), size)]


def _rank(value: float) -> float:
    """For comparing: what is not a number loses against any number."""
    return -math.inf if math.isnan(value) else value


def _mean(values: Sequence[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return sum(finite) / len(finite) if finite else math.nan
