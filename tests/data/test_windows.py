import warnings

import numpy as np
import pytest

from samtune.data.reading import read_image
from samtune.data.windows import opened_windows, size_of_raster
from samtune.geometry import InputPolicy

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")


def raster(path, values, **options):
    count, h, w = values.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            path, "w", driver="GTiff", width=w, height=h, count=count, dtype=values.dtype, **options
        ) as file:
            file.write(values)
    return path


def cases():
    random = np.random.default_rng(0)
    whole = random.integers(0, 60_000, (3, 37, 53)).astype(np.uint16)
    holes = whole.copy()
    holes[:, 5:9, 7:30] = 7
    floats = random.normal(3, 50, (1, 37, 53)).astype(np.float32)
    gaps = np.where(random.random(floats.shape) < 0.1, np.nan, floats)
    outlier = np.where(random.random(floats.shape) < 0.001, 1e9, floats).astype(np.float32)
    return {
        "bytes": (whole.astype(np.uint8), {}, {}),
        "grey": (whole[:1], {}, {}),
        "deep": (whole, {}, {}),
        "nodata": (holes, {"nodata": 7}, {}),
        "signed": (whole.astype(np.int16), {}, {}),
        "floats": (gaps, {}, {}),
        "outliers": (outlier, {}, {}),
        "zscore": (whole, {}, {"intensity": "zscore"}),
        "fixed": (whole, {}, {"intensity": "fixed", "limits": (100.0, 5000.0)}),
        "by_kind": (whole, {}, {"intensity": "fixed"}),
        "bands": (np.concatenate([whole, whole * 3]), {}, {"bands": (5, 0, 2)}),
    }


@pytest.mark.parametrize("name", cases())
def test_windows_are_parts_of_the_image(tmp_path, monkeypatch, name):
    monkeypatch.setattr("samtune.data.windows.VALUES_AT_ONCE", 500)
    values, options, settings = cases()[name]
    path, policy = raster(tmp_path / "a.tif", values, **options), InputPolicy((64, 64), **settings)
    whole = read_image(path, policy).astype(int)
    assert size_of_raster(path) == whole.shape[:2]
    with opened_windows(path, policy) as windows:
        for y0, x0, y1, x1 in ((0, 0, 37, 53), (3, 5, 20, 40), (36, 52, 37, 53)):
            part = windows.read((y0, x0, y1, x1))
            gap = np.abs(part - whole[y0:y1, x0:x1])
            assert gap.max() <= (1 if name in ("floats", "outliers", "zscore") else 0)
            assert (gap > 0).mean() < 0.01


def test_files_that_cannot_be_read_in_windows_have_no_size(tmp_path):
    import tifffile

    (tmp_path / "broken.tif").write_bytes(b"II*\0")
    pages = np.zeros((3, 8, 9), np.uint8)
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="minisblack")
    tifffile.imwrite(tmp_path / "white.tif", pages[0], photometric="miniswhite")
    for name in ("broken", "pages", "white", "missing"):
        assert size_of_raster(tmp_path / f"{name}.tif") is None


def test_bands_that_do_not_exist_are_refused(tmp_path, refused):
    path = raster(tmp_path / "a.tif", np.zeros((5, 8, 9), np.uint8))

    def opened(policy):
        with opened_windows(path, policy):
            pass

    assert "choose with data.bands" in refused("a.tif", opened, InputPolicy((64, 64)))
    assert "has 5 bands" in refused("a.tif", opened, InputPolicy((64, 64), bands=(9,)))
