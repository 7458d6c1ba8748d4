import numpy as np
import pytest
from predictions import geotiff, pictures, predicted, shapes, written

from samtune.report.classes import Classes

rasterio = pytest.importorskip("rasterio")
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),  # rasterio's
]


@pytest.mark.parametrize("classes", [None, Classes(("ground", "roof", "road"), 0)])
def test_masks_lie_where_their_images_do(tmp_path, classes):
    source, masks = geotiff(tmp_path / "field.tif"), shapes()
    maps = [~(masks["disc"] | masks["ring"]), masks["disc"], masks["ring"]]
    given = maps if classes else maps[1:]
    results = [predicted(source, given, classes=classes is not None)]
    folder, troubles = written("geotiff", results, tmp_path, classes)
    assert troubles == []
    with rasterio.open(folder / "field.tif") as mask, rasterio.open(source.file) as image:
        assert mask.crs == image.crs and mask.transform == image.transform
        assert mask.count == 1 and mask.dtypes == ("uint8",)
        ring = 2 if classes else 1
        assert np.array_equal(mask.read(1), masks["disc"] + ring * masks["ring"])


def test_an_image_without_a_place_is_refused_first(tmp_path, refused):
    records = pictures(tmp_path / "in", ending="tif")
    said = refused("--as geotiff", written, "geotiff", [predicted(records[0], [])], tmp_path)
    assert "0.tif has no georeference" in said and "--as png" in said
