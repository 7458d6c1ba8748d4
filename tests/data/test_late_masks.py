"""Mask prompts of an evaluation, for which memory does not grow with the number of objects."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from samtune.data import DataConfig, SegmentationDataset, find_records
from samtune.data.collate import collate
from samtune.data.config import PromptConfig

SIZE = (48, 64)


@pytest.fixture
def records(tmp_path):
    """Two images with 130 and 3 objects, and one without any."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i, count in enumerate((130, 0, 3)):
        ids = np.zeros(SIZE, np.uint8)
        for k in range(count):
            y, x = divmod(k, 13)
            ids[4 * y : 4 * y + 3, 4 * x : 4 * x + 3] = k + 1
        Image.fromarray(np.full((*SIZE, 3), 9 * i, np.uint8)).save(tmp_path / f"images/{i}.png")
        Image.fromarray(ids).save(tmp_path / f"masks/{i}.png")
    return find_records(tmp_path)


@pytest.mark.parametrize("binary", [None, (8, 0.5)], ids=["plain", "binary"])
@pytest.mark.parametrize(
    "mode", ["mask", "noisy_mask", ["noisy_mask", "jittered_box", "mask", "point"]], ids=str
)
def test_masks_are_those_that_are_drawn_at_once_and_take_no_memory_before(records, mode, binary):
    config = PromptConfig(eval=mode, binary_masks=binary)
    data = DataConfig(root=".", masks="instance", cache=0)
    dataset = SegmentationDataset(records, data, (64, 64), mask_size=(32, 32), prompts=config)
    whole = collate([dataset[i] for i in range(3)])
    late = collate([dataset.with_object_maps()[i] for i in range(3)])
    assert late.prompts.masks is None and whole.prompts.masks is not None
    assert late.prompts.kinds() == whole.prompts.kinds()
    assert torch.equal(late.prompts.mask_flags(), whole.prompts.mask_flags())
    assert torch.equal(late.prompts.coords, whole.prompts.coords)
    parts = [late.part(slice(k, min(k + 50, 133))) for k in range(0, 133, 50)]
    masks = torch.cat([part.prompts.masks for part in parts])
    assert torch.equal(masks, whole.prompts.masks)
    expected = whole.prompts.only(torch.arange(100, 133))
    assert parts[-1].prompts.kinds() == expected.kinds()
    assert replace(parts[-1].prompts, has_mask=None).masks.shape == (33, 1, 32, 32)
