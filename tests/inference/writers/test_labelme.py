import json

import numpy as np
import pytest
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


def test_an_image_of_a_volume_lies_in_the_file(tmp_path):
    np.save(tmp_path / "scan.npy", np.random.default_rng(0).integers(0, 99, (9, H, W), np.uint8))
    record = find_images(tmp_path / "scan.npy")[2]
    folder, _ = written("labelme", [predicted(record, [shapes()["disc"]])], tmp_path / "out")
    (read,), _ = read_back(folder)
    assert np.array_equal(read_image(read.image), read_image(record.image))
