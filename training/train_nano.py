"""Trains nano, the small SAM that ships with samtune, from scratch on procedural scenes.

    python training/train_nano.py --out runs/nano --minutes 112            # decays by the clock
    python training/train_nano.py --out runs/nano --minutes 112 --resume   # after a stop
    touch runs/nano/stop                                                  # saves and stops

It begins with plain scenes and, beside SAM's prompts, with one question without a prompt in each
of them, for all objects at once: that answer depends on the picture alone, and from it the decoder
learns to look. Rich scenes then take over a half, and the question without a prompt goes away; at
the end it comes back for one object, the largest, as every answer of SAM is one object.
Stopped before its end, the averaged weights of the last checkpoint are usable as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import torch
import validation
from initial import initialise, whiten
from objective import (
    EdgeHead,
    Frame,
    corrected,
    decode,
    encode,
    first_rows,
    prepare,
    random_frame,
    score,
)
from prompts import KINDS, Mixture, Samples, Stream, batch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import _muon
from torch.utils.data import DataLoader

from samtune.sam.model import Sam
from samtune.sam.spec import SPECS


@dataclass
class Settings:
    """What a run is made of; kept beside its checkpoints."""

    minutes: float = 112.0
    seed: int = 1
    lr: float = 1.5e-3
    matrix_lr: float = 3e-3
    weight_decay: float = 0.02
    warmup: int = 100
    decay: float = 0.7
    """Share of the budget in which the rate falls to zero."""
    corrections_from: int = 500
    """The step from which every third batch has two rounds of corrections."""
    edge_weight: float = 0.3
    ema: float = 0.999
    begin: float = 0.0
    """Share of the budget to begin at: with ``--init``, the part of the schedule still to come."""
    faint: float = 0.0
    """Chance of faint objects in a plain scene."""
    exact: float = 2 / 3
    """Share of boxes without noise in the second half of the budget."""
    loose: float = 0.0
    """Chance that the box of a large object is careless."""
    dark: float = 0.0
    """Chance that a picture is underexposed."""
    scopes: float = 0.0
    """Chance that a rich scene is an endoscope's view."""
    precision: str = "bf16"
    """``fp32`` where the processor has no bfloat16 products: there they are ten times as slow."""


def orthogonal(grad: Tensor, coefficients: tuple, steps: int, eps: float) -> Tensor:
    """Muon's Newton-Schulz iteration in the gradient's precision, where torch's is bfloat16."""
    a, b, c = coefficients
    x = grad.T if grad.shape[0] > grad.shape[1] else grad
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if grad.shape[0] > grad.shape[1] else x


def curriculum(progress: float, settings: Settings) -> Mixture:
    """What batches are made of at this share of the budget."""
    full = 0.15 if progress < 0.5 else 0.5
    rich = 0.5 * min(1.0, max(0.0, (progress - 0.2) / 0.3))
    whole = min(1.0, max(0.0, (0.65 - progress) / 0.35))
    exact = 1 / 3 if progress < 0.5 else settings.exact
    largest = 0.0 if progress < 0.8 else 0.5
    s = settings
    return Mixture(full, rich, whole, exact, largest, s.faint, s.loose, s.dark, s.scopes)


class Trainer:
    """One run: model, optimisers, clock and files."""

    def __init__(self, settings: Settings, out: Path, device: torch.device) -> None:
        self.settings, self.out, self.device = settings, out, device
        self.generator = torch.Generator().manual_seed(settings.seed)
        torch.manual_seed(settings.seed)
        self.sam = Sam(SPECS["nano"])
        initialise(self.sam, self.generator)
        whiten(self.sam, batch(settings.seed, 0, 128, Mixture(0, 0, 0), None, (48, 1)).pixels)
        self.edge = EdgeHead(self.sam.spec.prompt_dim, self.sam.spec.patch_size)
        self.average = Sam(self.sam.spec).requires_grad_(False)
        self.average.load_state_dict(self.sam.state_dict())
        for module in (self.sam, self.edge, self.average):
            module.to(device)
        prepare(self.sam, device.type == "cpu")
        prepare(self.average, device.type == "cpu")
        self.optimizers = self._optimizers()
        if settings.precision == "fp32":
            _muon._zeropower_via_newtonschulz = orthogonal
        self.step, self.seconds = 0, 60 * settings.minutes * settings.begin
        self.mixture = multiprocessing.get_context("spawn").Array("d", len(Mixture._fields))

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Muon (Jordan et al. 2024) for the hidden matrices, AdamW for everything else."""
        s = self.settings
        matrices, rest, plain = [], [], []
        for name, p in [*self.sam.named_parameters(), *self.edge.named_parameters()]:
            hidden = (
                p.dim() == 2
                and (".blocks." in name or "transformer." in name)
                and "rel_pos" not in name
            )
            (matrices if hidden else rest if p.dim() > 1 else plain).append(p)
        groups = [
            {"params": rest, "weight_decay": s.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        adamw = torch.optim.AdamW(groups, lr=s.lr, betas=(0.9, 0.98))
        if s.matrix_lr == 0:
            adamw.add_param_group({"params": matrices, "weight_decay": s.weight_decay})
            return {"adamw": adamw}
        muon = torch.optim.Muon(
            matrices, lr=s.matrix_lr, weight_decay=s.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        return {"adamw": adamw, "muon": muon}

    @property
    def progress(self) -> float:
        """Share of the time budget that is used up."""
        return self.seconds / (60 * self.settings.minutes)

    def schedule(self) -> float:
        """Sets the rates and the mixture of crop sizes; returns the factor of the rate."""
        s = self.settings
        factor = min(1.0, (self.step + 1) / s.warmup, max(0.0, (1 - self.progress) / s.decay))
        base = {"adamw": s.lr, "muon": s.matrix_lr}
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = base[name] * factor
        self.mixture[:] = curriculum(self.progress, s)
        return factor

    def autocast(self) -> AbstractContextManager:
        """bfloat16 where the matrix products are; the rest decides for itself."""
        if self.settings.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def update(self, samples: Samples) -> dict[str, float]:
        """One optimiser step on one batch; the numbers for the log."""
        frame = random_frame(self.sam, samples.pixels.shape[-1], self.generator)
        with self.autocast():
            embedding = encode(self.sam, samples.pixels, samples.sizes, frame)
        # Decoder rounds run backward one by one: their graphs are the memory, the encoder's waits.
        leaf = embedding.detach().requires_grad_()
        edge = self.edge(leaf, samples.edges)
        (self.settings.edge_weight * edge).backward()
        log = self._rounds(leaf, samples, frame)
        embedding.backward(leaf.grad)
        parameters = [*self.sam.parameters(), *self.edge.parameters()]
        log["gradient"] = float(nn.utils.clip_grad_norm_(parameters, 1.0))
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._advance_average()
        return log | {"edge": float(edge.detach())}

    def _rounds(self, leaf: Tensor, samples: Samples, frame: Frame) -> dict[str, float]:
        rows, log = first_rows(samples, frame), {}
        correct = self.step >= self.settings.corrections_from and self.step % 3 == 0
        for number in range(3 if correct else 1):
            with self.autocast():
                result = score(*decode(self.sam, leaf, rows, frame), rows)
            (result.loss * (len(rows.coords) / len(samples.kinds))).backward()
            log[f"loss{number + 1}"] = float(result.loss.detach())
            log[f"iou{number + 1}"] = float(result.iou.mean())
            if number == 0:
                for i, kind in enumerate(KINDS):
                    log[f"iou_{kind}"] = float(result.iou[samples.kinds == i].mean())
                kept = torch.arange(0, len(rows.coords), 3, device=self.device)
            else:
                kept = torch.arange(len(rows.coords), device=self.device)
            if correct and number < 2:
                rows = corrected(rows, result, kept, frame)
        return log

    @torch.no_grad()
    def _advance_average(self) -> None:
        weight = 1 - min(self.settings.ema, (1 + self.step) / (10 + self.step))
        ours = self.sam.state_dict()
        torch._foreach_lerp_(list(self.average.state_dict().values()), list(ours.values()), weight)

    def save(self, name: str) -> None:
        """Writes a checkpoint folder; a half-written one never takes the place of a whole one."""
        folder, fresh = self.out / name, self.out / f"{name}.part"
        fresh.mkdir(parents=True, exist_ok=True)
        for part, module in (("model", self.sam), ("ema", self.average), ("edge", self.edge)):
            save_file(
                {k: v.contiguous() for k, v in module.state_dict().items()},
                fresh / f"{part}.safetensors",
            )
        for part, optimizer in self.optimizers.items():
            flat = {
                f"{i}.{k}": v.contiguous()
                for i, entry in optimizer.state_dict()["state"].items()
                for k, v in entry.items()
            }
            save_file(flat, fresh / f"{part}.safetensors")
        state = {"step": self.step, "seconds": self.seconds, "settings": asdict(self.settings)}
        (fresh / "state.json").write_text(json.dumps(state, indent=1))
        old = self.out / f"{name}.old"
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)

    def start_from(self, weights: Path) -> None:
        """Takes the weights of a file; optimisers, average and edge read-out begin anew."""
        for module in (self.sam, self.average):
            module.load_state_dict({k: v.float() for k, v in load_file(weights).items()})

    def resume(self) -> None:
        """Loads the last checkpoint and goes on with the clock where it stood."""
        folder = self.out / "last"
        state = json.loads((folder / "state.json").read_text())
        for part, module in (("model", self.sam), ("ema", self.average), ("edge", self.edge)):
            module.load_state_dict(load_file(folder / f"{part}.safetensors", str(self.device)))
        for part, optimizer in self.optimizers.items():
            whole = optimizer.state_dict()
            for key, value in load_file(folder / f"{part}.safetensors", str(self.device)).items():
                index, name = key.split(".", 1)
                whole["state"].setdefault(int(index), {})[name] = value
            optimizer.load_state_dict(whole)
        self.step, self.seconds = state["step"], state["seconds"]
        self.generator.manual_seed(self.settings.seed + self.step)
        print(f"resumed {folder.name} at step {self.step}, {self.seconds / 60:.1f} min", flush=True)


def saved_settings(out: Path) -> Settings:
    """Those of the last checkpoint of a run."""
    return Settings(**json.loads((out / "last" / "state.json").read_text())["settings"])


def run(trainer: Trainer, workers: int, photos: str | None) -> None:
    """Trains until the budget is used, saving every five minutes, validating every ten."""
    out = trainer.out
    clock = saved = checked = time.monotonic()
    with (out / "log.jsonl").open("a") as log:
        for samples in _loader(trainer, workers, photos):
            waited = time.monotonic() - clock
            factor = trainer.schedule()
            numbers = trainer.update(Samples(*(t.to(trainer.device) for t in samples)))
            now = time.monotonic()
            trainer.step += 1
            trainer.seconds += now - clock
            about = {
                "step": trainer.step,
                "seconds": trainer.seconds,
                "size": samples.pixels.shape[-1],
            }
            log.write(json.dumps(numbers | about | {"rate": factor, "wait": waited}) + "\n")
            log.flush()
            done = trainer.progress >= 1 or (out / "stop").exists()
            if now - saved > 300 or done:
                trainer.save("last")
                saved = now
            if now - checked > 600 or done:
                _check(trainer)
                checked = time.monotonic()
            if done:
                return
            clock = time.monotonic()


def _loader(trainer: Trainer, workers: int, photos: str | None) -> DataLoader:
    """Batches from the trainer's step on, made in other processes when there are any."""
    s = trainer.settings
    trainer.schedule()
    stream = Stream(s.seed, trainer.step, trainer.mixture, photos)
    if not workers:
        return DataLoader(stream, batch_size=None)
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4,
        multiprocessing_context="spawn",
        worker_init_fn=_modest,
    )


def _modest(_: int) -> None:
    torch.set_num_threads(1)
    os.nice(5)


def _check(trainer: Trainer) -> None:
    """Validates the averaged weights on other scenes; the clock of the budget stands still."""
    result = validation.synthetic(trainer.average, trainer.device)
    line = {"step": trainer.step, "seconds": trainer.seconds} | result
    with (trainer.out / "validation.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)
    validation.curve(trainer.out)


def main() -> None:
    """Reads the options and trains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the folder's checkpoint, with its settings where none are given",
    )
    parser.add_argument("--init", type=Path, help="weights to start from; see --begin")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--workers", type=int, default=1, help="processes that make scenes")
    parser.add_argument(
        "--coco", metavar="FOLDER", help="COCO folder: its free photographs lend surfaces"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name, value in asdict(Settings()).items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(value), default=argparse.SUPPRESS, metavar=value)
    args = vars(parser.parse_args())
    given = {name: args[name] for name in asdict(Settings()) if name in args}
    settings = replace(saved_settings(args["out"]) if args["resume"] else Settings(), **given)
    torch.set_num_threads(args["threads"])
    cv2.setNumThreads(1)
    args["out"].mkdir(parents=True, exist_ok=True)
    (args["out"] / "stop").unlink(missing_ok=True)
    trainer = Trainer(settings, args["out"], torch.device(args["device"]))
    if args["resume"]:
        trainer.resume()
    elif args["init"]:
        trainer.start_from(args["init"])
    run(trainer, args["workers"], args["coco"])


if __name__ == "__main__":
    main()
