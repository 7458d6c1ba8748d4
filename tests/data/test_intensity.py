from pathlib import Path

import numpy as np
import pytest
import tifffile

from samtune.data import DataConfig, SegmentationDataset, read_image, splits
from samtune.data.intensity import (
    NOT_FINITE,
    check_same,
    policy_of,
    reading,
    settings_of,
    to_rgb,
)
from samtune.data.problems import remarks
from samtune.errors import InputError
from samtune.geometry import InputPolicy


@pytest.fixture
def deep(tmp_path):
    """A GeoTIFF-like file of six bands of 16 bits; gives path and ``(h, w, 6)``."""
    values = np.random.default_rng(0).integers(0, 4000, (10, 14, 6)).astype(np.uint16)
    values[..., 5] //= 10
    tifffile.imwrite(tmp_path / "six.tif", values.transpose(2, 0, 1), photometric="minisblack",
                     planarconfig="separate")  # fmt: skip
    return tmp_path / "six.tif", values


def read(path, **settings):
    return read_image(path, policy_of(DataConfig(**settings)))


def test_bands_are_scaled_one_by_one(deep):
    path, values = deep
    image = read(path, bands=(5, 0, 2))
    assert image.shape == (10, 14, 3)
    low, high = np.percentile(values[..., 5], (0.5, 99.5))
    expected = np.clip((values[..., 5] - low) * 255 / (high - low) + 0.5, 0, 255).astype(np.uint8)
    np.testing.assert_allclose(image[..., 0].astype(int), expected.astype(int), atol=1)
    single = read(path, bands=(0,))
    np.testing.assert_array_equal(single[..., 0], image[..., 1])
    np.testing.assert_array_equal(single[..., 0], single[..., 2])


def test_window_and_fixed_range(deep):
    path, values = deep
    expected = np.clip((values[..., [0]].astype(float) - 1000) * 255 / 1000 + 0.5, 0, 255)
    for settings in (
        {"intensity": "window", "window": (1000.0, 2000.0)},
        {"intensity": "fixed", "range": (1000.0, 2000.0)},
    ):
        image = read(path, bands=(0,), **settings)
        np.testing.assert_allclose(image[..., :1], expected.astype(np.uint8), atol=1)
    whole = read(path, bands=(0,), intensity="fixed")
    np.testing.assert_allclose(whole[..., 0], values[..., 0] / 65535 * 255, atol=0.51)


def test_z_score(deep):
    path, values = deep
    band = values[..., 0].astype(float)
    z = (band - band.mean()) / band.std()
    image = read(path, bands=(0,), intensity="zscore")
    np.testing.assert_allclose(image[..., 0], np.clip((z + 3) / 6, 0, 1) * 255, atol=1)


def test_bytes_stay_under_percentile_only(tmp_path, save_image, make_picture):
    picture = make_picture()
    path = save_image(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(read(path), picture)
    np.testing.assert_array_equal(read(path, bands=(2, 1, 0)), picture[..., ::-1])
    np.testing.assert_array_equal(read(path, intensity="fixed"), picture)
    assert (read(path, intensity="zscore") != picture).any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bands": (0, 1)}, ["bands=[0, 1]", "one band or three"]),
        ({"window": (0.0, 1.0)}, ["window=[0.0, 1.0]", "needs intensity=window"]),
        ({"range": (0.0, 1.0)}, ["range=[0.0, 1.0]", "needs intensity=fixed"]),
        ({"intensity": "fixed", "range": (2.0, 1.0)}, ["range=[2.0, 1.0]", "low"]),
    ],
)
def test_settings_that_do_not_fit(settings, words, refused):
    refused(words, DataConfig, **settings)


def test_files_that_do_not_fit(deep, tmp_path, refused):
    path, values = deep
    refused([path, "6 channels", "data.bands"], read_image, path)
    refused([path, "6 bands", "data.bands=[6]"], read, path, bands=(6,))
    tifffile.imwrite(tmp_path / "f.tif", values[..., 0].astype(np.float32))
    refused(["f.tif", "float32", "data.range"], read, tmp_path / "f.tif", intensity="fixed")


def test_the_policy_is_stored_and_asked_for_again():
    data = DataConfig(bands=(3, 2, 1), intensity="window", window=(-160.0, 240.0), slice_axis=1)
    policy = InputPolicy((64, 64), **reading(data))
    header = {k: list(v) if isinstance(v, tuple) else v for k, v in policy.differing().items()}
    assert InputPolicy.of(header) == policy
    again = {k: tuple(v) if isinstance(v, list) else v for k, v in settings_of(header).items()}
    assert reading(DataConfig(**again)) == reading(data)
    check_same(data, policy)


def test_another_policy_than_in_training_is_refused(refused):
    policy = policy_of(DataConfig(intensity="window", window=(0.0, 9.0)))
    refused(["data.intensity=zscore", "window", "leave it out"],
            check_same, DataConfig(intensity="zscore"), policy)  # fmt: skip
    other = DataConfig(intensity="window", window=(0.0, 8.0))
    refused(["data.window=(0.0, 8.0)", "(0.0, 9.0)"], check_same, other, policy)


def test_a_data_set_reads_as_its_settings_or_its_model_say(tmp_path, make_blob, save_image):
    for i in range(3):
        values = np.random.default_rng(i).integers(0, 4000, (12, 16)).astype(np.uint16)
        save_image(tmp_path / f"images/{i}.png", values)
        save_image(tmp_path / f"masks/{i}.png", make_blob())
    data = DataConfig(root=str(tmp_path), intensity="fixed", range=(0.0, 8000.0))
    records = splits(data)["train"]
    own = SegmentationDataset(records, data, (16, 16)).sample(0).image
    assert own.max() < 130
    policy = InputPolicy((16, 16), intensity="fixed", limits=(0.0, 80.0))
    models = SegmentationDataset(records, data, (16, 16), input=policy).sample(0).image
    assert (models == 255).mean() > 0.9


def test_compressions_for_rasterio(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    values = np.random.default_rng(0).integers(0, 4000, (6, 10, 14)).astype(np.uint16)
    profile = {"driver": "GTiff", "height": 10, "width": 14, "count": 6, "dtype": "uint16",
               "compress": "lzw", "predictor": 2, "crs": "EPSG:32632",
               "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)}  # fmt: skip
    with rasterio.open(tmp_path / "lzw.tif", "w", **profile) as file:
        file.write(values)
    image = read(tmp_path / "lzw.tif", bands=(4, 1, 0), intensity="fixed", range=(0.0, 4000.0))
    expected = values[[4, 1, 0]].transpose(1, 2, 0) / 4000 * 255
    np.testing.assert_allclose(image, expected, atol=0.51)


def test_what_is_no_number_is_counted_and_an_image_of_nothing_else_is_refused():
    values = np.linspace(0, 1, 24).reshape(4, 6, 1)
    plain = to_rgb(values, None, Path("a.tif"))
    values = np.pad(values, ((0, 1), (0, 0), (0, 0)))
    values[4, :, 0] = [np.nan, np.nan, np.inf, -np.inf, 1e300, -1e300]
    with remarks() as notes:
        shown = to_rgb(values, None, Path("a.tif"))
    assert np.array_equal(shown[:4], plain) and not shown[4].any()
    [note] = notes
    assert note.kind == NOT_FINITE
    assert note.what == "2 NaN, 2 infinite, 2 beyond 3.4e+38 of 30 values"
    for nothing in (np.nan, np.inf):
        with pytest.raises(InputError, match="all 8 values are NaN or infinite; export"):
            to_rgb(np.full((2, 4, 1), nothing), None, Path("a.tif"))


def test_values_as_large_as_single_precision_holds_keep_their_order():
    values = np.linspace(-3e38, 3e38, 256, dtype=np.float32).reshape(16, 16, 1)
    for policy in ("percentile", "zscore"):
        shown = to_rgb(values, InputPolicy((1, 1), intensity=policy), Path("a.tif"))[..., 0]
        assert (np.diff(shown.ravel().astype(int)) >= 0).all() and np.ptp(shown) > 100
