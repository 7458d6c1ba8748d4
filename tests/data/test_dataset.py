from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from examples import same
from torch.utils.data import DataLoader

from samtune.data import DataConfig, PromptConfig, SegmentationDataset, collate, find_records, scan
from samtune.prompts import POSITIVE

SIZE, MASK = (32, 32), (16, 16)


@pytest.fixture
def instances(make_pairs):
    """Four images of six instances each, and a fifth with none."""
    mask = np.zeros((24, 30), np.uint16)
    for k in range(6):
        mask[2 + 10 * (k % 2) : 9 + 10 * (k % 2), 1 + 10 * (k // 2) : 8 + 10 * (k // 2)] = 300 + k
    make_pairs(["a", "b", "c", "d"], mask=mask, size=(24, 30))
    return make_pairs(["empty"], mask=np.zeros((24, 30), np.uint16), size=(24, 30))


CONFIG = DataConfig(masks="instance")


def dataset(root, **changes):
    options = {"data": CONFIG, "size": SIZE, "mask_size": MASK, "train": True, **changes}
    return SegmentationDataset(find_records(root), **options)


@pytest.mark.parametrize("mode", ["box", "point", "mask", "none", "mixed", ["box", "none"]])
@pytest.mark.parametrize("train", [True, False])
def test_examples_hold_together(instances, mode, train):
    data = dataset(instances, mode=mode, train=train)
    for i in range(len(data)):
        example = data[i]
        n = len(example.prompts)
        assert example.pixels.shape == (3, *SIZE)
        assert example.pixels.dtype == torch.uint8
        assert example.targets.shape == (n, *SIZE)
        assert example.targets.dtype == torch.bool
        assert example.classes.shape == (n,)
        assert example.valid.shape == SIZE
        assert not (example.targets & ~example.valid).any()
        assert (example.original is None) == train
        if not train:
            assert example.original.shape == (n, 24, 30)
            assert example.original_valid.shape == (24, 30)


def test_boxes_surround_their_targets(instances):
    for example in (dataset(instances, train=False)[i] for i in range(4)):
        for box, target in zip(example.prompts.boxes(), example.targets, strict=True):
            ys, xs = torch.nonzero(target, as_tuple=True)
            tight = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            assert (box - tight).abs().max() <= 1


def test_points_follow_their_targets_through_augmentation(instances):
    # the frame is the image's size and square, so no rounding stands between point and target
    data = dataset(instances, mode="point", size=(30, 30), data=replace(CONFIG, augment="flips"))
    seen = 0
    for epoch in range(4):
        data.set_epoch(epoch)
        for example in (data[i] for i in range(len(data))):
            for (x, y), target in zip(
                example.prompts.coords[:, 0].long(), example.targets, strict=True
            ):
                assert target[y, x]
                seen += 1
    assert seen > 60


def test_mixed_prompts_match_their_targets(instances):
    example = dataset(instances, mode="mixed", data=replace(CONFIG, augment="none"))[0]
    boxes = example.prompts.boxes()
    assert len(boxes) == 6
    flags = example.prompts.mask_flags()
    for box, target, mask, flag in zip(
        boxes, example.targets, example.prompts.masks, flags, strict=True
    ):
        centre = torch.nonzero(target).float().mean(0).flip(0)
        if not box.isnan().any():
            assert ((box[:2] + box[2:]) / 2 - centre).abs().max() < 3
        if flag:
            y, x = divmod(int(mask[0].argmax()), MASK[1])
            assert (torch.tensor([x, y]) * 2 - centre).abs().max() < 6


def test_points_on_the_background_have_empty_targets(instances, refused):
    plain = dataset(instances, train=True, mode=["box", "point"])
    prompts = PromptConfig(train=["box", "point"], background_points=5)
    data = replace(plain.data, ignore=302)
    asked = dataset(
        instances, train=True, mode=["box", "point"], prompts=prompts, data=data
    ).with_originals()
    for index in range(len(asked)):
        example, alone = asked[index], plain[index]
        count = len(example.prompts) - 5
        assert not example.targets[count:].any() and not example.original[count:].any()
        assert len(example.targets) == len(example.original) == len(example.classes) == count + 5
        assert (example.prompts.labels[count:] == POSITIVE).sum(1).tolist() == [1] * 5
        sample = example.geometry.to_original(example.prompts.coords[count:, 0]).round().long()
        everything = example.original.any(0)
        assert not everything[sample[:, 1], sample[:, 0]].any()
        assert example.original_valid[sample[:, 1], sample[:, 0]].all()
        assert torch.equal(example.pixels, alone.pixels), "all else is drawn as without them"
    measured = dataset(instances, train=False, mode="point", prompts=prompts)
    assert len(measured[0].prompts) == 6, "an evaluation asks for objects alone"
    refused("train=box,point", PromptConfig, train="box", background_points=1)


def test_none_asks_once_for_everything(instances):
    for example in (dataset(instances, mode="none", train=False)[i] for i in range(5)):
        assert len(example.prompts) == 1
        assert example.prompts.coords.shape == (1, 0, 2)
        assert int(example.original.sum()) == (0 if example.name == "empty" else 6 * 49)


def test_list_with_none_draws_per_image(instances):
    data = dataset(instances, mode=["box", "none"], data=replace(CONFIG, augment="none"))
    counts = set()
    for epoch in range(12):
        data.set_epoch(epoch)
        counts.add(len(data[0].prompts))
    assert counts == {1, 6}


def test_many_objects_are_drawn_in_training_and_all_evaluated(instances):
    few = PromptConfig(max_objects=2)
    assert len(dataset(instances, prompts=few, train=False)[0].prompts) == 6
    data = dataset(instances, prompts=few, data=replace(CONFIG, augment="none"))
    drawn = set()
    for epoch in range(30):
        data.set_epoch(epoch)
        example = data[0]
        assert len(example.prompts) == 2
        drawn |= {tuple(t.nonzero()[0].tolist()) for t in example.targets}
    assert len(drawn) == 6


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("background", [None, 0])
def test_none_over_classes_asks_for_their_map(make_pairs, train, background):
    mask = np.zeros((12, 16), np.uint8)
    mask[:6], mask[:, 10:], mask[11] = 1, 2, 9
    root = make_pairs(["a"], mask=mask)
    config = DataConfig(
        masks="classes", classes=3, ignore=9, background=background, augment="none", min_area=1
    )
    example = dataset(root, data=config, mode="none", train=train)[0]
    assert len(example.prompts) == 1 and example.prompts.coords.shape[1] == 0
    assert example.targets.dtype == torch.int64 and example.targets.shape == (1, *SIZE)
    content = example.targets[0, : example.geometry.resized[0], : example.geometry.resized[1]]
    there = example.valid[: example.geometry.resized[0], : example.geometry.resized[1]]
    assert set(content[there].tolist()) == {0, 1, 2}
    assert not example.valid[example.geometry.resized[0] :].any()
    if not train:
        assert torch.equal(example.original_valid, torch.from_numpy(mask != 9))
        assert torch.equal(
            example.original[0][example.original_valid],
            torch.from_numpy(mask[:11]).long().flatten(),
        )


def test_pixels_without_a_class_are_background_or_not_valid(make_pairs):
    mask = np.ones((12, 16), np.uint8)
    mask[0, 0] = 2  # one pixel, under min_area
    root = make_pairs(["a"], mask=mask)
    config = DataConfig(masks="classes", classes=3, min_area=2)
    example = dataset(root, data=config, mode="none", train=False)[0]
    assert not example.original_valid[0, 0] and int(example.original_valid.sum()) == 12 * 16 - 1
    with_background = replace(config, background=0)
    example = dataset(root, data=with_background, mode="none", train=False)[0]
    assert example.original_valid.all() and int(example.original[0, 0, 0]) == 0


def test_class_objects_and_ignored_pixels(make_pairs):
    mask = np.zeros((12, 16), np.uint8)
    mask[:, 8:], mask[:2] = 2, 11
    root = make_pairs(["a"], mask=mask)
    config = DataConfig(masks="classes", classes=3, ignore=11)
    example = dataset(root, data=config, train=False, size=(16, 16))[0]
    assert example.classes.tolist() == [0, 2]
    assert example.valid.sum() == 10 * 16
    assert example.original_valid.sum() == 10 * 16


def test_examples_depend_on_seed_epoch_and_index_alone(instances):
    data = dataset(instances, mode="mixed")
    first = data[1]
    data[0], data[3]
    torch.manual_seed(9)
    np.random.default_rng(1).random()
    same(data[1], first)
    same(dataset(instances, mode="mixed", data=replace(CONFIG, cache=0))[1], first)
    data.set_epoch(1)
    second = data[1]
    assert not torch.equal(second.pixels, first.pixels)
    assert not torch.equal(dataset(instances, mode="mixed", seed=1)[1].pixels, first.pixels)
    data.set_epoch(0)
    same(data[1], first)


@pytest.mark.parametrize("crop", [(0.1, 1.0), (16.0, 24.0)])
def test_training_sees_parts_and_evaluation_the_whole(instances, crop):
    config = replace(CONFIG, crop=crop, rotate=45.0, augment="hflip")
    frame = (16, 24) if crop[0] > 1 else SIZE
    data, asked = dataset(instances, data=config, mode="mixed"), 0
    for epoch in range(8):
        data.set_epoch(epoch)
        for i in range(4):
            example = data[i]
            n = len(example.prompts)
            assert example.pixels.shape == (3, *frame) and example.valid.shape == frame
            assert n and example.targets.shape == (n, *frame)
            asked += n
    assert 4 * 8 < asked < 6 * 4 * 8
    options = {"mode": "mixed", "train": False}
    same(dataset(instances, data=config, **options)[0], dataset(instances, **options)[0])


def test_a_part_without_an_object_has_no_prompt_and_an_empty_target(instances):
    config = replace(CONFIG, crop=(0.1, 1.0))
    example = dataset(instances, data=config, mode="box")[4]
    assert len(example.prompts) == 1 and example.prompts.coords.shape[1] == 0
    assert example.targets.shape == (1, *SIZE) and not example.targets.any()
    assert len(dataset(instances, mode="box")[4].prompts) == 0


def test_draws_of_the_first_epoch_can_be_kept(instances):
    data = dataset(instances, data=replace(CONFIG, augment="mirrors", crop=(0.1, 1), redraw=False))
    before = [data[i] for i in range(len(data))]
    data.set_epoch(7)
    for i, example in enumerate(before):
        same(example, data[i])


def test_what_a_crop_parts_becomes_two_objects(make_pairs):
    mask = np.zeros((60, 60), np.uint8)
    mask[:, 10:20] = mask[:, 40:50] = mask[50:, :] = 255  # a U, apart in its upper part
    root = make_pairs(["u"], mask=mask, size=mask.shape)
    config = DataConfig(objects="component", augment="none", crop=(0.5, 0.5))
    data = dataset(root, data=config, size=(60, 60))
    counts = set()
    for epoch in range(20):
        data.set_epoch(epoch)
        example = data[0]
        counts.add(len(example.prompts))
        for target in example.targets.numpy():
            assert cv2.connectedComponents(target.astype(np.uint8), connectivity=8)[0] == 2
    assert counts == {1, 2}


def test_small_parts_of_the_largest_object_are_not_asked_for(make_pairs):
    mask = np.zeros((64, 64), np.uint8)
    mask[:20, :20], mask[30:32, 30:32], mask[40:41, 40:44] = 255, 255, 255  # 400, 4, 4 pixels
    mask[50, 50] = mask[51, 51] = 255  # one over 8 neighbours, two over 4
    root = make_pairs(["u"], mask=mask, size=mask.shape)

    def asked(train, **settings):
        config = DataConfig(objects="component", augment="none", **settings)
        return len(dataset(root, data=config, size=(64, 64), train=train)[0].prompts)

    for train in (True, False):
        assert asked(train) == 4
        assert asked(train, connectivity=4) == 5
        assert asked(train, min_area_fraction=0.009) == 3  # above 3.6 pixels
        assert asked(train, min_area_fraction=0.01) == 1  # above 4


def test_one_kind_of_prompt_for_all_objects_of_an_image(instances):
    prompts = PromptConfig(train=["box", "mask"], one_kind=True)
    data, found = dataset(instances, prompts=prompts), set()
    for epoch in range(8):
        data.set_epoch(epoch)
        masked = data[0].prompts.has_mask
        found.add(None if masked is None else tuple(masked.unique().tolist()))
    assert len(found) == 2
    assert (False, True) not in found


def test_the_same_prompts_in_another_frame(instances):
    data = dataset(instances, mode="box", train=False)
    assert data.in_frame(SIZE, MASK) is data
    first, other = data[0], data.in_frame((48, 64), (12, 16))[0]
    assert other.pixels.shape == (3, 48, 64)
    back = [e.geometry.to_original(e.prompts.coords) for e in (first, other)]
    torch.testing.assert_close(*back)
    assert torch.equal(first.original, other.original)


def test_evaluation_is_the_same_each_epoch(instances):
    data = dataset(instances, mode="mixed", train=False)
    first = data[0]
    data.set_epoch(7)
    same(data[0], first)


def test_worker_count_makes_no_difference(instances):
    data = dataset(instances, mode="mixed")
    for workers in (1, 2):
        loader = DataLoader(
            data, batch_size=2, num_workers=workers, collate_fn=collate, persistent_workers=True
        )
        for epoch in range(2):
            data.set_epoch(epoch)
            batches = list(loader)
            for i, batch in enumerate(batches):
                same(batch, collate([data[j] for j in range(2 * i, min(2 * i + 2, 5))]))


def test_cache_is_bounded(instances):
    one = dataset(instances).sample(0).nbytes
    data = dataset(instances, data=replace(CONFIG, cache=2 * one))
    samples = [data.sample(i) for i in range(5)]
    assert [data.sample(i) is samples[i] for i in range(5)] == [True, True, False, False, False]


def test_end_of_the_data(instances):
    data = dataset(instances)
    assert len(data) == 5
    with pytest.raises(IndexError):
        data[5]


def test_refused_data_sets(instances, refused):
    records = find_records(instances)
    refused("empty", SegmentationDataset, [], CONFIG, SIZE)
    classes = DataConfig(masks="classes", classes=3)
    words = ["prompts.eval=box,none", "3 classes", "semantic"]
    refused(words, SegmentationDataset, records, classes, SIZE, mode=["box", "none"])
    SegmentationDataset(records, replace(classes, classes=1), SIZE, mode=["box", "none"])
    refused(["train=boxes", "box"], PromptConfig, train="boxes")


def test_scan_counts(instances, make_pairs):
    summary = scan(find_records(instances), CONFIG)
    assert (summary.images, summary.objects, summary.empty) == (5, 24, 1)
    assert (summary.smallest, summary.largest) == ((24, 30), (24, 30))
    assert summary.class_objects == {0: 24}
    assert summary.most_objects == 6
    mask = np.zeros((12, 16), np.uint8)
    mask[:, 8:], mask[:3] = 2, 9
    root = make_pairs(["z"], "images", "masks", mask=mask, root=instances / "classes")
    summary = scan(find_records(root), DataConfig(masks="classes", classes=3, ignore=9))
    assert summary.class_objects == {0: 1, 2: 1}
    assert summary.ignored == 0.25


def test_scan_stops_at_the_first_bad_file(instances, save_image, make_blob, make_picture, refused):
    records = find_records(instances)
    save_image(instances / "masks" / "d.png", make_blob(24, 29))
    image = save_image(instances / "images" / "c.png", make_picture(24, 30))
    image.write_bytes(image.read_bytes()[:-400])
    refused([image, "cannot be read"], scan, records, CONFIG)
    save_image(instances / "masks" / "a.png", make_picture(24, 30))
    refused(["a.png", "coloured"], scan, records, CONFIG)
    refused("empty", scan, [], CONFIG)
