"""Agreement with the base's own answers, by which prompts are kept."""

from dataclasses import replace

import pytest
import torch

from samtune.batch import Masks
from samtune.data import DataConfig, PromptConfig, SegmentationDataset, collate, splits
from samtune.losses import Loss
from samtune.model.finetuned import FineTuned
from samtune.training.agreement import disagreement
from samtune.training.objective import Objective


@pytest.fixture
def batch(pairs):
    data = DataConfig(root=str(pairs), augment="none")
    train = SegmentationDataset(
        splits(data)["train"], data, (64, 64), prompts=PromptConfig(train="box"),
        mask_size=(32, 32), train=True,
    ).rehearsing(["point"])  # fmt: skip
    return collate([train[0], train[1]])


def masks_of(logits):
    return Masks(logits, torch.zeros(logits.shape[:2]))


def test_it_is_zero_where_both_agree_and_counts_no_invalid_pixel(batch):
    size, n = batch.targets.shape[-2:], len(batch.prompts)
    torch.manual_seed(0)
    base, other = (masks_of(torch.randn(n, 1, *size)) for _ in range(2))
    assert float(disagreement(base, base, batch)) == pytest.approx(0, abs=1e-6)
    apart = disagreement(other, base, batch)
    assert apart > 0.1 and disagreement(masks_of(base.logits + 0.1), base, batch) < apart
    batch.valid[:] = False
    assert disagreement(other, base, batch) == 0
    batch = replace(batch, prompts=batch.prompts.only(torch.zeros(n, dtype=torch.bool)))
    assert disagreement(masks_of(other.logits[:0]), masks_of(base.logits[:0]), batch) == 0


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_kept_prompts_are_compared_with_the_answers_of_the_base(sam, batch, adapter, monkeypatch):
    torch.manual_seed(0)
    model = FineTuned(sam, adapter, "tuned")
    loss, encoded = Loss.parse("bce", "frame"), []
    encode = FineTuned.encode
    monkeypatch.setattr(
        FineTuned, "encode", lambda self, x: encoded.append(self) or encode(self, x)
    )
    plain = Objective(model, loss, False, rehearsal=0.0)(batch)
    assert len(encoded) == 1
    kept = Objective(model, loss, False, to_base=True)
    torch.testing.assert_close(kept(batch), plain)  # a fresh model answers as its base
    assert len(encoded) == (3 if adapter == "lora" else 2), "else nothing is encoded twice"
    assert not list(kept.base.parameters())
    with torch.no_grad():
        for tensor in model.decoder.parameters():
            tensor.add_(0.1 * torch.randn_like(tensor))
    plain = Objective(model, loss, False, rehearsal=0.0)(batch)
    other = kept(batch)
    assert other > plain + 1e-3
    batch.rehearsal.targets[:] = ~batch.rehearsal.targets
    assert kept(batch) == other, "targets make no difference"
    to_targets = Objective(model, loss, False)
    before = to_targets(batch)
    batch.rehearsal.targets[:] = ~batch.rehearsal.targets
    assert to_targets(batch) != before
