"""The forms of attention agree, and all are what a loop over queries and keys gives."""

import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from samtune.ops import attention, resize

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
    monkeypatch.setattr(attention, "STRIPE", 350)


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
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_stripes_that_are_computed_again_have_the_gradients_of_the_textbook(half, outer):
    """In autocast, and within a block that is computed again itself."""
    given = inputs("wide", torch.float32)

    def gradients(form: str) -> list[torch.Tensor]:
        def block(*tensors):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                q, k, v = (t * 0.5 if not half else (t * 0.5).bfloat16() for t in tensors[:3])
                return run("wide", form, q, k, v, *tensors[3:]).float()

        out = checkpoint(block, *given, use_reentrant=False) if outer else block(*given)
        return [out, *torch.autograd.grad(out.square().sum(), given)]

    tolerance = 0.05 if half else 1e-5
    for seen, wanted in zip(gradients("striped"), gradients("textbook"), strict=True):
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


@pytest.mark.parametrize(
    ("side", "here", "there"), [(31, "textbook", "textbook"), (32, "striped", "folded")]
)
def test_auto_stripes_on_the_cpu_and_folds_elsewhere(monkeypatch, side, here, there):
    called = []
    for form in FORMS:
        stub = lambda q, *rest, form=form: called.append(form) or q  # noqa: E731
        monkeypatch.setattr(attention, "_" + form, stub)
    q = torch.zeros(1, 1, side * side, 2)
    rel = torch.zeros(side, side, 2, requires_grad=True)
    attention.attend(q, q, q, rel, rel)
    with torch.no_grad():
        attention.attend(q, q, q, rel, rel)
    attention.attend(q, q, q, rel.detach(), rel.detach())
    elsewhere = q.to("meta"), rel.detach().to("meta")
    attention.attend(*elsewhere[:1] * 3, *elsewhere[1:] * 2)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    attention.attend(q, q, q, rel, rel)
    assert called == [here, "striped", "striped", there, there]


def test_a_stripe_is_narrow(monkeypatch):
    """However large the grid, the bias of one stripe is all that is there of ``N x N``."""
    monkeypatch.setattr(attention, "STRIPE", 3 * 20 * 400)
    sizes, bias = [], attention._bias
    monkeypatch.setattr(
        attention, "_bias", lambda *given: (sizes.append(bias(*given).numel()), bias(*given))[1]
    )
    q = torch.randn(1, 1, 400, 8)
    rel = torch.randn(20, 20, 8)
    attention.attend(q, q, q, rel, rel)
    assert sizes == [3 * 20 * 400] * 6 + [2 * 20 * 400]


def test_only_the_textbook_stores_a_score_matrix():
    """Nothing of ``queries x keys`` is kept for the backward pass."""
    side = 40
    q, k, v = (torch.randn(1, 1, side * side, 8, requires_grad=True) for _ in range(3))
    rel = torch.randn(side, side, 8)
    largest = {}
    for form in FORMS:
        sizes = []

        def keep(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            attention.attend(q, k, v, rel, rel, form=form)
        largest[form] = max(sizes)
    assert largest["textbook"] >= side**4
    assert largest["folded"] < side**4 / 10 and largest["striped"] < side**4 / 10
