"""Resampled positions: bit-equal at the native size, the official indexing at any other."""

import pytest
import torch
import torch.nn.functional as F

from samtune.ops import resize


def official(table, queries, keys):
    """SAM's ``get_rel_pos``, entry by entry."""
    length = int(2 * max(queries, keys) - 1)
    if table.shape[0] != length:
        row = table.reshape(1, table.shape[0], -1).permute(0, 2, 1)
        table = F.interpolate(row, size=length, mode="linear").reshape(-1, length).permute(1, 0)
    out = torch.empty(queries, keys, table.shape[1], dtype=table.dtype)
    for i in range(queries):
        for j in range(keys):
            place = i * max(keys / queries, 1.0) - j * max(queries / keys, 1.0)
            place += (keys - 1) * max(queries / keys, 1.0)
            out[i, j] = table[int(place + 1e-4)]
    return out


@pytest.mark.parametrize(
    ("rows", "queries", "keys"),
    [
        (15, 8, 8),  # native
        (27, 14, 14),
        (15, 5, 5),  # smaller
        (15, 11, 11),  # larger
        (15, 8, 4),  # pooled keys
        (5, 9, 3),
        (27, 4, 14),  # more keys than queries
        (7, 6, 4),  # a ratio that is not whole
        (1, 1, 1),
    ],
)
def test_relative_positions_are_indexed_as_in_the_official_code(rows, queries, keys):
    table = torch.randn(rows, 6)
    out = resize.relative(table, queries, keys)
    assert out.shape == (queries, keys, 6)
    assert torch.equal(out, official(table, queries, keys))


def test_relative_positions_at_the_native_size_depend_on_the_distance_alone():
    table = torch.randn(15, 4)
    out = resize.relative(table, 8, 8)
    assert torch.equal(out[3, 3], table[7])
    assert torch.equal(out[7, 0], table[14]) and torch.equal(out[0, 7], table[0])
    assert torch.equal(out[1:, 1:], out[:-1, :-1])


def test_relative_positions_pass_gradients_to_the_table():
    table = torch.randn(15, 4, requires_grad=True)
    resize.relative(table, 5, 5).sum().backward()
    assert table.grad is not None and (table.grad.abs().sum(1) > 0).sum() >= 9


def test_positions_at_the_native_size_are_the_same_bits():
    table = torch.randn(1, 8, 6, 5)
    assert resize.positions(table, (8, 6)) is table


@pytest.mark.parametrize("grid", [(8, 8), (6, 11), (3, 2), (1, 1), (16, 12)])
def test_positions_are_bilinear(grid):
    """A plane stays the same plane between the outermost cell centres."""
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(6.0), indexing="ij")
    table = torch.stack([2 * y - 3 * x, torch.full_like(x, 7)], -1)[None]
    out = resize.positions(table, grid)
    assert out.shape == (1, *grid, 2)
    new_y = ((torch.arange(grid[0]) + 0.5) * 8 / grid[0] - 0.5).clamp(0, 7)
    new_x = ((torch.arange(grid[1]) + 0.5) * 6 / grid[1] - 0.5).clamp(0, 5)
    expected = 2 * new_y[:, None] - 3 * new_x[None]
    torch.testing.assert_close(out[0, ..., 0], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(out[0, ..., 1], torch.full(grid, 7.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_type_is_kept(dtype):
    assert resize.positions(torch.randn(1, 4, 4, 2).to(dtype), (3, 5)).dtype == dtype
    assert resize.relative(torch.randn(7, 2).to(dtype), 3, 3).dtype == dtype
