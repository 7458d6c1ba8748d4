"""Dense targets: held to SciPy, pixel by pixel, and the same after every change of the image."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from samtune.data import DataConfig, PromptConfig, SegmentationDataset, collate, find_records
from samtune.data.dense_targets import NO_CLASS, distances, object_classes


def drawn(size: tuple[int, int] = (48, 64), count: int = 7) -> np.ndarray:
    """Discs that touch, overlap and reach out of the image; the last ones lie over the others."""
    rows, columns = np.indices(size)
    rng = np.random.default_rng(3)
    labels = np.zeros(size, np.uint8)
    for k in range(count):
        y, x, radius = rng.uniform((0, 0, 4), (*size, 14))
        labels[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = k + 1
    return labels


@pytest.mark.golden("instances")
def test_distances_are_those_of_scipy():
    labels = drawn()
    count = int(labels.max())
    maps = distances(labels, np.zeros(count, np.int64)).numpy()
    assert np.array_equal(maps[0], labels > 0)
    assert (maps[1:, labels == 0] == 1).all()
    assert len(np.unique(labels)) == count + 1
    for k in range(1, count + 1):
        inside = labels == k
        from_edge = ndimage.distance_transform_edt(inside)  # the image's edge is none
        np.testing.assert_allclose(
            maps[2][inside], 1 - (from_edge / from_edge.max())[inside], atol=1e-5
        )
        at = np.argwhere(inside)
        middle = at[((at - ndimage.center_of_mass(inside)) ** 2).sum(1).argmin()]
        point = np.ones(labels.shape, bool)
        point[tuple(middle)] = False
        to_centre = ndimage.distance_transform_edt(point)[inside]
        np.testing.assert_allclose(maps[1][inside], to_centre / to_centre.max(), atol=1e-5)


def test_objects_of_one_pixel_of_all_pixels_and_of_none():
    whole = distances(np.ones((5, 9), np.uint8), np.zeros(1, np.int64))
    assert (whole[0] == 1).all() and (whole[2] == 0).all()
    assert whole[1, 2, 4] == 0 and whole[1].max() == 1
    single = np.zeros((4, 4), np.int32)
    single[1, 2] = 2  # the first of the two objects has lost its pixels
    maps = distances(single, np.zeros(2, np.int64))
    assert maps[:, 1, 2].tolist() == [1, 0, 0]
    assert maps.isfinite().all()
    empty = distances(np.zeros((3, 3), np.uint8), np.zeros(0, np.int64))
    assert (empty[0] == 0).all() and (empty[1:] == 1).all()


def test_a_pixel_has_the_class_of_its_object():
    labels = np.array([[0, 1, 2], [2, 0, 3]], np.uint8)
    classes = object_classes(labels, np.array([4, 0, 4]))
    assert classes.dtype == torch.int64
    assert classes.tolist() == [[[NO_CLASS, 4, 0], [0, NO_CLASS, 4]]]


@pytest.mark.parametrize("mode", ["none", "box"])
def test_examples_have_them_after_every_change(tmp_path, mode):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i in range(2):
        labels = np.roll(drawn(), 9 * i, 1)
        labels[:4] = 9  # to be ignored
        Image.fromarray(labels * 9).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(labels).save(tmp_path / "masks" / f"{i}.png")
    data = DataConfig(root=str(tmp_path), masks="instance", ignore=9)
    plain = SegmentationDataset(
        find_records(tmp_path), data, (64, 64), train=True, prompts=PromptConfig(train=mode)
    )
    dataset = plain.with_dense_targets(("distances", "object_classes"))
    assert plain.with_dense_targets(()) is plain and not plain[0].dense
    batch = collate([dataset[0], dataset[1]]).to("cpu")
    maps = batch.dense["distances"]
    assert maps.shape == (2, 3, 64, 64) and batch.dense["object_classes"].shape == (2, 1, 64, 64)
    assert torch.equal((batch.dense["object_classes"] == 0)[..., :48, :], maps[:, :1, :48] > 0)
    for i in range(2):
        objects = batch.targets[batch.prompts.image == i].any(0)
        assert torch.equal(objects, maps[i, 0] > 0), "the same image, changed in the same way"
        assert not (objects & ~batch.valid[i]).any()
        # the image fills 48 of 64 rows: an object that it cuts off goes on there
        assert (maps[i, :, 48:] == 0).all()
