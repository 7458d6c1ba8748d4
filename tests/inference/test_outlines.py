import numpy as np
import pytest
from predictions import iou, shapes
from pycocotools import mask as coco

from samtune.inference.crossings import faulty_rings
from samtune.inference.outlines import Outlines, area_of, as_one_ring, check_tolerance, polygons_of

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def drawn(rings, size):
    """What pycocotools draws of each ring alone."""
    flat = [[float(v) for v in ring.ravel()] for ring in rings]
    return [coco.decode(coco.frPyObjects([each], *size)[0]).astype(bool) for each in flat]


def filled(polygons, size):
    mask = np.zeros(size, bool)
    for polygon in polygons:
        shell, *holes = drawn((polygon.shell, *polygon.holes), size)
        mask |= shell & ~np.logical_or.reduce([np.zeros(size, bool), *holes])
    return mask


def noise(seed, share):
    import cv2

    values = np.random.default_rng(seed).normal(size=(30, 40))
    return cv2.GaussianBlur(values, (0, 0), 0.8) > np.quantile(values, share)


def all_rings(polygons):
    rings = [(i, r) for i, each in enumerate(polygons) for r in (each.shell, *each.holes)]
    return [ring for _, ring in rings], [part for part, _ in rings]


@pytest.mark.parametrize("mask", [*shapes().values(), noise(0, 0.5), noise(1, 0.4)])
def test_without_tolerance_outlines_follow_the_edges_of_the_pixels(mask):
    polygons = polygons_of(mask, 0)
    areas = [area_of(each.shell) + sum(map(area_of, each.holes)) for each in polygons]
    assert sum(areas) == mask.sum()
    assert np.array_equal(filled(polygons, mask.shape), mask)


@pytest.mark.parametrize("mask", [*shapes().values(), noise(2, 0.5), noise(3, 0.3)])
@pytest.mark.parametrize("tolerance", [0.5, 1, 3])
def test_simplified_outlines_stay_within_the_tolerance_and_cross_nowhere(mask, tolerance):
    import cv2

    exact, simple = polygons_of(mask, 0), polygons_of(mask, tolerance)
    rings, parts = all_rings(simple)
    before, same = all_rings(exact)
    assert parts == same and faulty_rings(rings, parts) == set()  # all holes are there
    assert len(np.concatenate(rings)) <= len(np.concatenate(before))
    for ring, corners in zip(rings, before, strict=True):
        contour = ring.astype(np.float32)[:, None]
        far = [abs(cv2.pointPolygonTest(contour, (x, y), True)) for x, y in corners.tolist()]
        assert max(far) <= tolerance + 1e-4


def test_outlines_are_traced_once_for_all_formats(monkeypatch):
    mask = np.zeros((9, 9), bool)
    mask[2:7, 3:8], mask[4, 5] = True, False
    outlines = Outlines(0.0)
    first = outlines.of(mask)
    assert outlines.of(mask.copy()) is first
    assert [polygon.shell.tolist() for polygon in first] == [
        polygon.shell.tolist() for polygon in polygons_of(mask, 0.0)
    ]
    assert outlines.of(mask.T) is not first
    monkeypatch.setattr("samtune.inference.outlines.MOST_CORNERS", 0)
    assert outlines.of(~mask) is not outlines.of(~mask)


def test_a_disc_has_few_corners():
    (polygon,) = polygons_of(shapes()["disc"])
    assert len(polygon.shell) < 20
    assert iou(filled([polygon], (40, 56)), shapes()["disc"]) > 0.94


def test_pixels_that_touch_in_a_corner_are_regions_of_their_own():
    mask = np.eye(3, dtype=bool)
    assert len(polygons_of(mask, 0)) == 3
    around = ~np.eye(4, dtype=bool)  # two regions
    assert np.array_equal(filled(polygons_of(around, 0), (4, 4)), around)
    ring = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1]], bool)  # closes in a corner
    polygons = polygons_of(ring, 0)
    assert sorted(len(each.holes) for each in polygons) == [0, 1]
    assert all(len({*map(tuple, r)}) == len(r) for r in all_rings(polygons)[0])


def test_one_ring_goes_through_all_regions_and_holes():
    for name, mask in shapes().items():
        ring = as_one_ring(polygons_of(mask, 0))
        assert area_of(ring) == mask.sum(), name  # lines between parts have no width
        assert np.array_equal(drawn([ring], mask.shape)[0], mask)


SQUARE = np.array([[0, 0], [8, 0], [8, 8], [0, 8]])
INNER = SQUARE[::-1] // 2 + 2


@pytest.mark.parametrize(
    ("rings", "parts", "bad"),
    [
        ([SQUARE, INNER], [0, 0], set()),
        ([SQUARE, INNER + 20], [0, 0], {0, 1}),  # a hole outside
        ([SQUARE, INNER + np.array([2, 0])], [0, 0], {0, 1}),  # touches along an edge
        ([SQUARE, SQUARE + 4], [0, 1], {0, 1}),  # cross
        ([SQUARE, SQUARE + 8], [0, 1], set()),  # touch in a corner
        ([SQUARE, SQUARE // 4 + 2], [0, 1], {0, 1}),  # one within the other
        ([SQUARE, INNER, np.array([[3, 3], [5, 3], [3, 5]])], [0, 0, 1], set()),  # in its hole
        ([np.array([[0, 0], [4, 4], [4, 0], [0, 4]])], [0], {0}),  # a bow
    ],
)
def test_rings_that_are_no_valid_polygons(rings, parts, bad):
    assert faulty_rings(rings, parts) == bad


@pytest.mark.parametrize("tolerance", [-1, float("nan")])
def test_a_tolerance_is_a_distance(refused, tolerance):
    assert "must be 0 or more pixels" in refused("--tolerance", check_tolerance, tolerance)
