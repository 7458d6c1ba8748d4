"""GeoPackage: a file of polygons for each image, in any coordinate system, or in pixels.

The tables and the form of geometries are those of the OGC's GeoPackage Encoding Standard 1.3
(12-128r17); a GeoPackage is a SQLite file, so nothing else is needed to write one.
"""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samtune.inference.formats import WRITERS, Predicted, Writer
from samtune.inference.georeference import Georeference, georeference_of
from samtune.inference.shapes import rings_of

TABLE = "predictions"
_GPKG, _VERSION = 0x47504B47, 10300
_PIXELS, _UNLISTED = -1, 100_000
"""Numbers of systems: of one that is no place on earth, and of one without a code of EPSG."""
_WGS84 = (
    'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],'
    'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433],AUTHORITY["EPSG","4326"]]'
)
_TABLES = f"""
CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT NOT NULL, srs_id INTEGER PRIMARY KEY,
  organization TEXT NOT NULL, organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL,
  description TEXT);
CREATE TABLE gpkg_contents (table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL,
  identifier TEXT UNIQUE, description TEXT DEFAULT '',
  last_change DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
  min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE, srs_id INTEGER,
  CONSTRAINT fk_gc_r_srs_id FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id));
CREATE TABLE gpkg_geometry_columns (table_name TEXT NOT NULL, column_name TEXT NOT NULL,
  geometry_type_name TEXT NOT NULL, srs_id INTEGER NOT NULL, z TINYINT NOT NULL, m TINYINT NOT NULL,
  CONSTRAINT pk_geom_cols PRIMARY KEY (table_name, column_name),
  CONSTRAINT uk_gc_table_name UNIQUE (table_name),
  CONSTRAINT fk_gc_tn FOREIGN KEY (table_name) REFERENCES gpkg_contents(table_name),
  CONSTRAINT fk_gc_srs FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys (srs_id));
CREATE TABLE {TABLE} (fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, geom MULTIPOLYGON,
  class TEXT, score REAL, image TEXT);
"""

Rings = list[NDArray[np.float64]]


@WRITERS.register("geopackage")
class GeoPackage(Writer):
    """Polygons with holes, in the coordinates of the source; in pixels if it has no georeference.

    A table in pixels is in the standard's undefined Cartesian system.
    """

    about = "QGIS, GDAL, R: geopackage/NAME.gpkg, in the image's coordinates or its pixels"

    def write_one(self, result: Predicted, folder: Path) -> None:
        """Writes the file of one image."""
        place = georeference_of(result.record)
        file = folder / f"{result.record.name}.gpkg"
        file.parent.mkdir(parents=True, exist_ok=True)
        system, rows = _system(place), []
        for thing in self.things(result):
            polygons = self.task.outlines.of(thing.mask)
            parts = [rings_of(each, place) for each in polygons]
            name = self.task.names[thing.category]
            rows.append((_blob(parts, system[1]), name, thing.score, result.label, parts))
        with closing(sqlite3.connect(file)) as base, base:
            base.execute(f"PRAGMA application_id = {_GPKG}")
            base.execute(f"PRAGMA user_version = {_VERSION}")
            base.executescript(_TABLES)
            _describe(base, system, [parts for *_, parts in rows])
            values = [row[:4] for row in rows]
            base.executemany(
                f"INSERT INTO {TABLE} (geom, class, score, image) VALUES (?, ?, ?, ?)", values
            )


System = tuple[str, int, str, int, str]
"""A row of the table of systems: name, number, organisation, its number, and definition."""


def _system(place: Georeference | None) -> System:
    if place is None:
        return ("Undefined Cartesian SRS", _PIXELS, "NONE", _PIXELS, "undefined")
    known = place.authority
    if known is None or not known[1].isdigit():
        return ("the image's own", _UNLISTED, "NONE", _UNLISTED, place.wkt)
    return (":".join(known), int(known[1]), known[0], int(known[1]), place.wkt)


def _describe(base: sqlite3.Connection, system: System, shapes: list[list[Rings]]) -> None:
    """Fills the tables that say what the file holds."""
    systems = {
        row[1]: row
        for row in (
            ("Undefined Cartesian SRS", -1, "NONE", -1, "undefined"),
            ("Undefined geographic SRS", 0, "NONE", 0, "undefined"),
            ("WGS 84 geodetic", 4326, "EPSG", 4326, _WGS84),
            system,
        )
    }
    base.executemany(
        "INSERT INTO gpkg_spatial_ref_sys (srs_name, srs_id, organization, "
        "organization_coordsys_id, definition) VALUES (?, ?, ?, ?, ?)",
        systems.values(),
    )
    corners = [ring for parts in shapes for rings in parts for ring in rings]
    points = np.concatenate(corners) if corners else np.zeros((1, 2))
    bounds = (*points.min(0).tolist(), *points.max(0).tolist())
    about = "in pixels, y downwards" if system[1] == _PIXELS else ""
    base.execute(
        "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, min_x, min_y, "
        "max_x, max_y, srs_id) VALUES (?, 'features', ?, ?, ?, ?, ?, ?, ?)",
        (TABLE, TABLE, about, *bounds, system[1]),
    )
    base.execute(
        "INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', 'MULTIPOLYGON', ?, 0, 0)",
        (TABLE, system[1]),
    )


def _blob(parts: list[Rings], system: int) -> bytes:
    """A multipolygon as the standard has it: a header with bounds, and well-known binary."""
    points = np.concatenate([ring for rings in parts for ring in rings])
    (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
    head = b"GP" + struct.pack("<BBi4d", 0, 0b11, system, x0, x1, y0, y1)
    body = struct.pack("<BII", 1, 6, len(parts))
    for rings in parts:
        body += struct.pack("<BII", 1, 3, len(rings))
        for ring in rings:
            body += struct.pack("<I", len(ring)) + ring.astype("<f8").tobytes()
    return head + body
