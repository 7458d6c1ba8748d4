"""Losses of dense maps, their place in an expression, and what is refused."""

from dataclasses import replace

import pytest
import tiny
import torch

from samtune.batch import Masks
from samtune.errors import InputError
from samtune.losses import DENSE_LOSSES, Loss, distances, object_ce, quality_head
from samtune.losses.dense import check_dense
from samtune.prompts import PromptModes

VALID = torch.ones(2, 6, 6, dtype=torch.bool)


@pytest.fixture
def target() -> torch.Tensor:
    target = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)).clamp(0.02, 0.98)
    target[:, 0] = target[:, 0] > 0.5
    return target


def test_the_loss_of_distances_is_least_at_the_target(target):
    best = distances(target.clamp(1e-4, 1 - 1e-4).logit(), target, VALID)
    assert best.shape == (2,) and (best < 1e-3).all()
    logits = target.clamp(0.01, 0.99).logit().requires_grad_()
    moved = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(1))
    for step in (-0.5, 0.5):
        assert (distances(logits + step * moved, target, VALID) > best + 1e-4).all()
    p, g = torch.tensor([0.5, 0.25]), torch.tensor([1.0, 0.5])  # by hand, one map of two pixels
    maps = torch.stack([torch.ones(2), g, g])[None, :, None]
    mine = distances(torch.stack([torch.full((2,), 99.0), p.logit(), g.logit()])[None, :, None],
                     maps, torch.ones(1, 1, 2, dtype=torch.bool))  # fmt: skip
    expected = 1 - (2 * (p * g).sum() + 1) / ((p * p + g * g).sum() + 1)
    torch.testing.assert_close(mine[0], expected)


def test_pixels_that_do_not_count_change_nothing(target):
    logits = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    valid, other = VALID.clone(), logits.clone()
    valid[:, 0] = False
    other[:, :, 0] = torch.nan
    outside = target[:, 0] == 0
    for map in (1, 2):
        other[:, map][outside] = -7.0  # distances count inside of objects alone
    other.requires_grad_()
    assert torch.equal(distances(logits, target, valid), distances(other, target, valid))
    distances(other, target, valid).sum().backward()
    assert other.grad is not None and other.grad.isfinite().all()
    nothing = torch.zeros_like(VALID)
    assert (distances(logits, target, nothing) == 0).all()
    classes = torch.where(target[:, :1] > 0, 1, -1)
    z = logits[:, :2]
    inside = (target[:, 0] > 0) & valid
    expected = torch.nn.functional.cross_entropy(z.movedim(1, 3)[inside], inside.long()[inside])
    each = object_ce(z, classes, valid)
    weights = inside.sum((1, 2))
    torch.testing.assert_close((each * weights).sum() / weights.sum(), expected)
    assert (object_ce(z, torch.full_like(classes, -1), valid) == 0).all()


def test_the_foreground_alone_has_the_binary_cross_entropy_of_its_map(target):
    logits = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    valid = VALID.clone()
    valid[:, 0] = False
    mine = DENSE_LOSSES["foreground"].function(logits, target, valid)
    z, g = logits[:, 0, 1:], target[:, 0, 1:]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(z, g, reduction="none")
    torch.testing.assert_close(mine, expected.mean((1, 2)))


def test_an_expression_adds_them_to_the_losses_of_masks(target):
    batch = replace(tiny.batch([0, 1, 1], size=(6, 6)), dense={"distances": target})
    logits = torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    maps = torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(3)).requires_grad_()
    masks = Masks(logits, torch.rand(3, 1), dense={"distances": maps}, auxiliary=torch.tensor(0.25))
    both = Loss.parse("dice + 2*distances")
    assert str(both) == "dice + 2*distances" and both.dense == {"distances": 2}
    assert str(both.of_prompts) == "dice" and not both.of_classes
    alone = Loss.parse("distances")(masks, batch) - 0.25
    parts = Loss.parse("dice")(masks, batch) + 2 * alone
    torch.testing.assert_close(both(masks, batch), parts)
    fine = torch.nn.functional.interpolate(maps, (6, 6), mode="bilinear")
    torch.testing.assert_close(alone, distances(fine, target, batch.valid).mean())
    alone.backward()
    assert maps.grad is not None and maps.grad.any()
    with pytest.raises(InputError, match="the decoder answers no distances"):
        both(replace(masks, dense={}), batch)
    with pytest.raises(InputError, match="the batch has no distances"):
        both(masks, replace(batch, dense={}))
    with pytest.raises(InputError, match="combine"):
        Loss.parse("ce + distances")
    classes = {"object_classes": torch.full((2, 1, 6, 6), 4)}
    with pytest.raises(InputError, match="object_classes=5 or more"):
        Loss.parse("object_ce")(
            replace(masks, dense={"object_classes": torch.zeros(2, 3, 6, 6)}),
            replace(batch, dense=classes),
        )


@pytest.mark.parametrize(
    ("loss", "targets", "prompted", "modes", "says"),
    [
        ("bce + dice", ("distances",), False, "none", "add distances"),
        ("distances", ("distances", "object_classes"), False, "none", "add object_ce"),
        ("bce + distances", (), True, "box", "leave it out"),
        ("distances", ("distances",), False, "none,box", "prompts.train=none"),
    ],
)
def test_a_loss_fits_what_the_decoder_answers(loss, targets, prompted, modes, says):
    with pytest.raises(InputError, match=says):
        check_dense(Loss.parse(loss), targets, prompted, PromptModes.of(modes))


def test_distances_are_compared_in_the_frame():
    check_dense(Loss.parse("distances"), ("distances",), False, PromptModes.of("none"))
    check_dense(Loss.parse("dice"), (), True, PromptModes.of("box"))
    with pytest.raises(InputError, match="loss_at=frame"):
        check_dense(Loss.parse("distances", "image"), ("distances",), False, PromptModes.of("none"))
    assert {each.reads for each in DENSE_LOSSES.values()} == {"distances", "object_classes"}


def test_an_answer_to_background_has_no_worth_even_if_it_is_rightly_empty():
    logits = torch.tensor([-1.0, -1.0, 1.0, 1.0]).reshape(4, 1, 1, 1).expand(4, 1, 2, 2)
    target = torch.tensor([0.0, 1.0, 0.0, 1.0]).reshape(4, 1, 1).expand(4, 2, 2)
    valid = torch.ones(4, 2, 2, dtype=torch.bool)
    error = quality_head(torch.full((4, 1), 0.5), logits, target, valid)
    assert error.tolist() == [0.25] * 4
    assert quality_head(torch.zeros(4, 1), logits, target, valid).tolist() == [0, 0, 0, 1]
