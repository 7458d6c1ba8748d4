import sqlite3
import struct

import numpy as np
import pytest
from predictions import geotiff, pictures, predicted, shapes, written

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),  # rasterio's
]


def polygons(blob):
    """The system, and the rings of each polygon, of a geometry as the standard has it."""
    magic, version, flags, system = struct.unpack_from("<2sBBi", blob)
    assert (magic, version, flags) == (b"GP", 0, 0b11)
    order, kind, count = struct.unpack_from("<BII", blob, 40)
    assert (order, kind) == (1, 6)
    at, parts = 49, []
    for _ in range(count):
        order, kind, rings = struct.unpack_from("<BII", blob, at)
        at, part = at + 9, []
        for _ in range(rings):
            (n,) = struct.unpack_from("<I", blob, at)
            part.append(np.frombuffer(blob, "<f8", 2 * n, at + 4).reshape(n, 2))
            at += 4 + 16 * n
        parts.append(part)
    assert at == len(blob)
    return system, parts


def rows(file, query):
    base = sqlite3.connect(file)
    try:
        return base.execute(query).fetchall()
    finally:
        base.close()


@pytest.mark.parametrize("crs", ["EPSG:32633", "+proj=tmerc +lat_0=1 +lon_0=2 +ellps=GRS80", None])
def test_polygons_lie_in_the_system_of_the_source(tmp_path, crs):
    pytest.importorskip("rasterio")
    masks = list(shapes().values())
    record = geotiff(tmp_path / "field.tif", crs) if crs else pictures(tmp_path / "in")[0]
    folder, troubles = written("geopackage", [predicted(record, masks)], tmp_path, tolerance=0)
    file = folder / f"{record.name}.gpkg"
    assert troubles == []
    number = {"EPSG:32633": 32633, None: -1}.get(crs, 100_000)
    found = rows(file, "SELECT geom, class, score, image FROM predictions ORDER BY fid")
    assert [row[1:] for row in found] == [("object", 0.75, record.file.name)] * 3
    shapes_of = [polygons(row[0]) for row in found]
    assert [system for system, _ in shapes_of] == [number] * 3
    assert [[len(part) for part in parts] for _, parts in shapes_of] == [[1], [2], [1, 1]]
    corner = [3, 2] if crs is None else [500_000 + 3 / 2, 5_000_000 - 2 / 2]
    assert corner in shapes_of[2][1][0][0].tolist()
    ((kind, system),) = rows(file, "SELECT geometry_type_name, srs_id FROM gpkg_geometry_columns")
    assert (kind, system) == ("MULTIPOLYGON", number)
    definition = rows(file, f"SELECT definition FROM gpkg_spatial_ref_sys WHERE srs_id={number}")
    assert definition[0][0] == "undefined" if crs is None else "Transverse" in definition[0][0]
    (bounds,) = rows(file, "SELECT min_x, min_y, max_x, max_y FROM gpkg_contents")
    every = np.concatenate([r for _, parts in shapes_of for part in parts for r in part])
    assert bounds == (*every.min(0), *every.max(0))


def test_gdal_reads_it(tmp_path):
    pyogrio = pytest.importorskip("pyogrio")
    record = geotiff(tmp_path / "field.tif")
    folder, _ = written("geopackage", [predicted(record, [shapes()["ring"]])], tmp_path)
    about = pyogrio.read_info(folder / "field.gpkg", layer="predictions")
    assert about["crs"] == "EPSG:32633" and about["geometry_type"] == "MultiPolygon"
    assert about["features"] == 1
