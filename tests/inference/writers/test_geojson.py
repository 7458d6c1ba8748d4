import json

import numpy as np
import pytest
from predictions import geotiff, pictures, predicted, shapes, written

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),  # rasterio's
]


def area(ring):
    (x, y), (u, v) = np.array(ring[:-1]).T, np.array(ring[1:]).T
    return ((x * v - u * y) / 2).sum()


def test_a_geotiff_gives_polygons_on_the_ground(tmp_path):
    masks = list(shapes().values())
    results = [predicted(geotiff(tmp_path / "field.tif"), masks)]
    folder, troubles = written("geojson", results, tmp_path, tolerance=0)
    tree = json.loads((folder / "field.geojson").read_text())
    assert troubles == [] and tree["coordinates"] == "EPSG:32633"
    assert tree["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    kinds = [each["geometry"]["type"] for each in tree["features"]]
    assert kinds == ["Polygon", "Polygon", "MultiPolygon"]
    ring = tree["features"][1]["geometry"]["coordinates"]
    assert len(ring) == 2 and area(ring[0]) > 0 > area(ring[1])  # anticlockwise, with a hole
    assert area(ring[0]) + area(ring[1]) == masks[1].sum() / 4  # square metres
    corner = tree["features"][2]["geometry"]["coordinates"][0][0]
    assert [500_000 + 3 / 2, 5_000_000 - 2 / 2] in corner  # row 2, column 3
    assert tree["features"][0]["properties"] == {
        "class": "object", "score": 0.75, "image": "field.tif",
    }  # fmt: skip


def test_another_image_gives_pixels_and_says_so(tmp_path):
    results = [predicted(pictures(tmp_path / "in")[0], [shapes()["two"]])]
    folder, _ = written("geojson", results, tmp_path, tolerance=0)
    tree = json.loads((folder / "0.geojson").read_text())
    assert tree["coordinates"] == "pixels" and "crs" not in tree
    assert [3, 2] in tree["features"][0]["geometry"]["coordinates"][0][0]


def test_a_system_without_a_code_is_listed(tmp_path):
    own = "+proj=tmerc +lat_0=1 +lon_0=2 +k=0.9 +x_0=7 +y_0=9 +ellps=GRS80 +units=m"
    results = [predicted(geotiff(tmp_path / "own.tif", own), [shapes()["two"]])]
    _, troubles = written("geojson", results, tmp_path)
    assert "own.tif: its coordinate system has no EPSG code" in troubles[0]
