"""TIFF files mean what their tags say, whatever wrote them."""

import sys
import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from samtune.data import read_image, read_mask
from samtune.data.config import DataConfig
from samtune.data.intensity import policy_of
from samtune.data.problems import remarks
from samtune.data.tiffs import read_tiff
from samtune.errors import InputError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 200, (20, 24)).astype(np.uint8)
RGB = RNG.integers(0, 256, (20, 24, 3), np.uint8)
BITS = np.zeros((20, 24), bool)
BITS[5:9, 7:12] = True
LEAST = float(np.finfo(np.float32).min)


def geotiff(path, bands, mask=None, overviews=False, **options):
    """A file of GDAL's, of ``(bands, h, w)``."""
    rasterio = pytest.importorskip("rasterio")
    count, h, w = bands.shape
    shape = {"count": count, "height": h, "width": w, "dtype": bands.dtype}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", **shape, **options) as file:
            file.write(bands)
            if mask is not None:
                file.write_mask(mask)
        if overviews:
            with rasterio.open(path, "r+") as file:
                file.build_overviews([2])
    return path


@pytest.mark.parametrize("dtype", ["float32", "uint16", "int16"])
def test_nodata_is_left_out_of_the_statistics_and_black(tmp_path, capfd, dtype):
    whole = (GREY[None].astype(dtype) * 10).repeat(3, 0)
    nodata = {"float32": LEAST, "uint16": 65535, "int16": -9999}[dtype]
    expected = read_image(geotiff(tmp_path / "a.tif", whole[:, :, :-4]))
    bordered = whole.copy()
    bordered[..., -4:] = nodata
    image = read_image(geotiff(tmp_path / "b.tif", bordered, nodata=nodata))
    np.testing.assert_array_equal(image[:, :-4], expected)
    assert not image[:, -4:].any()
    for policy in ({"bands": (2, 0, 1)}, {"bands": (0,), "intensity": "zscore"}):
        of = policy_of(DataConfig(**policy))
        both = [read_image(tmp_path / name, of) for name in ("a.tif", "b.tif")]
        np.testing.assert_array_equal(both[1][:, :-4], both[0])
    assert capfd.readouterr().err == ""


def test_no_numbers_masks_and_alpha_are_no_data_either(tmp_path):
    whole = GREY[None].astype(np.float32) * 10
    expected = read_image(geotiff(tmp_path / "a.tif", whole[:, :, :-4]))
    there = np.ones(GREY.shape, bool)
    there[:, -4:] = False
    for value in (np.nan, np.inf, -np.inf):
        tifffile.imwrite(tmp_path / "n.tif", np.where(there, whole[0], np.float32(value)))
        image = read_image(tmp_path / "n.tif")
        np.testing.assert_array_equal(image[:, :-4], expected)
        assert not image[:, -4:].any()
        np.save(tmp_path / "n.npy", np.where(there, whole[0], value))
        np.testing.assert_array_equal(read_image(tmp_path / "n.npy"), image)
    far = np.where(there, whole, np.float32(1e9))
    import rasterio

    for inside in (True, False):  # in the file, or as a file beside it
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside):
            image = read_image(geotiff(tmp_path / f"m{inside}.tif", far, mask=there))
        np.testing.assert_array_equal(image[:, :-4], expected)
    deep = (RGB.astype(np.uint16) * 9).transpose(2, 0, 1)
    alpha = np.where(there, 65535, 0).astype(np.uint16)
    bands = np.concatenate([deep, alpha[None]]).transpose(1, 2, 0)
    tifffile.imwrite(tmp_path / "rgba.tif", bands, photometric="rgb", extrasamples=["unassalpha"])
    image = read_image(tmp_path / "rgba.tif")
    geotiff(tmp_path / "rgb.tif", deep[..., :-4], photometric="rgb")
    np.testing.assert_array_equal(image[:, :-4], read_image(tmp_path / "rgb.tif"))
    assert not image[:, -4:].any()


def test_a_white_pixel_is_none_without_data(tmp_path):
    """A saturated channel has the value that stands for nothing, but its pixel has data."""
    picture = RGB.copy()
    picture[3, 4], picture[:, -4:] = (255, 200, 255), 255
    geotiff(tmp_path / "a.tif", picture.transpose(2, 0, 1), nodata=255)
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image[3, 4], [255, 200, 255])
    assert not image[:, -4:].any()


@pytest.mark.parametrize("compress", ["LZW", "DEFLATE", "ZSTD", "PACKBITS"])
def test_overviews_and_compressions(tmp_path, compress):
    path = geotiff(tmp_path / "a.tif", RGB.transpose(2, 0, 1), compress=compress, tiled=True,
                   blockxsize=16, blockysize=16, BIGTIFF="YES", overviews=True)  # fmt: skip
    with remarks() as notes:
        np.testing.assert_array_equal(read_image(path), RGB)
    assert notes == []


def test_without_rasterio_pixels_are_the_same_or_refused(tmp_path, monkeypatch, capfd):
    """Pillow and OpenCV narrow 16 bits, drop bands and spread bits, of which none may be seen."""
    deep = RNG.integers(0, 65536, (5, 20, 24)).astype(np.uint16)
    kinds = {
        "rgb": (deep[:3].astype(np.uint8), {"photometric": "RGB"}),
        "rgb16": (deep[:3], {"photometric": "RGB"}),
        "rgba16": (deep[:4], {"photometric": "RGB", "alpha": "YES"}),
        "float": (deep[:1] / np.float32(3), {}), "double": (deep[:1] / 3, {}),
        "signed": (deep[:1].astype(np.int16), {}), "int8": (deep[:1].astype(np.int8), {}),
        "long": (deep[:1].astype(np.uint32) << 16, {}),
        "white": (deep[:1], {"photometric": "MINISWHITE"}),
        "white8": (deep[:1].astype(np.uint8), {"photometric": "MINISWHITE"}),
        "bit": (deep[:1].astype(np.uint8) % 2, {"nbits": 1, "photometric": "MINISWHITE"}),
        "bits": (deep[:1].astype(np.uint8) % 16, {"nbits": 4}),
        "inks": (deep[:4].astype(np.uint8), {"photometric": "CMYK"}),
    }  # fmt: skip
    lost = {"two": deep[:2], "five": deep, "bytes": deep[:2].astype(np.uint8)}
    for name, (bands, more) in kinds.items():
        geotiff(tmp_path / f"{name}.tif", bands, compress="LZW", **more)
    for name, bands in lost.items():
        for order in ("PIXEL", "BAND"):
            path = tmp_path / f"{name}_{order}.tif"
            geotiff(path, bands, compress="LZW", interleave=order)
    paths = [tmp_path / f"{name}.tif" for name in kinds]
    expected = [(read_image(path), read_tiff(path, False)) for path in paths]
    np.testing.assert_array_equal(expected[1][1], deep[:3].transpose(1, 2, 0))
    inks = kinds["inks"][0].astype(float) / 255
    light = ((1 - inks[:3]) * (1 - inks[3]) * 255).transpose(1, 2, 0)
    np.testing.assert_allclose(expected[-1][1], light, atol=2)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    for path, (image, mask) in zip(paths, expected, strict=True):
        close = 1 if path.stem == "inks" else 0
        np.testing.assert_allclose(read_tiff(path, False), mask, atol=close, err_msg=path.stem)
        np.testing.assert_allclose(read_image(path), image, atol=close, err_msg=path.stem)
    for name in lost:
        for order in ("PIXEL", "BAND"):
            with pytest.raises(InputError, match=r"samtune\[geo\]"):
                read_image(tmp_path / f"{name}_{order}.tif")
    assert capfd.readouterr().err == ""


def test_white_is_zero(tmp_path):
    Image.fromarray(BITS.astype(np.uint8) * 255).convert("1").save(
        tmp_path / "m.tif", tiffinfo={262: 0}
    )
    np.testing.assert_array_equal(read_mask(tmp_path / "m.tif"), BITS)
    np.testing.assert_array_equal(read_image(tmp_path / "m.tif")[..., 0], BITS * 255)
    for values in (GREY, GREY.astype(np.uint16) * 100):
        tifffile.imwrite(tmp_path / "g.tif", values, photometric="miniswhite")
        np.testing.assert_array_equal(
            read_mask(tmp_path / "g.tif"), np.iinfo(values.dtype).max - values
        )
    group = tmp_path / "fax.tif"
    Image.fromarray(BITS.astype(np.uint8) * 255).convert("1").save(
        group, compression="group4", tiffinfo={262: 0}
    )
    np.testing.assert_array_equal(np.asarray(Image.open(group)), BITS)
    np.testing.assert_array_equal(read_mask(group) > 0, BITS)


def test_inks_ycbcr_and_lab_are_colours(tmp_path):
    inks = np.zeros((4, 4, 4), np.uint8)
    inks[:2, :, 0], inks[2:, :, 3] = 255, 128  # cyan, and grey of black ink
    Image.fromarray(inks, "CMYK").save(tmp_path / "cmyk.tif")
    image = read_image(tmp_path / "cmyk.tif")
    assert image[0, 0].tolist() == [0, 255, 255] and image[3, 3].tolist() == [127] * 3
    colours = np.zeros((16, 16, 3), np.uint8)
    colours[:8], colours[8:] = (200, 90, 60), (20, 40, 180)
    picture = Image.fromarray(colours)
    picture.convert("YCbCr").save(tmp_path / "ycbcr.tif")
    picture.convert("YCbCr").save(tmp_path / "jpeg.tif", compression="jpeg", quality=95)

    lab = ImageCms.profileToProfile(
        picture, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    lab.save(tmp_path / "lab.tif")
    for name in ("ycbcr.tif", "jpeg.tif", "lab.tif"):
        image = read_image(tmp_path / name).astype(int)
        assert np.abs(image[2, 2] - (200, 90, 60)).max() < 8, name
        assert np.abs(image[13, 13] - (20, 40, 180)).max() < 8, name


def test_pages(tmp_path, refused):
    pages = np.stack([GREY, GREY // 2, GREY // 3])
    tifffile.imwrite(tmp_path / "p.tif", pages, photometric="minisblack")
    refused(["p.tif", "3 pages", "data.bands=[i,j,k]"], read_image, tmp_path / "p.tif")
    chosen = read_image(tmp_path / "p.tif", policy_of(DataConfig(bands=(2, 1, 0))))
    np.testing.assert_array_equal(chosen[..., 2], GREY)
    refused(["p.tif", "(3, 20, 24)"], read_mask, tmp_path / "p.tif")
    with tifffile.TiffWriter(tmp_path / "two.tif") as file:
        file.write(RGB)
        file.write(RGB[:5, :7])
    with remarks() as notes:
        np.testing.assert_array_equal(read_image(tmp_path / "two.tif"), RGB)
    assert [note.kind for note in notes] == ["several pages"]


def test_rows_that_a_file_has_not_are_no_black_ones(tmp_path, refused):
    tifffile.imwrite(tmp_path / "a.tif", RGB, compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages.first.tags["ImageLength"].overwrite(5000)
    refused(["a.tif", "1 of the 250 parts that its 5000 rows need"], read_image, tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientation(tmp_path, orientation):
    tifffile.imwrite(tmp_path / "o.tif", RGB, extratags=[(274, "H", 1, orientation, True)])
    Image.fromarray(RGB).save(tmp_path / "o.png", exif=exif(orientation))
    np.testing.assert_array_equal(read_image(tmp_path / "o.tif"), read_image(tmp_path / "o.png"))


def exif(orientation):
    made = Image.Exif()
    made[0x0112] = orientation
    return made
