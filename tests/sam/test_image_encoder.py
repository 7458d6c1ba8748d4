"""The image encoder: any size the patch divides, padding, compilation, checkpointing."""

import deterministic
import pytest
import tiny
import torch
from torch.utils.checkpoint import checkpoint

from samtune.ops import attention, resize, windows
from samtune.sam.edits import BlockEdits
from samtune.sam.layers import LayerNorm2d, shapes_alone


def plain(encoder, pixels):
    """The official order of steps, written out: pad after the norm, project after padding."""
    x = encoder.patch_embed.proj(pixels).permute(0, 2, 3, 1)
    x = x + resize.positions(encoder.pos_embed, x.shape[1:3])
    for block in encoder.blocks:
        grid, normed = x.shape[1:3], block.norm1(x)
        padded = None
        if block.window:
            normed, padded = windows.partition(normed, block.window)
        b, h, w, c = normed.shape
        heads, attn = block.attn.heads, block.attn
        qkv = attn.qkv(normed).reshape(b, h * w, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
        rel_h = resize.relative(attn.rel_pos_h, h, h)
        rel_w = resize.relative(attn.rel_pos_w, w, w)
        out = attention.attend(*qkv, rel_h, rel_w, form="textbook")
        out = attn.proj(out.transpose(1, 2).reshape(b, h, w, c))
        if padded:
            out = windows.merge(out, padded, grid)
        x = x + out
        x = x + block.mlp.lin2(torch.nn.functional.gelu(block.mlp.lin1(block.norm2(x))))
    return encoder.neck(x.permute(0, 3, 1, 2))


@pytest.mark.parametrize("size", [(64, 64), (48, 88), (8, 8), (72, 40), (128, 64)])
def test_any_size_gives_what_the_official_order_gives(size):
    encoder = tiny.base().double().image_encoder
    pixels = deterministic.tensor("input", (2, 3, *size), -2, 2).double()
    out = encoder(pixels)
    assert out.shape == (2, 32, size[0] // 8, size[1] // 8)
    torch.testing.assert_close(out, plain(encoder, pixels), rtol=0, atol=1e-12)


def test_projecting_before_the_padding_is_projecting_after_it(sam):
    """Windows of 3 on a grid of 8: the padded tokens' projection is the bias."""
    block = sam.image_encoder.blocks[0]
    x = deterministic.tensor("x", (2, 8, 8, 32), -2, 2)
    projected_after = block(x, BlockEdits(qkv=lambda t: t.new_zeros(*t.shape[:-1], 96)))
    torch.testing.assert_close(block(x), projected_after, rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [(60, 64), (64, 65)])
def test_other_sizes_are_refused_with_the_remedy(sam, refused, size):
    words = [f"{size[0]}x{size[1]}", "multiples of the patch, 8", "64x"]
    message = refused(words, sam.image_encoder, torch.zeros(1, 3, *size))
    assert message.endswith("64x64" if size[0] == 60 else "64x72")


def test_images_of_a_batch_do_not_mix(sam):
    pixels = deterministic.tensor("input", (3, 3, 64, 48), -2, 2)
    out = sam.image_encoder(pixels)
    for i in range(3):
        alone = sam.image_encoder(pixels[i : i + 1])[0]
        torch.testing.assert_close(out[i], alone, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["auto", "folded"])
def test_compiles_in_one_graph(own_sam, form):
    encoder = own_sam.image_encoder
    for block in encoder.blocks:
        block.attn.form = form
    pixels = deterministic.tensor("input", (1, 3, 64, 48), -2, 2)
    torch.compiler.reset()
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(pixels), encoder(pixels), rtol=1e-5, atol=1e-5)


def test_checkpointed_gradients_are_the_same(own_sam):
    encoder = own_sam.image_encoder.requires_grad_(True)
    pixels = deterministic.tensor("input", (1, 3, 64, 64), -2, 2)
    delta = torch.full((96,), 0.1, requires_grad=True)
    edits = BlockEdits(qkv=lambda t: delta.expand(*t.shape[:-1], 96))
    wanted = [*encoder.parameters(), delta]

    def gradients(run):
        x = encoder.embed(pixels)
        for block in encoder.blocks:
            x = run(block, x)
        return torch.autograd.grad(encoder.apply_neck(x).square().sum(), wanted)

    once = gradients(lambda block, x: block(x, edits))
    twice = gradients(lambda block, x: checkpoint(block, x, edits, use_reentrant=False))
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))
    assert all(g.abs().sum() > 0 for g in once)


def test_autocast_stays_close_and_keeps_windows_in_half_precision(sam, monkeypatch):
    seen = []
    attend = attention.attend

    def spy(q, *rest):
        seen.append(q.dtype)
        return attend(q, *rest)

    monkeypatch.setattr(attention, "attend", spy)
    pixels = deterministic.tensor("input", (1, 3, 64, 64), -2, 2)
    exact = sam.image_encoder(pixels)
    del seen[:]
    with torch.autocast("cpu", torch.bfloat16):
        out = sam.image_encoder(pixels)
    assert seen == [torch.bfloat16] * 4
    assert (out.float() - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_layer_norm_2d_is_a_layer_norm_over_channels():
    norm = LayerNorm2d(5).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    expected = torch.nn.functional.layer_norm(
        x.permute(0, 2, 3, 1), (5,), norm.weight, norm.bias, 1e-6
    ).permute(0, 3, 1, 2)
    torch.testing.assert_close(norm(x), expected)


def test_no_tensor_is_made_on_the_default_device_alone(sam):
    """With another default device than the model's, nothing of the two is mixed."""
    pixels = deterministic.tensor("input", (2, 3, 64, 48), 0, 255)
    prompts, sizes = tiny.boxes([0, 1], (64, 48)), torch.tensor([[64, 48], [40, 48]])
    expected = sam(pixels, prompts, sizes)
    with shapes_alone():
        out = sam(pixels, prompts, sizes)
    assert torch.equal(out.logits, expected.logits)
