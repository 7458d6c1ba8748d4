"""Images that the device changes and resizes have the bytes of those that are loaded so."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from samtune.data import DataConfig, SegmentationDataset, collate, splits
from samtune.data.augmentations import AUGMENTATIONS, DrawnAugmentation
from samtune.data.late_images import are_late, resized_planes, takes_columns_first, why_not_late
from samtune.geometry import InputPolicy

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_the_resize_is_pillows_if_the_height_does_not_shrink_more_than_the_width():
    rng = np.random.default_rng(0)
    sizes = [((48, 64), each) for each in ((48, 31), (36, 48), (1, 1), (97, 64), (256, 256))]
    sizes += [tuple((int(a), int(b)) for a, b in rng.integers(1, 90, (2, 2))) for _ in range(60)]
    sizes += [((h, w), (round(h * f), round(w * f))) for h, w, f in ((75, 64, 0.3), (64, 75, 0.95))]
    compared = 0
    for source, size in sizes:
        image = rng.integers(0, 256, (*source, 3), np.uint8)
        image[::3] = 255 * (image[::3] > 127)  # what rounds to the ends of the range
        wanted = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
        planes = resized_planes(torch.from_numpy(image).permute(2, 0, 1), size)
        if takes_columns_first(source, size):
            compared += 1
            assert np.array_equal(planes.permute(1, 2, 0).numpy(), wanted), (source, size)
    assert 30 < compared < len(sizes)


FRAMES = [("longest", (96, 80)), ("stretch", (24, 80))]  # the second is fitted where it is loaded


@pytest.mark.parametrize(("resize", "frame"), FRAMES, ids=["longest", "stretch"])
def test_batches_of_the_device_are_those_of_the_loader(pairs, resize, frame):
    policy = InputPolicy(frame, resize, channels="bgr", mean=(1, 2, 3), std=(1, 1, 1))
    of_device = [
        name for name in AUGMENTATIONS if issubclass(AUGMENTATIONS[name], DrawnAugmentation)
    ]
    assert {"none", "flips", "standard"} <= set(of_device)
    for augment in of_device:
        data = DataConfig(root=str(pairs), augment=augment)
        loaded = SegmentationDataset(
            splits(data)["train"], data, (96, 80), train=True, input=policy
        )
        late = loaded.with_late_images(True)
        for epoch in range(3):
            loaded.set_epoch(epoch)
            one, other = (collate([d[i] for i in range(len(d))]) for d in (loaded, late))
            assert other.pixels.shape == (len(loaded), 3, 0, 0) and len(other.late) == len(loaded)
            assert other.of_images(range(1, 3)).to("cpu").pixels.equal(one.pixels[1:3])
            other = other.to("cpu")
            assert other.late == () and other.pixels.equal(one.pixels) and one.pixels.any()
            assert other.targets.equal(one.targets) and other.valid.equal(one.valid)
            assert other.prompts.coords.equal(one.prompts.coords)
            assert other.geometries == one.geometries


def test_only_images_that_nothing_else_must_see_are_late(pairs, refused):
    plain, policy = DataConfig(root=str(pairs)), InputPolicy((64, 64))
    assert are_late(plain, policy, GPU) and not are_late(plain, policy, CPU)
    assert are_late(replace(plain, augment_on="device"), policy, CPU)
    assert not are_late(replace(plain, augment_on="loader"), policy, GPU)
    others = {
        "data.crop": ({"crop": (0.5, 1.0)}, {}),
        "data.rotate": ({"rotate": 5.0}, {}),
        "data.augment=kyyle": ({"augment": "kyyle"}, {}),
        "data.redraw=published": ({"redraw": "published", "augment": "mirrors"}, {}),
        "input.tiles": ({}, {"tiles": "tiled"}),
        "input.antialias": ({}, {"antialias": False}),
    }
    for name, (of_data, of_input) in others.items():
        data, cut = replace(plain, **of_data), replace(policy, **of_input)
        assert why_not_late(data, cut).startswith(name) and not are_late(data, cut, GPU)
        line = refused(
            "data.augment_on=device", are_late, replace(data, augment_on="device"), cut, CPU
        )
        assert name in line
