import tracemalloc

import torch

from samtune.metrics import packed
from samtune.metrics.packed import PackedMasks


def test_masks_come_back_as_they_were_and_do_not_stay_in_memory(monkeypatch):
    monkeypatch.setattr(packed, "IN_MEMORY", 2**14)
    noise = torch.rand(60, 120, 90, generator=torch.Generator().manual_seed(0)) > 0.5
    noise[7], noise[:, :3], noise[9, 20:] = False, False, False
    masks = PackedMasks((120, 90))
    masks.extend(noise[:20])
    assert torch.equal(masks[5:12], noise[5:12])
    tracemalloc.start()
    masks.extend(noise[20:])
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 2**15 < 40 * 120 * 90 / 8  # the bits of what was added
    assert masks.shape == noise.shape and torch.equal(masks[:], noise)
    assert torch.equal(masks[58:90], noise[58:]) and not len(masks[60:])
