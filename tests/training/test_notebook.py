"""What a researcher does in a notebook: everything of their own, and the model comes back."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import samtune
from samtune.adapters.base import Adapter
from samtune.sam.edits import BlockEdits


class Gain(Adapter):
    """A gain per channel beside every MLP."""

    uses = ("mlp",)

    @dataclass(frozen=True)
    class Config:
        """What can be chosen."""

        start: float = 0.0
        """The gain before training."""

    def __init__(self, sam, config):
        super().__init__()
        dims = [block.dim for block in sam.image_encoder.blocks]
        self.gains = nn.ParameterList(torch.full((dim,), config.start) for dim in dims)

    def edits(self, i, state):
        return BlockEdits(mlp=lambda x: x * self.gains[i])


def loss(logits, targets, valid, iou):
    """Cross-entropy, and how far the decoder's estimate is from the IoU that it should be."""
    entropy = F.binary_cross_entropy_with_logits(logits[valid], targets[valid])
    inside, truth = (logits > 0) & valid, (targets > 0) & valid
    union = (inside | truth).sum((1, 2)).clamp(min=1)
    actual = (inside & truth).sum((1, 2)) / union
    return entropy + F.mse_loss(iou[:, 0], actual)


class Curve:
    """Keeps what the training measures, and ends it when it has seen enough."""

    def __init__(self):
        self.losses, self.ious = [], []

    def on_step(self, state):
        self.losses.append(state.loss)

    def on_validation(self, state):
        self.ious.append(state.metrics["iou"])
        if len(self.ious) == 2:
            state.stop()


def test_a_notebook(tmp_path):
    # data in memory
    rng = np.random.default_rng(0)
    masks = np.zeros((6, 96, 128), bool)
    for mask, (y, x) in zip(masks, rng.integers(10, 50, (6, 2)), strict=True):
        mask[y : y + 30, x : x + 40] = True
    images = rng.integers(0, 90, (6, 96, 128, 3)) + 120 * masks[..., None]
    images = images.astype(np.uint8)
    data = samtune.data_from((images[:4], masks[:4]), (images[4:], masks[4:]))
    assert data.counts == {"train": 4, "val": 2, "test": 0} and data.check().ok

    # an adapter, a loss, an optimiser and a callback of one's own
    model, curve = samtune.FineTuned(samtune.load_sam("nano"), adapter=Gain), Curve()
    settings = samtune.FitConfig(
        max_steps=9, batch_size=2, eval_every=2, strength="none", average="none", keep="none"
    )
    result = samtune.fit(
        model,
        data,
        settings,
        loss=loss,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
        callbacks=curve,
        output=tmp_path / "run",
        device="cpu",
    )
    assert result.steps == 4 and len(curve.losses) == 4 and len(curve.ious) == 2
    assert any(gain.any() for gain in model.adapter.gains)

    # measured, saved, and the same again
    assert samtune.evaluate(model, data.val).metrics["iou"] == result.best["iou"]
    path = samtune.save(model, tmp_path / "gain.safetensors")
    for file in (path, tmp_path / "run" / "best.safetensors"):
        again = samtune.load(file, adapter=Gain)
        one, other = (each.predictor() for each in (model, again))
        for predictor in (one, other):
            predictor.set_image(images[5])
        box = np.array([20, 20, 70, 60])
        for mine, its in zip(one.predict(box=box), other.predict(box=box), strict=True):
            np.testing.assert_array_equal(mine, its)
