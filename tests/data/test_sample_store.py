"""Samples on disk: what is read from them, when they are not used, and how much room they take."""

import shutil
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
from examples import same
from pictures import blob, picture

from samtune.data import DataConfig, SegmentationDataset, find_records
from samtune.data import sample_cache as module
from samtune.data.from_python import data_from
from samtune.data.loading import batches
from samtune.data.sample_store import SampleStore, store_of
from samtune.errors import InputError

SIZE = (32, 32)
CONFIG = DataConfig(masks="instance", ignore=9, min_area=3, cache=0)


@pytest.fixture
def photos(make_pairs):
    """Images that are larger than the frame, with objects, ignored pixels and a speck."""
    mask = np.zeros((90, 70), np.uint16)
    mask[5:40, 5:30], mask[50:80, 20:60], mask[0, :20], mask[85, 3] = 1, 300, 9, 4
    return make_pairs(["a", "b", "c"], mask=mask, size=(90, 70))


@pytest.fixture
def reads(monkeypatch):
    """The records that were read from their own files."""
    seen, read = [], module.read_sample
    monkeypatch.setattr(
        module, "read_sample", lambda record, *how: seen.append(record) or read(record, *how)
    )
    return seen


def dataset(root, data=CONFIG, train=False):
    how = {"mask_size": (8, 8), "mode": ["box", "noisy_mask"], "train": train}
    return SegmentationDataset(find_records(root), data, SIZE, **how)


def examples(data: SegmentationDataset, workers: int = 0):
    for epoch in range(2):
        data.set_epoch(epoch)
        yield from batches(data, workers, batch_size=2)


def all_same(first, second):
    for one, other in zip(first, second, strict=True):
        same(one, other)


@pytest.mark.parametrize(
    ("train", "augment", "shape"),
    [(False, "standard", (3, *SIZE)), (True, "none", (3, *SIZE)), (True, "standard", (90, 70, 3))],
)
def test_examples_are_the_same_and_their_files_are_read_once(
    photos, tmp_path, reads, train, augment, shape
):
    plain = dataset(photos, replace(CONFIG, augment=augment), train)
    folder = tmp_path / "store"
    stored = replace(plain.data, disk_cache="1MB", cache_folder=str(folder))
    expected = list(examples(plain))
    reads.clear()
    for workers in (0, 0, 1):
        data = dataset(photos, stored, train)
        all_same(examples(data, workers), expected)
        assert len(reads) == 3
        assert data.labels(0).map.dtype == plain.labels(0).map.dtype
        reads[:] = reads[:3]
    files = list(folder.rglob("*.safetensors"))
    assert {store_of(stored).get(file.stem).image.shape for file in files} == {shape}
    assert data.samples.count_left_out(data.input, train) == 0


def test_what_is_damaged_or_of_other_files_or_settings_is_read_anew(photos, tmp_path, reads):
    stored = replace(CONFIG, disk_cache="1MB", cache_folder=str(tmp_path / "store"))
    expected = next(examples(dataset(photos)))

    def reads_with(data: DataConfig = stored) -> int:
        reads.clear()
        found = next(examples(dataset(photos, data)))
        if data == stored:
            same(found, expected)
        return len(reads)

    assert (reads_with(), reads_with()) == (2, 0)
    first, second = sorted((tmp_path / "store").rglob("*.safetensors"))
    first.write_bytes(first.read_bytes()[:-7])
    content = bytearray(second.read_bytes())
    content[-2000] ^= 1
    second.write_bytes(content)
    assert (reads_with(), reads_with()) == (2, 0)
    assert reads_with(replace(stored, min_area=1)) == 2
    assert reads_with(replace(stored, shots=3, crop=(0.5, 1.0), workers=0)) == 0
    image = photos / "images" / "a.png"
    shutil.copy2(image, tmp_path / "copy.png")
    shutil.move(tmp_path / "copy.png", image)  # with the size and time of the other
    assert (reads_with(), reads_with()) == (1, 0)


def test_room_is_bounded_and_nothing_is_written_into_the_data(photos, tmp_path, monkeypatch):
    place = tmp_path / "store"
    data = dataset(photos, replace(CONFIG, disk_cache=30000, cache_folder=str(place)))
    expected = list(examples(dataset(photos)))
    all_same(examples(data), expected)
    assert 0 < sum(file.stat().st_size for file in place.rglob("*.safetensors")) <= 30000
    assert data.samples.count_left_out(data.input, False) == 1
    monkeypatch.setattr("safetensors.torch.save_file", _full_disk)
    failing = dataset(photos, replace(CONFIG, disk_cache="1MB", cache_folder=str(tmp_path / "b")))
    all_same(examples(failing), expected)
    assert failing.samples.store.is_full and failing.samples.count_left_out(data.input, False) == 3
    usage = namedtuple("usage", "total used free")(10**9, 9 * 10**8, 10**8)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match=r"disk_cache=5GB: the disk of .* room for 0.1 GB"):
        SampleStore(tmp_path / "c", 5 * 10**9, replace(CONFIG, disk_cache="5GB"))
    with pytest.raises(InputError, match="disk_cache=lots: is no size"):
        DataConfig(disk_cache="lots")
    inside = replace(CONFIG, root=str(photos), disk_cache="1MB", cache_folder=str(photos / "x"))
    with pytest.raises(InputError, match=r"lies in data\.root"):
        store_of(inside)
    assert not (photos / "x").exists()


def test_samples_of_python_code_are_not_stored(tmp_path):
    split = data_from([(picture(), blob())] * 4, masks="binary").train
    data = replace(split.config, disk_cache="1MB", cache_folder=str(tmp_path / "store"))
    prepared = SegmentationDataset(split.records, data, SIZE)
    assert prepared[0].pixels.shape == (3, *SIZE)
    assert prepared.samples.store.key(split.records[0], prepared.input, True) is None
    assert not list(tmp_path.rglob("*.safetensors"))


def _full_disk(*args, **kwargs):
    raise OSError(28, "No space left on device")
