import pytest
import torch

from samtune.data import Example, collate, fit_geometry
from samtune.prompts import ABSENT, Prompts


def example(count, prompts=None, name="x", evaluation=False):
    rng = torch.Generator().manual_seed(count)
    boxes = torch.rand(count, 4, generator=rng)
    return Example(
        pixels=torch.full((3, 8, 8), count, dtype=torch.uint8),
        prompts=Prompts.of(boxes=boxes) if prompts is None else prompts,
        targets=torch.rand(count, 8, 8, generator=rng) > 0.5,
        valid=torch.rand(8, 8, generator=rng) > 0.5,
        classes=torch.arange(count),
        geometry=fit_geometry((4, 2 + count), (8, 8)),
        name=f"{name}{count}",
        original=torch.ones(count, 4, 2 + count, dtype=torch.bool) if evaluation else None,
        original_valid=torch.ones(4, 2 + count, dtype=torch.bool) if evaluation else None,
    )


@pytest.mark.parametrize("counts", [(3, 0, 2), (0,), (0, 0), (1, 5)])
def test_ragged_prompts_become_flat(counts):
    examples = [example(n) for n in counts]
    batch = collate(examples)
    total = sum(counts)
    assert batch.prompts.image.tolist() == [i for i, n in enumerate(counts) for _ in range(n)]
    assert batch.prompts.coords.shape == (total, 2, 2)
    assert batch.targets.shape == (total, 8, 8)
    assert batch.classes.tolist() == [c for n in counts for c in range(n)]
    assert batch.pixels.shape == (len(counts), 3, 8, 8)
    assert batch.sizes.tolist() == [list(e.geometry.resized) for e in examples]
    assert batch.names == tuple(f"x{n}" for n in counts)
    assert batch.originals == batch.original_valid == ()
    for i, e in enumerate(examples):
        mine = batch.prompts.image == i
        assert torch.equal(batch.prompts.coords[mine], e.prompts.coords)
        assert torch.equal(batch.targets[mine], e.targets)
        assert torch.equal(batch.valid[i], e.valid)


def test_kinds_of_prompts_mix():
    masks = Prompts.of(masks=torch.ones(2, 1, 4, 4))
    points = Prompts.of(points=torch.ones(1, 3, 2), labels=torch.ones(1, 3))
    batch = collate([example(2, masks), example(1, points), example(1, Prompts.of(count=1))])
    assert batch.prompts.coords.shape == (4, 4, 2)
    assert batch.prompts.mask_flags().tolist() == [True, True, False, False]
    assert (batch.prompts.labels[[0, 1, 3]] == ABSENT).all()


def test_mask_prompts_without_objects_keep_their_shape():
    none = Prompts.of(masks=torch.zeros(0, 1, 4, 4))
    batch = collate([example(0, none), example(0, none)])
    assert batch.prompts.masks.shape == (0, 1, 4, 4)
    assert batch.targets.shape == (0, 8, 8)


def test_evaluation_keeps_the_originals():
    batch = collate([example(2, evaluation=True), example(0, evaluation=True)])
    assert [tuple(t.shape) for t in batch.originals] == [(2, 4, 4), (0, 4, 2)]
    assert [tuple(t.shape) for t in batch.original_valid] == [(4, 4), (4, 2)]


def test_nothing_to_join():
    with pytest.raises(ValueError, match="nothing to join"):
        collate([])
