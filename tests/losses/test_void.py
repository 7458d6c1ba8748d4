"""Pixels that are to be ignored never break a loss, not even where there are no others."""

from dataclasses import replace

import pytest
import tiny
import torch

from samtune.batch import Masks
from samtune.losses import CLASS_LOSSES, IOU_HEAD, LOSSES, Loss

VOID = 255


def value(name, void):
    """The loss of a batch of two images, of which those in ``void`` are ignored as a whole."""
    batch = tiny.batch([0, 1])
    valid = batch.valid.clone()
    valid[void] = False
    mapped = name in CLASS_LOSSES
    targets = batch.targets
    if mapped:  # what stands where nothing counts must not matter: no class has this number
        targets = torch.where(valid, targets.long(), VOID)
    k = 3 if mapped else 1
    logits = torch.randn(2, k, 32, 32, requires_grad=True)
    iou = torch.rand(2, k, requires_grad=True)
    batch = replace(batch, targets=targets, valid=valid)
    found = Loss.parse(name)(Masks(logits, iou, exclusive=mapped), batch)
    found.backward()
    grads = [torch.zeros_like(t) if t.grad is None else t.grad for t in (logits, iou)]
    return found.detach(), grads


@pytest.mark.parametrize("name", [*LOSSES, IOU_HEAD, *CLASS_LOSSES])
def test_a_batch_of_nothing_but_void_costs_nothing(name):
    found, grads = value(name, [0, 1])
    assert found == 0
    assert all((grad == 0).all() for grad in grads)


@pytest.mark.parametrize("name", [*LOSSES, IOU_HEAD, *CLASS_LOSSES])
def test_an_image_of_void_leaves_the_other_its_gradient(name):
    found, grads = value(name, [1])
    assert found.isfinite() and found > 0
    assert all(grad.isfinite().all() for grad in grads)
    assert all((grad[1] == 0).all() for grad in grads)
    assert any((grad[0] != 0).any() for grad in grads)
