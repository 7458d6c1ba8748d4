import numpy as np
import pytest
import yaml
from predictions import H, W, iou, pictures, predicted, read_back, shapes, written

from samtune.data.pictures import find_images
from samtune.data.reading import read_image, read_mask
from samtune.report.classes import Classes

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("tolerance", [0, 1])
def test_samtune_reads_what_it_wrote(tmp_path, tolerance):
    records, masks = pictures(tmp_path / "in" / "sub", 2, "jpg"), list(shapes().values())
    records = find_images(tmp_path / "in")
    results = [predicted(records[0], masks), predicted(records[1], [])]
    folder, troubles = written("yolo", results, tmp_path, tolerance=tolerance)
    assert troubles == [] and (folder / "labels" / "sub" / "1.txt").read_text() == ""
    assert len((folder / "labels" / "sub" / "0.txt").read_text().splitlines()) == 3  # a line each
    assert yaml.safe_load((folder / "data.yaml").read_text())["names"] == {0: "object"}
    again, names = read_back(folder, layout="yolo")
    assert names == ("object",) and len(again) == 2
    labels = read_mask(again[0].mask)
    for number, mask in enumerate(masks, 1):
        assert iou(labels == number, mask) > (0.9 if tolerance else 0.999)


def test_an_image_of_a_volume_is_written_as_a_picture(tmp_path):
    np.save(tmp_path / "scan.npy", np.random.default_rng(0).integers(0, 99, (9, H, W), np.uint8))
    record = find_images(tmp_path / "scan.npy")[2]
    maps = [~shapes()["disc"], shapes()["disc"]]
    result = predicted(record, maps, classes=True)
    folder, _ = written("yolo", [result], tmp_path / "out", Classes(("back", "cell"), 0))
    assert (folder / "labels" / "scan_0002.txt").read_text().startswith("0 0.")
    picture = read_image(folder / "images" / "scan_0002.png")
    assert np.array_equal(picture, read_image(record.image))
