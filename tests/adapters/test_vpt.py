"""Visual prompts against the textbook form: tokens concatenated with the stream."""

import pytest
import tiny
import torch
from torch import Tensor

import samtune
from samtune.adapters.vpt import VPT
from samtune.losses import DEFAULT_LOSS, Loss
from samtune.model.finetuned import FineTuned
from samtune.ops import resize, windows
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS

DEPTHS = ["deep", "shallow"]


def stirred(sam, **options) -> FineTuned:
    """A model whose prompts are large enough to act."""
    torch.manual_seed(2)
    model = FineTuned(sam, "vpt", adapter_options=options).eval()
    with torch.no_grad():
        model.adapter.prompts.normal_()
    return model


def attend(attn, tokens: Tensor, grid: tuple[int, int], p: int) -> Tensor:
    """Attention over ``(b, p + h w, C)``, of which the first ``p`` have no position."""
    q, k, v = attn.split(attn.qkv(tokens))
    rel_h, rel_w = (
        resize.relative(table, n, n)
        for table, n in zip((attn.rel_pos_h, attn.rel_pos_w), grid, strict=True)
    )
    image = q[:, :, p:].unflatten(2, grid)
    bias = torch.einsum("bnhwd,hkd->bnhwk", image, rel_h)[..., None]
    bias = bias + torch.einsum("bnhwd,wkd->bnhwk", image, rel_w)[..., None, :]
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    scores[:, :, p:, p:] += bias.flatten(4).flatten(2, 3)
    return attn.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def textbook(block, x: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """A block on ``[prompts (B, P, C), x (B, H, W, C)]``; prompts are averaged over windows."""
    (b, h, w, _), p = x.shape, prompts.shape[1]
    image, padded = block.norm1(x), (h, w)
    if block.window:
        image, padded = windows.partition(image, block.window)
    grid, count = image.shape[1:3], len(image) // b
    normed = block.norm1(prompts).repeat_interleave(count, 0)
    out = attend(block.attn, torch.cat([normed, image.flatten(1, 2)], 1), grid, p)
    attended = out[:, p:].unflatten(1, grid)
    if block.window:
        attended = windows.merge(attended, padded, (h, w))
    x, prompts = x + attended, prompts + out[:, :p].unflatten(0, (b, count)).mean(1)
    return x + block.mlp(block.norm2(x)), prompts + block.mlp(block.norm2(prompts))


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (48, 88)], ids=str)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.golden("vpt")
def test_prompts_beside_the_stream_are_prompts_in_the_stream(sam, depth, size):
    model = stirred(sam, depth=depth, tokens=3)
    x = sam.preprocess(tiny.pixels(2, size))
    found = model.encode(x).embedding
    stream = sam.image_encoder.embed(x)
    given = model.adapter.prompts
    prompts = given[:1].expand(2, -1, -1)
    for i, block in enumerate(sam.image_encoder.blocks):
        if depth == "deep":
            prompts = given[i : i + 1].expand(2, -1, -1)
        stream, prompts = textbook(block, stream, prompts)
    torch.testing.assert_close(found, sam.image_encoder.apply_neck(stream), rtol=0, atol=2e-5)
    assert (found - sam.image_encoder(x)).abs().max() > 0.01


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_prompt_learns_and_checkpointing_changes_nothing(sam, depth):
    batch, found = tiny.batch([0, 1]), []
    for checkpointing in (False, True):
        model = stirred(sam, depth=depth).train()
        model.checkpointing = checkpointing
        masks = model(batch.pixels, batch.prompts, batch.sizes)
        Loss.parse(DEFAULT_LOSS)(masks, batch).backward()
        found.append(model.adapter.prompts.grad)
    assert found[0].abs().amax(-1).gt(0).all()
    assert torch.equal(*found)


@pytest.mark.slow
@pytest.mark.parametrize("depth", DEPTHS)
def test_compiled_in_one_graph(sam, depth):
    model = stirred(sam, depth=depth)
    x = sam.preprocess(tiny.pixels())
    torch._dynamo.reset()
    compiled = torch.compile(model.encode, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x).embedding, model.encode(x).embedding)


def test_shallow_prompts_are_saved_and_loaded(sam, tmp_path):
    model = stirred(sam, depth="shallow", tokens=2)
    loaded = samtune.load(samtune.save(model, tmp_path / "model.safetensors"), base=sam)
    x = sam.preprocess(tiny.pixels())
    assert torch.equal(loaded.encode(x).embedding, model.encode(x).embedding)


@pytest.mark.parametrize(
    ("depth", "name", "expected"),
    [
        ("deep", "vit_b", 12 * 5 * 768),
        ("deep", "vit_l", 24 * 5 * 1024),
        ("deep", "vit_h", 32 * 5 * 1280),
        ("shallow", "vit_b", 5 * 768),
        ("shallow", "vit_l", 5 * 1024),
        ("shallow", "vit_h", 5 * 1280),
    ],
)
def test_counts(depth, name, expected):
    with shapes_alone():
        adapter = VPT(Sam(SPECS[name]), VPT.Config(depth=depth))
    assert sum(p.numel() for p in adapter.parameters()) == expected


def test_initial_prompts_are_xavier_uniform_over_patch_and_width(sam):
    prompts = VPT(sam, VPT.Config(tokens=200)).prompts
    bound = (6 / (3 * 8 * 8 + 32)) ** 0.5
    assert 0.99 * bound < prompts.abs().max() <= bound
    assert prompts.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_dropout_acts_in_training_alone(sam):
    model = stirred(sam, dropout=0.5)
    x = sam.preprocess(tiny.pixels())
    assert torch.equal(model.encode(x).embedding, model.encode(x).embedding)
    model.train()
    assert not torch.equal(model.encode(x).embedding, model.encode(x).embedding)


@pytest.mark.parametrize(("option", "value"), [("depth", "wide"), ("tokens", 0), ("dropout", 1.0)])
def test_options_out_of_range(sam, refused, option, value):
    refused(f"{{{option!r}: {value!r}}}", FineTuned, sam, "vpt", adapter_options={option: value})
