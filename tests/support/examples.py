"""Examples and batches, compared value by value."""

from dataclasses import fields

import torch

from samtune.prompts import Prompts


def same(first, second):
    for field in fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(a, Prompts):
            assert same(a, b) is None
        elif isinstance(a, torch.Tensor):
            assert torch.equal(a, b), field.name
        elif isinstance(a, tuple):
            assert len(a) == len(b)
            pairs = zip(a, b, strict=True)
            assert all(
                torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs
            )
        else:
            assert a == b, field.name
