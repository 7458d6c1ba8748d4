"""Polygons as geographic formats have them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samtune.inference.georeference import Georeference
from samtune.inference.outlines import Polygon, area_of


def rings_of(polygon: Polygon, place: Georeference | None) -> list[NDArray[np.float64]]:
    """The closed rings ``(n, 2)`` of a region: its shell anticlockwise, and its holes clockwise.

    Args:
        polygon: In pixels.
        place: To whose coordinates it is brought; without one they stay.
    """
    rings = []
    for i, ring in enumerate((polygon.shell, *polygon.holes)):
        there = ring.astype(np.float64) if place is None else place.on_ground(ring)
        clockwise = area_of(there) < 0  # in a system whose second axis points up
        if clockwise != (i > 0):
            there = there[::-1]
        rings.append(np.concatenate([there, there[:1]]))
    return rings
