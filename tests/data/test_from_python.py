"""Samples of Python code: arrays, tensors, pictures and data sets of torch, as a data set."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

import samtune
from samtune.data.loading import batches

H, W = 48, 64


def arrays(count=4):
    """Bright squares on dark noise: images ``(n, h, w, 3)`` and masks ``(n, h, w)``, both bytes."""
    rng = np.random.default_rng(0)
    images = rng.integers(1, 90, (count, H, W, 3), np.uint8)
    masks = np.zeros((count, H, W), np.uint8)
    masks[:, 10:30, 12:40] = 1
    return images + 120 * masks[..., None], masks


IMAGES, MASKS = arrays()
FLOATS = torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255


class Random(Dataset):
    """Another shade of grey at each call, the same in image and mask."""

    def __init__(self):
        self.calls = 0

    def __len__(self):
        return 3

    def __getitem__(self, index):
        self.calls += 1
        shade = np.full((H, W), 10 * self.calls, np.uint8)
        mask = np.zeros((H, W), np.int64)
        mask.flat[: self.calls] = 1
        return shade, mask


def same(split, image=IMAGES[1], mask=MASKS[1]):
    first = split[1]
    np.testing.assert_array_equal(first.image, image)
    np.testing.assert_array_equal(first.mask > 0, mask > 0)


@pytest.mark.parametrize(
    "samples",
    [
        (IMAGES, MASKS),
        (list(IMAGES), [Image.fromarray(255 * mask) for mask in MASKS]),
        (torch.from_numpy(IMAGES).permute(0, 3, 1, 2), torch.from_numpy(MASKS).bool()),
        (FLOATS, torch.from_numpy(MASKS)[:, None].float()),
        [{"image": Image.fromarray(i), "mask": m.astype(bool)[..., None], "x": 1}
         for i, m in zip(IMAGES, MASKS, strict=True)],
        [(i, {"masks": torch.from_numpy(m)[None].bool(), "labels": torch.zeros(1)})
         for i, m in zip(IMAGES, MASKS, strict=True)],
    ],
    ids=["arrays", "lists", "tensors", "floats", "dictionaries", "targets"],
)  # fmt: skip
def test_all_forms_are_one_data_set(samples):
    data = samtune.data_from(samples, samples)
    assert data.counts == {"train": 4, "val": 4, "test": 0}
    same(data.train)
    assert data.check().ok


def test_a_split_alone_is_divided_as_a_folder_is():
    data = samtune.data_from((IMAGES, MASKS), names=["d", "a", "b", "c"])
    assert data.counts == {"train": 2, "val": 1, "test": 1} and data.carved == ("val", "test")
    assert sorted(data.train.names + data.val.names + data.test.names) == ["a", "b", "c", "d"]
    assert "data: 4 images" in repr(data)


def test_paths_are_read_as_files(tmp_path):
    for i in range(2):
        Image.fromarray(IMAGES[i]).save(tmp_path / f"{i}.png")
        Image.fromarray(MASKS[i]).save(tmp_path / f"{i}_mask.png")
    pairs = [(tmp_path / f"{i}.png", str(tmp_path / f"{i}_mask.png")) for i in range(2)]
    data = samtune.data_from(pairs, pairs)
    same(data.train)
    assert data.train.names == ("0", "1")


def test_class_maps_and_instance_maps_keep_their_numbers():
    maps = MASKS.astype(np.int64) * 2
    maps[:, :3] = -1
    classes = samtune.data_from(
        (IMAGES, maps), (IMAGES, maps), masks="classes", classes=3, ignore=-1, background=0,
        class_names=("back", "road", "car"),
    )  # fmt: skip
    first = classes.train[0]
    assert first.classes.tolist() == [2] and not first.valid[:3].any() and first.valid[3:].all()
    assert classes.class_names == ("back", "road", "car")
    instances = samtune.data_from((IMAGES, maps + 1), masks="instance").train[0]
    assert len(instances.classes) == 2


def test_a_stack_is_one_object_for_each_mask():
    """Smaller ones lie over larger ones; an empty stack is an image without objects."""
    large, small = np.zeros((2, H, W), bool)
    large[5:40, 5:50], small[10:20, 10:20] = True, True
    samples = [
        {"image": IMAGES[0], "masks": np.stack([small, large]), "labels": [4, 1]},
        {"image": IMAGES[1], "masks": np.zeros((0, H, W), bool), "labels": []},
    ]
    train = samtune.data_from(samples, samples).train
    assert train.config.masks == "instance"
    first = train[0]
    assert first.classes.tolist() == [4, 1] and first.masks.sum((1, 2)).tolist() == [100, 1475]
    assert len(train[1].classes) == 0
    covered = {"image": IMAGES[0], "masks": np.stack([large, small, large, small & False])}
    said = {row.kind: row.what for row in samtune.data_from([covered], [covered]).check().remarks}
    assert "1 of 4 objects lie wholly under others" in said["covered object"]
    assert "1 of 4 objects lie outside or have no area" in said["draws nothing"]


def test_limits_say_what_is_black_and_white():
    deep = (IMAGES.astype(np.uint16) * 16)[..., 0]
    data = samtune.data_from((deep, MASKS), (deep, MASKS), limits=(0, 255 * 16))
    same(data.train, np.repeat(IMAGES[1][..., :1], 3, 2))
    floats = IMAGES.astype(np.float32)
    same(samtune.data_from((floats, MASKS), (floats, MASKS), limits=(0, 255)).train)


def test_image_and_mask_are_of_one_call_and_new_ones_each_time():
    samples = Random()
    train = samtune.data_from(samples, samples).train
    for _ in range(2):
        first = train[0]
        assert first.image[0, 0, 0] == 10 * samples.calls == 10 * (first.mask > 0).sum()


def test_it_trains_and_is_measured_with_every_prompt(sam, tmp_path):
    model = samtune.FineTuned(sam, "lora", "tuned", prompts="box+point+mask+none")
    data = samtune.data_from((IMAGES, MASKS), (FLOATS, MASKS), workers=1)
    quick = samtune.FitConfig(max_steps=1, strength="none", average="none", keep="none")
    samtune.fit(model, data, quick, device="cpu", output=tmp_path)
    many = samtune.evaluate(model, data.val, prompts="box,point,mask,none,clicks")
    assert list(many.by_prompt) == ["box", "point", "mask", "none", "clicks"]
    assert [item["name"] for item in many.items] == [f"val{i:05}" for i in range(4)]
    # the same without a data set around it
    samples = list(zip(IMAGES, MASKS, strict=True))
    alone = samtune.evaluate(model, samples)
    assert list(alone.by_prompt) == ["box", "point", "mask", "none"]
    assert alone.metrics["iou"] == pytest.approx(many.metrics["iou"], abs=1e-6)
    prepared = samtune.prepare(samples, model, train=True)
    again = pickle.loads(pickle.dumps(prepared))  # as workers that are spawned get it
    [one], [other] = (list(batches(each, 0, batch_size=4)) for each in (prepared, again))
    assert torch.equal(one.pixels, other.pixels) and torch.equal(one.targets, other.targets)


def test_problems_of_masks_name_settings_as_python_types_them(refused):
    image, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    mask[2:4], mask[5:7] = 5, 7
    data = samtune.data_from([(image, mask)] * 3)
    (remedy,) = {row.remedy for row in data.check().problems}
    assert "set masks=instance" in remedy and "masks=classes classes=K" in remedy
    refused("; set masks=instance", data.train.__getitem__, 0)


@pytest.mark.parametrize(
    ("samples", "settings", "words"),
    [
        (iter([]), {}, ["no len() and []", "list(...)"]),
        ([], {}, "has no sample"),
        ("folder", {}, ["train=folder", "samtune.open_data"]),
        ({"train": []}, {}, ["dictionary with 'train'", "data_from(sets['train']"]),
        ((IMAGES, MASKS[:3]), {}, "4 images and 3 masks"),
        ([(IMAGES[0],)], {}, ["train[0]", "1 values", "(image, mask)"]),
        ([{"pixel_values": 1, "label": 2}], {}, ["train[0]: has no 'image'", "label", "keys="]),
        ((IMAGES.astype(np.float32), MASKS), {}, ["train[0]", "floats from", "limits=(0, 255)"]),
        ((FLOATS * 4 - 2, MASKS), {}, ["train[0]", "do not normalise"]),
        ((IMAGES.astype(np.int64), MASKS), {}, ["int64", "uint8"]),
        ((IMAGES, MASKS[:, :9]), {}, ["train[0]", "9", "48"]),
        ((IMAGES, np.stack([MASKS] * 2, -1)), {}, ["48x64x2", "(n, h, w)"]),
        ((IMAGES, MASKS * 3), {}, ["train[0]", "not 0/1", "masks=instance"]),
        ((IMAGES, MASKS * 0.5), {}, ["train[0]", "fractions"]),
        ((IMAGES, np.stack([MASKS] * 3, 1)), {"masks": "classes", "classes": 2}, "argmax"),
        ((IMAGES, MASKS), {"masks": "clases"}, "masks=clases"),
        ((IMAGES, MASKS), {"root": "x"}, ["root", "of files"]),
        ((IMAGES, MASKS), {"names": ["a"] * 4}, "1 different names"),
        ((IMAGES, MASKS), {"limits": (1, 0)}, "low and the high"),
        ([("a.png", "b.png"), (1, 2)], {}, "train[1]"),
        (["a.png"], {}, "train[0]"),
        ([{"image": IMAGES[0], "masks": MASKS[:2], "labels": [1]}], {}, ["2 masks", "[1]"]),
    ],
)
def test_what_is_unclear_is_refused_with_the_sample(samples, settings, words, refused):
    def read():
        for each in samtune.data_from(samples, samples, **settings).train:
            assert each

    refused(words, read)


def test_an_error_of_ones_own_code_names_the_sample_and_its_cause():
    class Broken(Random):
        whole = True

        def __getitem__(self, index):
            if not self.whole:
                raise KeyError("lost")
            return super().__getitem__(index)

    samples = Broken()
    train = samtune.data_from(samples, samples).train
    samples.whole = False
    with pytest.raises(samtune.InputError, match=r"train\[1\].*lost") as caught:
        train[1]
    assert isinstance(caught.value.__cause__, KeyError)
