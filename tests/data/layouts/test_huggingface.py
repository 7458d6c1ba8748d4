import sys
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from samtune.data import read_sample, scan, splits
from samtune.data.layouts.base import layout_of

pytestmark = pytest.mark.skipif(find_spec("datasets") is None, reason="needs datasets")


@pytest.fixture
def save_rows(tmp_path, make_picture, make_blob):
    """Saves data sets of four rows: save_rows(columns=, splits=) gives the folder."""

    def make(columns=("image", "mask"), parts=None, count=4, name="saved"):
        import datasets

        image, mask = columns
        features = datasets.Features({image: datasets.Image(), mask: datasets.Image()})
        rows = {
            image: [Image.fromarray(make_picture(seed=i)) for i in range(count)],
            mask: [Image.fromarray(make_blob()) for _ in range(count)],
        }
        table = datasets.Dataset.from_dict(rows, features=features)
        whole = table if parts is None else datasets.DatasetDict({p: table for p in parts})
        whole.save_to_disk(str(tmp_path / name))
        return tmp_path / name

    return make


def test_rows_become_records(save_rows, record_of, make_picture):
    root = save_rows()
    assert layout_of(root).name == "huggingface"
    record, config = record_of(root, "row_2")
    sample = read_sample(record, config)
    np.testing.assert_array_equal(sample.image, make_picture(seed=2))
    assert int((sample.labels.map == 1).sum()) == 35
    assert scan([record], config).objects == 1


def test_splits_and_other_columns(save_rows, completed):
    root = save_rows(("pixel_values", "label"), ("train", "validation", "test"))
    parts = splits(completed(root))
    assert [len(parts[s]) for s in ("train", "val", "test")] == [4, 4, 4]
    assert parts["val"][0].name == "validation_0"


def test_what_is_refused(save_rows, completed, tmp_path, refused, monkeypatch):
    refused(["nobody/set", "none is downloaded", "save_to_disk"],
            splits, completed("nobody/set", layout="huggingface"))  # fmt: skip
    root = save_rows(("image", "truth"))
    refused([root, "no column of masks", "image, truth", "rename"], splits, completed(root))
    other = save_rows(parts=("train", "extra"), name="other")
    refused([other, "extra", "validation"], splits, completed(other))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "dataset_dict.json").write_text("{")
    refused([broken, "cannot be read"], splits, completed(broken))
    monkeypatch.setitem(sys.modules, "datasets", None)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / "dataset_dict.json").write_text("{}")
    refused([fresh, "samtune[datasets]"], splits, completed(fresh))
