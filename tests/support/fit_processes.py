"""A short training and an evaluation, as ``test_distributed`` runs them, alone or together."""

from pathlib import Path

import tiny
import tiny_vit_golden
import torch

from samtune.adapters import ADAPTERS
from samtune.adapters.base import lacking
from samtune.data import DataConfig, PromptConfig, SegmentationDataset
from samtune.data.sources import find_layout
from samtune.distributed import place
from samtune.evaluation.streaming import evaluate
from samtune.losses import bce, dice
from samtune.model.finetuned import FineTuned
from samtune.training.callbacks import CallbackState
from samtune.training.engine import FitConfig, fit


def main(root: str, out: str, method: str, batch_size: int, accumulate: int) -> None:
    """Writes ``OUT/rank-of-world.pt``."""
    adapter, decoder = method.split("/")
    torch.manual_seed(0)
    base = tiny_vit_golden.base() if lacking(ADAPTERS[adapter], tiny.TINY) else tiny.base()
    model = FineTuned(base, adapter, decoder)
    start = {name: t.clone() for name, t in model.state_dict().items()}
    (records,) = find_layout(root).values()
    data, prompts = DataConfig(root=root), PromptConfig()
    make = lambda part, train: SegmentationDataset(  # noqa: E731
        part, data, (64, 64), prompts=prompts, mask_size=model.mask_size, train=train
    )
    losses: list[float] = []

    def loss(logits: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return bce(logits, targets, valid) + dice(logits, targets, valid)

    def stop(state: CallbackState) -> None:
        rank, world = place()
        if (state.step, rank) == (3, world - 1):  # one process alone, and all stop
            state.stop()

    config = FitConfig(
        max_steps=4,
        batch_size=batch_size,
        accumulate=accumulate,
        warmup=0,
        log_every=1,
    )
    fit(
        model,
        make(records[:4], True),
        None,
        config,
        output=Path(out) / "run",
        device="cpu",
        on_event=lambda event: losses.append(event["loss"]),
        loss=loss,
        optimizer=lambda params: torch.optim.AdamW(params, lr=1e-2, weight_decay=1e-4),
        on_step=stop,
    )
    rank, world = place()
    found = evaluate(model, make(records[4:], False), batch_size=2)
    torch.save(
        {
            "start": start,
            "weights": model.state_dict(),
            "base": {k: t.double().sum() for k, t in model.sam.state_dict().items()},
            "metrics": found.metrics,
            "items": found.items,
            "draws": {name: torch.from_numpy(v) for name, v in found.draws.values.items()},
            "losses": losses,
        },
        Path(out) / f"{rank}-of-{world}.pt",
    )
