import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from predictions import H, W, iou, pictures, predicted, read_back, shapes, written

from samtune.data.pictures import find_images
from samtune.data.reading import read_image, read_mask

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("tolerance", [0, 1])
def test_samtune_reads_what_it_wrote(tmp_path, tolerance):
    (record,), masks = pictures(tmp_path / "in"), list(shapes().values())
    folder, troubles = written("labelme", [predicted(record, masks)], tmp_path, tolerance=tolerance)
    tree = json.loads((folder / "0.json").read_text())
    assert troubles == [] and (tree["imageHeight"], tree["imageWidth"]) == (H, W)
    assert (folder / tree["imagePath"]).resolve() == (tmp_path / "in" / "0.png").resolve()
    kinds = [(shape["shape_type"], shape["group_id"]) for shape in tree["shapes"]]
    assert kinds == [("polygon", None), ("mask", None), ("polygon", 3), ("polygon", 3)]
    (again,), _ = read_back(folder, outside=True)
    labels = read_mask(again.mask)
    for number, mask in enumerate(masks, 1):
        assert iou(labels == number, mask) > (0.9 if tolerance else 0.999)


@pytest.mark.parametrize(
    ("name", "mode", "is_opened"),
    [
        ("photo.jpg", "RGB", True),
        ("indexed.png", "P", True),
        ("grey.tif", "I;16", True),
        ("print.jpg", "CMYK", False),
        ("deep.png", "I;16", False),
        ("indexed.gif", "P", False),
    ],
)
def test_pixels_that_labelme_cannot_open_lie_in_the_file(tmp_path, name, mode, is_opened):
    grey = np.random.default_rng(0).integers(0, 256, (H, W), np.uint8)
    colours = Image.fromarray(np.stack([grey, 255 - grey, grey], -1))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    (tmp_path / "in").mkdir()
    (deep if "16" in mode else colours.convert(mode)).save(tmp_path / "in" / name)
    (record,) = find_images(tmp_path / "in" / name)
    folder, _ = written("labelme", [predicted(record, [shapes()["disc"]])], tmp_path / "out")
    tree = json.loads(next(folder.glob("[!.]*.json")).read_text())
    assert (tree["imageData"] is None) == is_opened
    assert (folder / tree["imagePath"]).resolve() == (tmp_path / "in" / name).resolve()
    if not is_opened:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(tree["imageData"]))))
        assert np.array_equal(pixels, read_image(record.image))


def test_an_image_of_a_volume_lies_in_the_file(tmp_path):
    np.save(tmp_path / "scan.npy", np.random.default_rng(0).integers(0, 99, (9, H, W), np.uint8))
    record = find_images(tmp_path / "scan.npy")[2]
    folder, _ = written("labelme", [predicted(record, [shapes()["disc"]])], tmp_path / "out")
    (read,), _ = read_back(folder)
    assert np.array_equal(read_image(read.image), read_image(record.image))
