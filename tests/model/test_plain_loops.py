"""A model in loops that are not samtune's, and as a part of other modules."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import samtune
from samtune.data import collate
from samtune.losses import Loss

MASKS = np.zeros((6, 48, 64), np.uint8)
MASKS[:, 10:30, 12:40] = 1
IMAGES = 60 + 120 * MASKS[..., None].repeat(3, 3)


@pytest.fixture
def model(sam):
    return samtune.FineTuned(sam, "lora", "tuned", adapter_options={"rank": 2})


@pytest.fixture
def train(model):
    return samtune.prepare((IMAGES, MASKS), model, train=True)


def untouched(sam, before):
    return all(torch.equal(t, before[key]) for key, t in sam.state_dict().items())


class WithLoss(nn.Module):
    """A model that returns its loss, as the Trainer of transformers wants it."""

    def __init__(self, model):
        super().__init__()
        self.model, self.criterion = model, Loss.parse("bce + dice")

    def forward(self, batch):
        batch = batch.to(self.model.device)
        return {"loss": self.criterion(self.model(batch.pixels, batch.prompts, batch.sizes), batch)}


def test_twenty_lines_train_it(model, train, sam):
    before = copy.deepcopy(sam.state_dict())
    loader = DataLoader(train, batch_size=3, shuffle=True, collate_fn=collate)
    optimizer, criterion = torch.optim.AdamW(model.parameters(), lr=3e-3), Loss.parse("bce + dice")
    model.train()
    losses = []
    for epoch in range(6):
        train.set_epoch(epoch)
        for batch in loader:
            loss = criterion(model(batch.pixels, batch.prompts, batch.sizes), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert untouched(sam, before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_trainer_of_transformers_trains_and_saves_what_is_trained(model, train, tmp_path):
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file

    before = copy.deepcopy(model.state_dict())
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=2, save_steps=2, per_device_train_batch_size=2, use_cpu=True,
        remove_unused_columns=False, report_to="none", disable_tqdm=True,
    )  # fmt: skip
    transformers.Trainer(
        WithLoss(model),
        arguments,
        train_dataset=train,
        data_collator=lambda examples: {"batch": collate(examples)},
    ).train()
    written = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert {name.removeprefix("model.") for name in written} == before.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(written[f"model.{name}"], tensor)
    assert any(not torch.equal(t, before[name]) for name, t in model.state_dict().items())


class Classifier(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(32, 3)

    def forward(self, pixels):
        embedding = self.backbone.encode(self.backbone.preprocess(pixels)).embedding
        return self.head(embedding.mean((2, 3)))


def test_its_encoder_is_a_part_of_another_model(sam):
    """Of which only the adapter is trained, saved and moved through types that the base bears."""
    before = copy.deepcopy(sam.state_dict())
    backbone = samtune.FineTuned(sam, "lora", "frozen", adapter_options={"rank": 2})
    classifier = Classifier(backbone).train()
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1)
    for _ in range(2):  # LoRA's first gradient is that of its second matrix alone
        classifier(torch.rand(2, 3, 64, 64) * 255).square().sum().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.any() for p in classifier.parameters())
    assert untouched(sam, before) and not sam.training
    names = {name.split(".")[0] for name in classifier.state_dict()}
    assert names == {"backbone", "head"}
    assert all(name.startswith(("backbone.adapter.", "head.")) for name in classifier.state_dict())


def changed(model):
    """With weights that are no start."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model.eval()


@torch.no_grad()
def answer(model, train):
    batch = collate([train[0]])
    return model(batch.pixels, batch.prompts, batch.sizes).logits


def test_copies_and_pickles_answer_alike(model, train):
    expected = answer(changed(model), train)
    twin, pickled = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    assert twin.sam is model.sam and pickled.sam is not model.sam
    for other in (twin, pickled):
        assert torch.equal(answer(other, train), expected)
    fresh = samtune.FineTuned(model.sam, "lora", "tuned", adapter_options={"rank": 2}).eval()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(answer(fresh, train), expected)


def test_a_merged_sam_in_memory_answers_as_the_model_at_its_strength(model, train, sam, refused):
    before = copy.deepcopy(sam.state_dict())
    changed(model)
    for strength in (1, 0.5):
        model.strength = strength
        plain = model.merge()
        assert not any(p.requires_grad for p in plain.parameters())
        torch.testing.assert_close(
            answer(samtune.FineTuned(plain).eval(), train), answer(model, train)
        )
    assert untouched(sam, before)
    refused("no form", samtune.FineTuned(sam, "adaptformer").merge)
