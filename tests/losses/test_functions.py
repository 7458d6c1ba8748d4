"""A loss that a user gives as a function: what it gets, and what it may return."""

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import nn

from samtune.batch import Masks
from samtune.losses import FunctionLoss, Loss, bce, ce


def answer(batch, answers=1, seed=0):
    """Masks of a quarter of the frame's size, with a gradient."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(batch.prompts), answers, 16, 16)
    logits = torch.randn(shape, generator=generator).requires_grad_()
    return Masks(logits, torch.rand(shape[:2], generator=generator))


def at_image(batch):
    """The same with targets at the images' own sizes."""
    counts = batch.prompts.image.bincount(minlength=2)
    return tiny.own_size(
        batch.prompts,
        list(batch.geometries),
        list(batch.targets.split(counts.tolist())),
        list(batch.valid),
    )


def test_a_function_of_each_mask_is_the_loss_of_that_name():
    batch = tiny.batch([0, 0, 1])
    masks = answer(batch)
    assert torch.equal(FunctionLoss(bce)(masks, batch), Loss.parse("bce")(masks, batch))
    three = answer(batch, answers=3)
    assert torch.equal(FunctionLoss(bce)(three, batch), Loss.parse("bce")(three, batch))
    sized = at_image(batch)
    mine, ours = FunctionLoss(bce, "image"), Loss.parse("bce", "image")
    assert torch.equal(mine(masks, sized), ours(masks, sized))


@pytest.mark.parametrize("at", ["frame", "image"])
def test_a_scalar_is_the_loss_as_it_stands(at):
    """In the frame it is called once; at the images' own sizes once an image that has prompts."""
    batch, inputs = tiny.batch([0, 0]), []

    def mine(logits, targets, valid, *, iou, classes):
        inputs.append((logits, targets, valid, iou, classes))
        return F.binary_cross_entropy_with_logits(logits[valid], targets[valid])

    masks = answer(batch)
    value = FunctionLoss(mine, at)(masks, batch if at == "frame" else at_image(batch))
    [(logits, targets, valid, iou, classes)] = inputs
    assert logits.shape == targets.shape == valid.shape == (2, 64, 64)
    assert (logits.dtype, targets.dtype, valid.dtype) == (torch.float32, torch.float32, torch.bool)
    assert torch.equal(targets, batch.targets.float()) and not valid[:, -5:].any()
    assert torch.equal(iou, masks.iou) and torch.equal(classes, batch.classes)
    alone = F.binary_cross_entropy_with_logits(logits[valid], targets[valid])
    torch.testing.assert_close(value, alone * (1 if at == "frame" else 0.5))
    value.backward()
    assert masks.logits.grad.any()


def test_without_prompts_it_is_not_called():
    batch = tiny.batch([])
    masks = answer(batch)
    value = FunctionLoss(lambda logits, targets, valid: 1 / 0)(masks, batch)
    assert float(value.detach()) == 0 and value.requires_grad


def test_of_class_maps_what_is_not_valid_is_what_torch_ignores():
    batch = tiny.batch([0, 1])
    targets = torch.randint(0, 3, (2, 64, 64))
    batch = type(batch)(**{**vars(batch), "targets": targets})
    masks = Masks(torch.randn(2, 3, 16, 16, requires_grad=True), torch.ones(2, 1), exclusive=True)
    value = FunctionLoss(lambda logits, targets, valid: F.cross_entropy(logits, targets))
    torch.testing.assert_close(value(masks, batch), Loss.parse("ce")(masks, batch))
    assert torch.equal(FunctionLoss(ce)(masks, batch), Loss.parse("ce")(masks, batch))


def no_gradient(logits, targets, valid):
    return (logits > 0).float().mean()


class TrainedLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, logits, targets, valid):
        return logits.mean() * self.weight


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda logits, targets, valid: 1.0, ["a float", "must return a tensor"]),
        (lambda logits, targets, valid: None, "nothing"),
        (lambda logits, targets, valid: logits, ["(2, 64, 64) for 2 masks", "mean or sum"]),
        (no_gradient, ["no_gradient", "has no gradient"]),
        (lambda logits, targets, valid: logits.mean() * torch.nan, ["nan at the first step"]),
        (nn.BCEWithLogitsLoss(), ["BCEWithLogitsLoss takes (input, target)", "logits, targets"]),
        (lambda logits, targets, valid, weight: 0, ["needs weight", "iou and classes"]),
        (TrainedLoss(), "requires_grad_(False)"),
        (0.5, "is no function"),
    ],
)
def test_what_is_no_loss_is_told_in_one_line(refused, function, words):
    batch = tiny.batch([0, 1])
    refused(words, lambda: FunctionLoss(function)(answer(batch), batch))


def test_the_best_of_three_needs_a_loss_of_each_mask(refused):
    batch = tiny.batch([0, 1])
    loss = FunctionLoss(lambda logits, targets, valid: logits.mean())
    refused("train.multimask=true", loss, answer(batch, answers=3), batch)


def test_a_later_loss_may_not_be_finite():
    """That step is then left out, as with every loss."""
    batch, factors = tiny.batch([0, 1]), iter([1.0, torch.inf])
    loss = FunctionLoss(lambda logits, targets, valid: logits.mean() * next(factors))
    assert loss(answer(batch), batch).isfinite() and loss(answer(batch), batch).isinf()
