"""Balanced BCE: the published form over a batch, and the one that each mask has to itself."""

import pytest
import torch
import torch.nn.functional as F

from samtune.losses import LOSSES, bbce, bbce_per_mask

SIZE = 24
NAMES = ["bbce", "bbce_per_mask"]


@pytest.fixture
def case():
    random = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, SIZE, SIZE, generator=random)
    thresholds = torch.tensor([0.9, 0.5, 0.3])[:, None, None]
    target = torch.rand(logits.shape, generator=random) > thresholds
    return logits, target, torch.ones_like(target)


def published(z, g):
    """The formula as it is published, with torch's weight on the positives."""
    inside, outside = g.sum() + 1e-10, (1 - g).sum()
    entropy = F.binary_cross_entropy_with_logits(z, g, pos_weight=outside / inside)
    return inside / (inside + outside) * entropy


def test_over_a_batch_it_is_the_published_formula(case):
    logits, target, valid = case
    expected = published(logits.double(), target.double())
    torch.testing.assert_close(bbce(logits, target, valid).mean().double(), expected)


def test_per_mask_it_is_the_published_formula_on_each_alone(case):
    logits, target, valid = case
    expected = [published(z, g) for z, g in zip(logits.double(), target.double(), strict=True)]
    torch.testing.assert_close(bbce_per_mask(logits, target, valid).double(), torch.stack(expected))
    alone = torch.cat([bbce(z[None], g[None], v[None]) for z, g, v in zip(*case, strict=True)])
    torch.testing.assert_close(bbce_per_mask(logits, target, valid), alone)
    assert not torch.allclose(bbce(logits, target, valid), alone, rtol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_soft_targets_count_in_part(name, case):
    logits, target, valid = case
    soft = 0.25 + 0.5 * target
    expected = published(logits[:1], soft[:1])
    value = LOSSES[name](logits[:1], soft[:1], valid[:1])
    torch.testing.assert_close(value[0], expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("filled", [0.0, 1.0])
def test_a_target_of_one_kind_alone_teaches_nothing(name, filled, case):
    logits, _, valid = case
    logits.requires_grad_()
    value = LOSSES[name](logits, torch.full_like(logits, filled), valid)
    value.sum().backward()
    assert not value.any()
    assert not logits.grad.any()


@pytest.mark.parametrize("name", NAMES)
def test_foreground_and_background_weigh_the_same(name, case):
    _, target, valid = case
    logits = torch.zeros(1, SIZE, SIZE, requires_grad=True)
    LOSSES[name](logits, target[:1], valid[:1]).sum().backward()
    inside, outside = logits.grad[target[:1]], logits.grad[~target[:1]]
    assert len(inside) < len(outside) / 4
    torch.testing.assert_close(-inside.sum(), outside.sum())
