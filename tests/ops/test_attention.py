"""The forms of attention agree, and all are what a loop over queries and keys gives."""

import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from samtune.ops import attention, relative, resize, stripes
from samtune.ops.folding import Folded, folded

CASES = {
    "square": ((4, 4), (4, 4), 0),
    "wide": ((3, 7), (3, 7), 0),
    "extra keys": ((4, 5), (4, 5), 3),
    "pooled keys": ((6, 9), (3, 3), 0),
    "pooled keys of an odd ratio, extra": ((8, 5), (3, 4), 2),
    "one token": ((1, 1), (1, 1), 1),
}


def inputs(case, dtype=torch.float64, b=3, heads=2, d=8):
    (h, w), (kh, kw), extra = CASES[case]
    q = torch.randn(b, heads, h * w, d, dtype=dtype)
    k, v = torch.randn(2, b, heads, kh * kw + extra, d, dtype=dtype)
    table_h = torch.randn(2 * max(h, kh) - 1, d, dtype=dtype)
    table_w = torch.randn(2 * max(w, kw) - 1, d, dtype=dtype)
    return [t.requires_grad_() for t in (q, k, v, table_h, table_w)]


def run(case, form, q, k, v, table_h, table_w):
    (h, w), (kh, kw), extra = CASES[case]
    rel_h, rel_w = resize.relative(table_h, h, kh), resize.relative(table_w, w, kw)
    return attention.attend(q, k, v, rel_h, rel_w, extra, form)


FORMS = ["textbook", "folded", "striped"]


@pytest.fixture(autouse=True)
def narrow_stripes(monkeypatch):
    """Few rows of queries at a time, so that these small grids have several stripes."""
    monkeypatch.setattr(stripes, "STRIPE", 350)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=["fp64", "fp32"]
)
def test_forms_agree_in_values_and_gradients(case, dtype, tolerance):
    given = inputs(case, dtype)
    results = []
    for form in FORMS:
        out = run(case, form, *given)
        weight = torch.linspace(-1, 1, out.numel(), dtype=dtype).reshape(out.shape)
        results.append([out, *torch.autograd.grad((out * weight).sum(), given)])
    for textbook, *others in zip(*results, strict=True):
        for other in others:
            torch.testing.assert_close(other, textbook, rtol=tolerance, atol=tolerance)
    tables = results[0][-2:]
    assert case == "one token" or all(t.abs().sum() > 0 for t in tables)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", ["wide", "extra keys", "pooled keys"])
def test_forms_are_the_published_sum(case, form):
    q, k, v, table_h, table_w = (t.detach() for t in inputs(case, b=1, heads=1, d=4))
    (h, w), (kh, kw), extra = CASES[case]
    rel_h, rel_w = resize.relative(table_h, h, kh), resize.relative(table_w, w, kw)
    out = run(case, form, q, k, v, table_h, table_w)[0, 0]
    for i in range(h * w):
        y, x = divmod(i, w)
        query = q[0, 0, i]
        scores = []
        for j in range(kh * kw + extra):
            score = query @ k[0, 0, j] / math.sqrt(4)
            if j < kh * kw:
                score = score + query @ rel_h[y, j // kw] + query @ rel_w[x, j % kw]
            scores.append(score)
        expected = torch.stack(scores).softmax(0) @ v[0, 0]
        torch.testing.assert_close(out[i], expected, rtol=1e-12, atol=1e-12)


def test_gradients_of_all_forms_are_the_numerical_ones():
    given = inputs("extra keys", b=1, heads=1, d=3)
    for form in FORMS:
        assert torch.autograd.gradcheck(lambda *t, f=form: run("extra keys", f, *t), given)


@pytest.mark.parametrize("outer", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize(
    ("half", "units"),
    [(False, False), (True, False), (True, True)],
    ids=["fp32", "bf16 and a bias", "bf16 and wide products"],
)
def test_what_is_computed_again_has_the_gradients_of_the_textbook(half, units, outer, monkeypatch):
    """In autocast, on a CPU with matrix units or without, and in a block computed again itself."""
    monkeypatch.setattr(stripes, "FEW", 0)
    monkeypatch.setattr(stripes, "has_matrix_units", lambda: units)
    given = inputs("wide", torch.float32)

    def gradients(form: str) -> list[torch.Tensor]:
        def block(*tensors):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                q, k, v = (t * 0.5 if not half else (t * 0.5).bfloat16() for t in tensors[:3])
                return run("wide", form, q, k, v, *tensors[3:]).float()

        out = checkpoint(block, *given, use_reentrant=False) if outer else block(*given)
        return [out, *torch.autograd.grad(out.square().sum(), given)]

    tolerance, textbook = 0.05 if half else 1e-5, gradients("textbook")
    for form in ("striped", "folded"):
        for seen, wanted in zip(gradients(form), textbook, strict=True):
            assert (seen - wanted).norm() < tolerance * wanted.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_type_and_the_tables_stay_float32(dtype):
    q, k, v, *tables = (t.detach() for t in inputs("extra keys", torch.float32))
    exact = run("extra keys", "textbook", q, k, v, *tables)
    for form in FORMS:
        out = run("extra keys", form, q.to(dtype), k.to(dtype), v.to(dtype), *tables)
        assert out.dtype == dtype
        torch.testing.assert_close(out.float(), exact, rtol=0.1, atol=0.1)


def test_without_positions_it_is_plain_attention():
    q, k, v, *_ = inputs("extra keys")
    expected = ((q @ k.mT) / math.sqrt(8)).softmax(-1) @ v
    torch.testing.assert_close(attention.attend(q, k, v, None, None), expected)


def test_auto_stripes_on_the_cpu_and_folds_large_grids_elsewhere(monkeypatch):
    def forms(tokens: int) -> list[str]:
        here, there = torch.zeros(1, 1, tokens, 2), torch.zeros(1, 1, tokens, 2, device="meta")
        return [attention._best_form(q, needed) for q in (here, there) for needed in (True, False)]

    assert forms(64) == ["textbook", "striped", "striped", "textbook"]
    assert forms(196) == ["striped", "striped", "striped", "textbook"]
    assert forms(1024) == ["striped", "striped", "folded", "folded"]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert forms(196) == ["textbook"] * 4 and forms(1024) == ["folded"] * 4


def test_a_stripe_is_narrow(monkeypatch):
    """However large the grid, the bias of one stripe is all that is there of ``N x N``."""
    monkeypatch.setattr(stripes, "STRIPE", 3 * 20 * 400)
    sizes, spread = [], relative.spread
    monkeypatch.setattr(
        relative, "spread", lambda *given: (sizes.append(spread(*given).numel()), spread(*given))[1]
    )
    q = torch.randn(1, 1, 400, 8)
    rel = torch.randn(20, 20, 8)
    attention.attend(q, q, q, rel, rel)
    assert sizes == [3 * 20 * 400] * 6 + [2 * 20 * 400]


def test_only_the_textbook_stores_scores_and_the_others_no_more_than_their_inputs():
    """Beside queries, keys and values, the fold keeps its answer and one number per query."""
    side, d = 40, 8
    q, k, v = (torch.randn(1, 1, side * side, d, requires_grad=True) for _ in range(3))
    rel = torch.randn(side, side, d)
    numbers = {}
    for form in FORMS:
        storages = {}

        def keep(tensor, storages=storages):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            attention.attend(q, k, v, rel, rel, form=form)
        numbers[form] = sum(storages.values())
    inputs = 3 * q.numel() + rel.numel()
    assert numbers["textbook"] >= side**4
    assert numbers["striped"] == inputs
    assert numbers["folded"] == inputs + q.numel() + side**2


@pytest.mark.parametrize("backend", ["MATH", "FLASH_ATTENTION"])
def test_the_fold_takes_the_gradient_of_the_kernel_itself(backend):
    """Bit for bit that of the kernel's own graph, whichever kernel, also a second time."""
    kernel = getattr(torch.nn.attention.SDPBackend, backend)
    given = inputs("pooled keys", torch.float32)
    (h, w), (kh, kw), extra = CASES["pooled keys"]
    q, k, v, table_h, table_w = given
    rel = resize.relative(table_h, h, kh), resize.relative(table_w, w, kw)
    with torch.nn.attention.sdpa_kernel(kernel):
        kept, plain = (fold(q, k, v, *rel, extra) for fold in (Folded.apply, folded))
    assert torch.equal(kept, plain)
    weight = torch.randn_like(plain)
    wanted = torch.autograd.grad((plain * weight).sum(), given, retain_graph=True)
    for _ in range(2):
        seen = torch.autograd.grad((kept * weight).sum(), given, retain_graph=True)
        assert all(map(torch.equal, seen[1:3], wanted[1:3]))
        torch.testing.assert_close(seen, wanted)
