"""The losses against their closed forms, and the sum over a ragged batch."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from samtune.batch import Batch, Masks
from samtune.errors import InputError
from samtune.geometry import Geometry
from samtune.losses import (
    DEFAULT_LOSS,
    IOU_HEAD,
    LOSSES,
    Loss,
    ce,
    ce_pooled,
    iou_head,
    register,
)
from samtune.prompts import Prompts

NAMES = sorted(LOSSES)
SIZE = 40  # beyond the 31 pixels of the structure loss's window


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def case(random, n=3, size=SIZE, dtype=torch.float32):
    logits = 3 * torch.randn(n, size, size, generator=random, dtype=dtype)
    return logits, torch.rand(n, size, size, generator=random) > 0.6


def everywhere(target):
    return torch.ones_like(target)


def closed_form(name, z, g, everything):
    """The textbook equation of one mask without invalid pixels, in probabilities and float64."""
    z, g = z.double(), g.double()
    p = 1 / (1 + (-z).exp())
    log_loss = -(g * p.log() + (1 - g) * (1 - p).log())
    overlap, total = (p * g).sum(), p.sum() + g.sum()
    if name == "bce":
        return log_loss.mean()
    if name == "dice":
        return 1 - (2 * overlap + 1) / (total + 1)
    if name == "iou":
        return 1 - (overlap + 1e-3) / (total - overlap + 1e-3)
    if name == "focal":
        positive = 0.25 * (1 - p) ** 2 * -p.log() * g
        return (positive + 0.75 * p**2 * -(1 - p).log() * (1 - g)).mean()
    if name in {"bbce", "bbce_per_mask"}:
        share = (everything.double() if name == "bbce" else g).mean()
        return -((1 - share) * g * p.log() + share * (1 - g) * (1 - p).log()).mean()
    assert name == "structure"
    around = F.avg_pool2d(g[None, None], 31, stride=1, padding=15)[0, 0]
    w = 1 + 5 * (around - g).abs()
    overlap, total = (w * p * g).sum(), (w * (p + g)).sum()
    return (w * log_loss).sum() / w.sum() + 1 - (overlap + 1) / (total - overlap + 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_its_closed_form(name, random):
    logits, target = case(random)
    expected = torch.stack(
        [closed_form(name, z, g, target) for z, g in zip(logits, target, strict=True)]
    )
    value = LOSSES[name](logits, target, everywhere(target))
    torch.testing.assert_close(value, expected.float(), rtol=1e-5, atol=1e-6)


def test_dice_of_nothing_on_confident_background_is_the_published_check():
    empty = torch.zeros(1, 4, 4, dtype=torch.bool)
    value = LOSSES["dice"](torch.full((1, 4, 4), -10.0), empty, everywhere(empty))
    torch.testing.assert_close(value, torch.tensor([7.2581e-4]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("garbage", [7.0, -1e30, math.inf, math.nan])
@pytest.mark.parametrize("name", NAMES)
def test_invalid_pixels_change_neither_value_nor_gradient(name, garbage, random):
    logits, target = case(random)
    valid = torch.rand(target.shape, generator=random) > 0.3
    clean = logits.clone().requires_grad_()
    dirty = torch.where(valid, logits, garbage).requires_grad_()
    values = [
        LOSSES[name](clean, target, valid),
        LOSSES[name](dirty, target ^ ~valid, valid),
    ]
    torch.testing.assert_close(*values, rtol=0, atol=0)
    for value in values:
        value.sum().backward()
    torch.testing.assert_close(clean.grad, dirty.grad, rtol=0, atol=0)
    assert not dirty.grad[~valid].any()
    assert dirty.grad[valid].any()


@pytest.mark.parametrize("name", NAMES)
def test_padding_does_not_change_a_loss(name, random):
    logits, target = case(random)
    pad = (0, 9, 0, 20)
    padded = LOSSES[name](
        F.pad(logits, pad, value=2.0), F.pad(target, pad), F.pad(everywhere(target), pad)
    )
    torch.testing.assert_close(padded, LOSSES[name](logits, target, everywhere(target)))


@pytest.mark.parametrize("name", NAMES)
def test_a_row_without_valid_pixels_gives_zero_and_no_gradient(name, random):
    logits, target = case(random)
    valid = everywhere(target)
    valid[1] = False
    logits.requires_grad_()
    value = LOSSES[name](logits, target, valid)
    value.sum().backward()
    assert value[1] == 0
    assert not logits.grad[1].any()
    assert (value[[0, 2]] > 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_summed_in_fp32(name, dtype, random):
    # 1024 x 256 pixels overflow fp16's 65504 and stall bf16's sums.
    logits = (60 * torch.randn(1, 1024, 256, generator=random)).to(dtype).requires_grad_()
    target = torch.rand(logits.shape, generator=random) > 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = LOSSES[name](logits, target, everywhere(target))
    value.sum().backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(logits.grad).all()
    exact = LOSSES[name](logits.detach().double(), target, everywhere(target))
    torch.testing.assert_close(value.double(), exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_finite_differences(name, random):
    logits, target = case(random, n=2, size=4, dtype=torch.float64)
    valid = torch.rand(target.shape, generator=random) > 0.2
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: LOSSES[name](z, target, valid), logits)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    scale=st.sampled_from([0.0, 1.0, 100.0, 1e4]),
    density=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_every_loss_is_finite_nonnegative_and_zero_when_right(name, seed, shape, scale, density):
    random = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(shape, generator=random)
    target = torch.rand(shape, generator=random) < density
    value = LOSSES[name](logits, target, everywhere(target))
    assert torch.isfinite(value).all()
    assert (value >= -1e-6).all()
    if name in {"dice", "iou"}:
        assert (value <= 1).all()
    right = torch.where(target, 200.0, -200.0)
    assert (LOSSES[name](right, target, everywhere(target)).abs() < 1e-5).all()


def test_soft_targets_are_taken_as_they_are(random):
    logits, _ = case(random)
    soft = torch.rand(logits.shape, generator=random)
    valid = torch.ones_like(soft, dtype=torch.bool)
    expected = F.binary_cross_entropy_with_logits(logits, soft, reduction="none").mean((1, 2))
    torch.testing.assert_close(LOSSES["bce"](logits, soft, valid), expected)


def test_the_iou_head_is_held_to_the_iou_of_the_thresholded_mask():
    target = torch.zeros(4, 2, 4, dtype=torch.bool)
    target[:2, 0] = True
    valid = everywhere(target)
    valid[1, :, 2:] = False
    valid[3] = False
    logits = torch.full((4, 2, 2, 4), -1.0)
    logits[:2, 0, :, :2] = 1.0  # overlaps 2 of 4 + 4 pixels; of 2 + 4 where only half is valid
    logits[:2, 1, 0] = 1.0  # right
    logits[2, 1, 0, 0] = 1.0  # empty target: the first mask is right, the second wrong
    actual = torch.tensor([[2 / 6, 1], [2 / 4, 1], [1, 0], [0, 0]])
    predicted = torch.rand(4, 2).requires_grad_()
    logits.requires_grad_()
    value = iou_head(predicted, logits, target, valid)
    expected = ((predicted - actual) ** 2).mean(1)
    torch.testing.assert_close(value[:3], expected[:3])
    assert value[3] == 0
    value.sum().backward()
    assert logits.grad is None
    assert predicted.grad[:3].all()
    assert not predicted.grad[3].any()


# --- expressions


def test_an_expression_is_read_and_written_back():
    loss = Loss.parse("20*focal + dice+0.5 * iou_head + 1e+1*bce + 2.e-1*iou")
    weights = {"focal": 20, "dice": 1, IOU_HEAD: 0.5, "bce": 10, "iou": 0.2}
    assert dict(loss.terms) == weights
    assert str(loss) == "20*focal + dice + 0.5*iou_head + 10*bce + 0.2*iou"
    assert Loss.parse(str(loss)) == loss
    assert str(Loss.parse(DEFAULT_LOSS)) == DEFAULT_LOSS


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"names 'dise'; known are bce, .*did you mean 'dice'\?"):
        Loss.parse("bce + dise")


@pytest.mark.parametrize(
    ("expression", "rule"),
    [
        ("", "joined by "),
        ("bce +", "joined by "),
        ("bce dice", "joined by "),
        ("bce - dice", "joined by "),
        ("-1*bce", "joined by "),
        ("2 bce", "joined by "),
        ("dice*2", "joined by "),
        ("nan*dice", "joined by "),
        ("0*dice", "positive and finite"),
        ("1e999*dice", "positive and finite"),
        ("dice + bce + 2*dice", "'dice' twice"),
    ],
)
def test_a_bad_expression_is_refused_in_one_line(expression, rule):
    with pytest.raises(InputError, match=rule) as caught:
        Loss.parse(expression)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["bce", IOU_HEAD])
def test_a_taken_name_is_not_registered_again(name):
    before = dict(LOSSES)
    with pytest.raises(ValueError, match="taken"):
        register(name)(lambda logits, target, valid: logits.sum((1, 2)))
    assert before == LOSSES


# --- batches

ALL_TERMS = "20*focal + dice + bce + iou + structure + iou_head"


def batch_of(random, counts, k=1, size=32):
    """Images with ``counts`` prompts each, their prompts shuffled, and masks for all of them."""
    images = torch.cat([torch.full((n,), i) for i, n in enumerate(counts)]).long()
    images = images[torch.randperm(len(images), generator=random)]
    n = len(images)
    valid = torch.rand(len(counts), size, size, generator=random) > 0.2
    batch = Batch(
        pixels=torch.zeros(len(counts), 3, size, size, dtype=torch.uint8),
        sizes=torch.full((len(counts), 2), size),
        prompts=Prompts.of(boxes=torch.zeros(n, 4), image=images),
        targets=torch.rand(n, size, size, generator=random) > 0.6,
        valid=valid,
        classes=torch.zeros(n, dtype=torch.long),
        geometries=(Geometry((size, size), (size, size), (size, size)),) * len(counts),
        names=tuple(str(i) for i in range(len(counts))),
    )
    masks = Masks(
        torch.randn(n, k, size // 4, size // 4, generator=random),
        torch.rand(n, k, generator=random),
    )
    return masks, batch


def only(masks, batch, i):
    """The part of a batch that belongs to image ``i``."""
    keep = batch.prompts.image == i
    n = int(keep.sum())
    part = Batch(
        batch.pixels[i : i + 1],
        batch.sizes[i : i + 1],
        Prompts.of(boxes=torch.zeros(n, 4), image=torch.zeros(n)),
        batch.targets[keep],
        batch.valid[i : i + 1],
        batch.classes[keep],
        batch.geometries[i : i + 1],
        batch.names[i : i + 1],
    )
    return Masks(masks.logits[keep], masks.iou[keep]), part


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("counts", [(3, 1), (5, 0), (2, 4, 1)])
def test_the_loss_of_a_batch_is_the_mean_of_batches_of_one(counts, k, random):
    masks, batch = batch_of(random, counts, k)
    loss = Loss.parse(ALL_TERMS)
    singles = [loss(*only(masks, batch, i)) for i in range(len(counts))]
    torch.testing.assert_close(loss(masks, batch), torch.stack(singles).mean())


def test_a_batch_without_prompts_gives_a_zero_with_a_graph(random):
    masks, batch = batch_of(random, (0, 0), k=3)
    masks.logits.requires_grad_()
    masks.iou.requires_grad_()
    value = Loss.parse(ALL_TERMS)(masks, batch)
    value.backward()
    assert value == 0
    assert masks.logits.grad.shape == masks.logits.shape
    assert masks.iou.grad.shape == masks.iou.shape


@pytest.mark.parametrize("name", NAMES)
def test_a_term_sees_the_logits_enlarged_to_the_frame_of_the_target(name, random):
    masks, batch = batch_of(random, (2,))
    full = F.interpolate(masks.logits, (32, 32), mode="bilinear", align_corners=False)[:, 0]
    valid = batch.valid.expand(2, -1, -1)
    expected = 3 * LOSSES[name](full, batch.targets, valid).mean()
    torch.testing.assert_close(Loss.parse(f"3*{name}")(masks, batch), expected)


def test_of_several_masks_the_best_counts_and_alone_learns(random):
    masks, batch = batch_of(random, (2, 3), k=3)
    masks.logits.requires_grad_()
    loss = Loss.parse("dice + 2*bce")
    value = loss(masks, batch)
    value.backward()
    full = F.interpolate(masks.logits, (32, 32), mode="bilinear", align_corners=False)
    valid = batch.valid[batch.prompts.image]
    each = torch.stack(
        [
            LOSSES["dice"](m, batch.targets, valid) + 2 * LOSSES["bce"](m, batch.targets, valid)
            for m in full.unbind(1)
        ],
        1,
    )
    least, best = each.min(1)
    counts = torch.bincount(batch.prompts.image)[batch.prompts.image]
    expected = (least / counts).sum() / 2
    torch.testing.assert_close(value, expected)
    (gradient,) = torch.autograd.grad(expected, masks.logits)
    torch.testing.assert_close(masks.logits.grad, gradient)
    learns = masks.logits.grad.flatten(2).any(2)
    assert torch.equal(learns, F.one_hot(best, 3).bool())


def test_the_iou_head_alone_trains_every_estimate_and_no_mask(random):
    masks, batch = batch_of(random, (2, 1), k=3)
    masks.logits.requires_grad_()
    masks.iou.requires_grad_()
    Loss.parse(IOU_HEAD)(masks, batch).backward()
    assert masks.logits.grad is None
    assert masks.iou.grad.all()


def test_the_iou_head_is_weighed_like_any_term(random):
    masks, batch = batch_of(random, (2, 1), k=3)
    mask, head, both = (
        Loss.parse(e)(masks, batch) for e in ("dice", IOU_HEAD, f"dice + 4*{IOU_HEAD}")
    )
    torch.testing.assert_close(both, mask + 4 * head)


def test_half_precision_masks_give_a_loss_in_fp32(random):
    masks, batch = batch_of(random, (2, 1), k=3)
    half = Masks(masks.logits.bfloat16(), masks.iou.bfloat16())
    value = Loss.parse(ALL_TERMS)(half, batch)
    same = Masks(half.logits.float(), half.iou.float())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, Loss.parse(ALL_TERMS)(same, batch), rtol=0, atol=0)


def test_pooled_cross_entropy_is_torchs_over_the_whole_batch():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 8, 9, requires_grad=True)
    target, valid = torch.randint(0, 4, (2, 8, 9)), torch.ones(2, 8, 9, dtype=torch.bool)
    valid[0, :6] = False
    expected = torch.nn.functional.cross_entropy(
        logits, target.masked_fill(~valid, 19), ignore_index=19
    )
    found = ce_pooled(logits, target, valid).mean()
    torch.testing.assert_close(found, expected)
    assert abs(ce(logits, target, valid).mean() - expected) > 1e-3
    gradients = [torch.autograd.grad(value, logits)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients)
    everywhere = torch.ones_like(valid)
    torch.testing.assert_close(
        ce_pooled(logits, target, everywhere), ce(logits, target, everywhere)
    )
