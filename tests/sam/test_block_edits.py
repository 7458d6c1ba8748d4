"""Each field of ``BlockEdits`` does what it says, against the block written out."""

import math

import deterministic
import pytest
import tiny
import torch
import torch.nn.functional as F

from samtune.ops import resize, windows
from samtune.sam.edits import NONE, BlockEdits

WINDOWED, GLOBAL = 0, 1
both = pytest.mark.parametrize("index", [WINDOWED, GLOBAL], ids=["windowed", "global"])


@pytest.fixture(scope="module")
def encoder():
    return tiny.base().double().image_encoder


@pytest.fixture(scope="module")
def x():
    return deterministic.tensor("x", (2, 8, 7, 32), -2, 2).double()


def explicit(
    block, x, delta=None, pool=None, tokens=None, attended=lambda t: t, beside=lambda t: 0
):
    """One block, window by window and key by key, in the textbook form."""
    grid, normed = x.shape[1:3], block.norm1(x)
    cut, padded = windows.partition(normed, block.window) if block.window else (normed, grid)
    per_image = len(cut) // len(x)
    heads, attn = block.attn.heads, block.attn
    out = []
    for k, window in enumerate(cut):
        h, w, c = window.shape
        qkv = attn.qkv(window)
        if delta is not None:
            qkv = qkv + delta(window)
        q, key, value = qkv.reshape(h * w, 3, heads, c // heads).permute(1, 2, 0, 3)
        kh, kw = h, w
        if pool is not None:
            kh = kw = pool
            key, value = (
                F.adaptive_avg_pool2d(t.reshape(heads, h, w, -1).permute(0, 3, 1, 2), pool)
                .flatten(2)
                .mT
                for t in (key, value)
            )
        q_grid = q.reshape(heads, h, w, -1)
        rel_h = resize.relative(attn.rel_pos_h, h, kh)
        rel_w = resize.relative(attn.rel_pos_w, w, kw)
        bias = torch.einsum("nhwd,hkd->nhwk", q_grid, rel_h)[..., :, None]
        bias = bias + torch.einsum("nhwd,wkd->nhwk", q_grid, rel_w)[..., None, :]
        bias = bias.reshape(heads, h * w, kh * kw)
        if tokens is not None:
            own = tokens if tokens.dim() == 2 else tokens[k // per_image]
            more = attn.qkv(own).reshape(len(own), 3, heads, c // heads).permute(1, 2, 0, 3)
            key, value = torch.cat([key, more[1]], 1), torch.cat([value, more[2]], 1)
            bias = torch.cat([bias, bias.new_zeros(heads, h * w, len(own))], -1)
        scores = (q @ key.mT / math.sqrt(c // heads) + bias).softmax(-1)
        out.append(attn.proj((scores @ value).transpose(0, 1).reshape(h, w, c)))
    merged = torch.stack(out)
    if block.window:
        merged = windows.merge(merged, padded, grid)
    x = x + attended(merged)
    normed = block.norm2(x)
    return x + block.mlp(normed) + beside(normed)


def check(encoder, index, x, edits, **written_out):
    block = encoder.blocks[index]
    out = block(x, edits)
    torch.testing.assert_close(out, explicit(block, x, **written_out), rtol=0, atol=1e-10)
    if edits is not NONE:
        assert (out - block(x)).abs().max() > 1e-3


def mix(name, rows, columns=32):
    return deterministic.tensor(name, (rows, columns), -0.3, 0.3).double()


def pooled(q, k, v, grid):
    b, n, _, d = k.shape
    k, v = (
        F.adaptive_avg_pool2d(t.mT.reshape(b * n, d, *grid), 2).flatten(2).mT.reshape(b, n, 4, d)
        for t in (k, v)
    )
    return q, k, v, (2, 2)


@both
def test_no_edit(encoder, x, index):
    check(encoder, index, x, NONE)
    assert torch.equal(encoder.blocks[index](x, BlockEdits()), encoder.blocks[index](x))


@both
def test_qkv_is_added_to_the_projection_of_the_normed_windowed_tokens(encoder, x, index):
    seen = []

    def delta(t):
        return (t @ mix("delta", 96).T).tanh() + 0.1

    def watched(t):
        seen.append(t)
        return delta(t)

    check(encoder, index, x, BlockEdits(qkv=watched), delta=delta)
    (first, *_) = seen
    normed = encoder.blocks[index].norm1(x)
    expected = windows.partition(normed, 3)[0] if index == WINDOWED else normed
    assert torch.equal(first, expected)


@both
def test_heads_may_pool_keys_and_values(encoder, x, index):
    grids = []

    def watched(q, k, v, grid):
        grids.append(grid)
        return pooled(q, k, v, grid)

    check(encoder, index, x, BlockEdits(heads=watched), pool=2)
    assert set(grids) == {(3, 3) if index == WINDOWED else (8, 7)}


@both
@pytest.mark.parametrize("shape", [(3, 32), (2, 3, 32), (1, 32), (2, 1, 32)], ids=str)
def test_tokens_join_keys_and_values_of_every_window_without_position(encoder, x, index, shape):
    tokens = deterministic.tensor("tokens", shape, -2, 2).double()
    check(encoder, index, x, BlockEdits(tokens=tokens), tokens=tokens)


@both
def test_tokens_after_pooled_keys(encoder, x, index):
    tokens = deterministic.tensor("tokens", (2, 2, 32), -2, 2).double()

    check(encoder, index, x, BlockEdits(heads=pooled, tokens=tokens), pool=2, tokens=tokens)


@both
def test_tokens_in_all_attention_forms(index, x):
    outs = []
    for form in ("textbook", "folded", "striped"):
        block = tiny.base().double().image_encoder.blocks[index]
        block.attn.form = form
        tokens = deterministic.tensor("tokens", (2, 3, 32), -2, 2).double().requires_grad_()
        out = block(x, BlockEdits(tokens=tokens))
        outs.append((out, torch.autograd.grad(out.square().sum(), tokens)[0]))
    for out in outs[1:]:
        torch.testing.assert_close(outs[0][0], out[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(outs[0][1], out[1], rtol=1e-9, atol=1e-9)


@both
def test_attended_maps_the_projected_attention_before_the_residual(encoder, x, index):
    def twice(t):
        assert t.shape == x.shape
        return 2 * t.tanh()

    check(encoder, index, x, BlockEdits(attended=twice), attended=twice)


@both
def test_mlp_is_added_beside_the_mlp_from_the_same_normed_input(encoder, x, index):
    def beside(t):
        assert t.shape == x.shape
        return (t @ mix("beside", 32)).relu()

    check(encoder, index, x, BlockEdits(mlp=beside), beside=beside)


@both
@pytest.mark.parametrize(
    "name", ["norm1.bias", "norm2.weight", "attn.qkv.weight", "attn.qkv.bias", "attn.rel_pos_h"]
)
def test_params_stand_in_for_the_blocks_own(encoder, x, index, name):
    block = encoder.blocks[index]
    before = {key: t.clone() for key, t in block.state_dict().items()}
    own = dict(block.named_parameters())[name]
    new = deterministic.tensor(name, own.shape, -1, 1).double().requires_grad_()
    out = block(x, BlockEdits(params={name: new}))
    (grad,) = torch.autograd.grad(out.square().sum(), new)
    assert grad.abs().sum() > 0
    assert all(torch.equal(t, before[key]) for key, t in block.state_dict().items())
    assert dict(block.named_parameters())[name] is own
    replaced = tiny.base().double().image_encoder.blocks[index]
    replaced.load_state_dict({name: new.detach()}, strict=False)
    torch.testing.assert_close(out, replaced(x), rtol=0, atol=1e-12)


def test_params_may_be_relative_tables_of_another_size(encoder, x):
    block, table = encoder.blocks[GLOBAL], deterministic.tensor("t", (31, 16), -1, 1).double()
    out = block(x, BlockEdits(params={"attn.rel_pos_h": table}))
    shrunk = F.interpolate(table.T[None], 15, mode="linear")[0].T
    expected = block(x, BlockEdits(params={"attn.rel_pos_h": shrunk}))
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


def test_params_go_with_the_other_fields(encoder, x):
    bias = torch.ones(32, dtype=torch.float64)
    edits = BlockEdits(params={"norm2.bias": bias}, mlp=lambda t: t * 2)
    block = tiny.base().double().image_encoder.blocks[GLOBAL]
    block.norm2.bias.data.copy_(bias)
    expected = block(x, BlockEdits(mlp=lambda t: t * 2))
    torch.testing.assert_close(encoder.blocks[GLOBAL](x, edits), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["norm1.biass", "norm9.bias", "attn.qkv"])
def test_params_of_unknown_names_are_refused(encoder, x, name):
    with pytest.raises(ValueError, match=f"no parameter {name}"):
        encoder.blocks[0](x, BlockEdits(params={name: torch.zeros(32)}))


@pytest.mark.slow
@both
def test_all_fields_compile_in_one_graph(index):
    block = tiny.base().image_encoder.blocks[index]
    x = deterministic.tensor("x", (2, 8, 7, 32), -2, 2)
    edits = BlockEdits(
        qkv=lambda t: t.repeat(1, 1, 1, 3) * 0.1,
        heads=lambda q, k, v, grid: (q * 2, k, v, grid),
        tokens=deterministic.tensor("tokens", (2, 3, 32)),
        attended=torch.tanh,
        mlp=torch.sin,
        params={"norm1.bias": torch.ones(32)},
    )
    torch.compiler.reset()
    compiled = torch.compile(lambda x: block(x, edits), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), block(x, edits), rtol=1e-5, atol=1e-5)
