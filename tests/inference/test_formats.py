import shutil

import numpy as np
import pytest
from predictions import pictures, predicted, shapes, written

from samtune.inference.format_folders import is_ours, refuse_foreign, signed_folder
from samtune.inference.formats import WRITERS, chosen_formats

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_formats_are_named_one_by_one_or_joined(refused, monkeypatch):
    assert chosen_formats(["png,coco", "yolo", "coco"]) == ["png", "coco", "yolo"]
    said = refused("--as coko", chosen_formats, ["png,coko"])
    assert "must be one of png, coco" in said and "did you mean 'coco'" in said
    assert "names no format" in refused("--as ,", chosen_formats, [","])
    monkeypatch.setattr(WRITERS["coco"], "needs", ("no_such_package",))
    monkeypatch.setattr(WRITERS["coco"], "extra", "geo")
    said = refused("--as coco", chosen_formats, ["coco"])
    assert "needs no_such_package; pip install 'samtune[geo]'" in said


def test_a_folder_is_replaced_unless_somebody_changed_it(tmp_path, refused):
    results = [predicted(pictures(tmp_path / "in")[0], [shapes()["disc"]])]
    folder, _ = written("coco", results, tmp_path / "out")
    written("coco", results, tmp_path / "out")
    refuse_foreign(folder, tmp_path / "other", [])
    said = refused("--out=", refuse_foreign, folder, tmp_path / "other", [folder / "x.png"])
    assert "this command reads" in said and f"--out={tmp_path / 'other'}" in said
    (folder / "mine.txt").write_text("notes")
    assert not is_ours(folder)
    assert "no samtune predict wrote" in refused(
        "--out=", refuse_foreign, folder, tmp_path / "other", []
    )
    shutil.rmtree(folder)
    refuse_foreign(folder, tmp_path / "other", [])


def test_a_folder_that_fails_leaves_the_earlier_one(tmp_path):
    results = [predicted(pictures(tmp_path / "in")[0], [shapes()["disc"]])]
    folder, _ = written("coco", results, tmp_path / "out")
    with pytest.raises(RuntimeError), signed_folder(folder, "") as partial:
        (partial / "x").write_text("half")
        raise RuntimeError
    assert is_ours(folder) and [each.name for each in (tmp_path / "out").iterdir()] == ["coco"]


def test_labels_of_overlapping_classes_are_those_of_the_first(tmp_path):
    record = pictures(tmp_path / "in")[0]
    maps = [shapes()["disc"], shapes()["disc"] | shapes()["ring"]]
    labels = predicted(record, maps, classes=True).labels()
    assert np.array_equal(labels, np.where(maps[0], 0, maps[1]))
    assert np.array_equal(predicted(record, maps).labels() > 0, maps[0] | maps[1])
