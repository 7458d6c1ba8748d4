"""Windows: cut and put back, in the official order, padded right and below."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from samtune.ops import windows

sides = st.integers(1, 12)


@settings(max_examples=60, deadline=None)
@given(b=st.integers(1, 3), h=sides, w=sides, size=st.integers(1, 7))
def test_merge_undoes_partition(b, h, w, size):
    x = torch.arange(b * h * w * 2.0).reshape(b, h, w, 2) + 1
    cut, (hp, wp) = windows.partition(x, size)
    assert hp % size == wp % size == 0 and 0 <= hp - h < size and 0 <= wp - w < size
    assert cut.shape == (b * (hp // size) * (wp // size), size, size, 2)
    assert cut.sum() == x.sum()  # the padding is zero and nothing is lost or doubled
    assert torch.equal(windows.merge(cut, (hp, wp), (h, w)), x)


def test_order_is_image_then_row_then_column():
    x = torch.arange(2 * 5 * 4.0).reshape(2, 5, 4, 1)
    cut, padded = windows.partition(x, 3)
    assert padded == (6, 6)
    k = 0
    for b in range(2):
        for top in (0, 3):
            for left in (0, 3):
                expected = torch.zeros(3, 3, 1)
                part = x[b, top : top + 3, left : left + 3]
                expected[: part.shape[0], : part.shape[1]] = part
                assert torch.equal(cut[k], expected)
                k += 1
    assert k == len(cut)
