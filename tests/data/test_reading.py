import errno

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from samtune.data import (
    DataConfig,
    Record,
    image_size,
    label_objects,
    read_image,
    read_mask,
    read_sample,
)
from samtune.data.problems import remarks
from samtune.data.scan import look

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 3), np.uint8)
GREY = RGB[..., 0].copy()


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("rgb.png", RGB, RGB),
        ("rgb.bmp", RGB, RGB),
        ("rgb.tif", RGB, RGB),
        ("rgba.png", np.dstack([RGB, GREY]), RGB),
        ("grey.png", GREY, GREY[..., None].repeat(3, 2)),
        ("grey.tiff", GREY, GREY[..., None].repeat(3, 2)),
        ("grey.pgm", GREY, GREY[..., None].repeat(3, 2)),
        ("bits.png", GREY > 99, ((GREY > 99) * np.uint8(255))[..., None].repeat(3, 2)),
    ],
)
def test_8_bit_images_keep_their_values(tmp_path, save_image, name, array, expected):
    path = save_image(tmp_path / name, array)
    image = read_image(path)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)
    assert image_size(path) == (6, 9)


def test_grey_with_alpha_drops_alpha(tmp_path):
    path = tmp_path / "la.png"
    Image.fromarray(np.dstack([GREY, 255 - GREY]), "LA").save(path)
    np.testing.assert_array_equal(read_image(path), GREY[..., None].repeat(3, 2))
    np.testing.assert_array_equal(read_mask(path), GREY)


@pytest.mark.parametrize("suffix", [".png", ".gif", ".tif"])
def test_palettes_are_colours_in_images_and_indices_in_masks(tmp_path, suffix):
    index = (GREY % 3).astype(np.uint8)
    image = Image.fromarray(index, "P")
    palette = [10, 20, 30, 200, 0, 0, 0, 0, 255]
    image.putpalette(palette)
    path = tmp_path / f"palette{suffix}"
    image.save(path)
    np.testing.assert_array_equal(read_image(path), np.array(palette).reshape(3, 3)[index])
    np.testing.assert_array_equal(read_mask(path), index)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_16_bit_images_are_scaled_by_percentiles(tmp_path, save_image, name):
    deep = np.linspace(1000, 5000, 200 * 10).astype(np.uint16).reshape(200, 10)
    deep[0, 0], deep[-1, -1] = 0, 65535
    image = read_image(save_image(tmp_path / name, deep))[..., 0]
    low, high = np.percentile(deep, (0.5, 99.5))
    expected = np.clip((deep - low) / (high - low) * 255 + 0.5, 0, 255).astype(np.uint8)
    assert np.abs(image.astype(int) - expected).max() <= 1
    assert (image.min(), image.max()) == (0, 255)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_16_bit_colour_keeps_the_order_of_channels(tmp_path, name):
    import cv2

    deep = np.stack([np.full((20, 20), v, np.uint16) for v in (100, 2000, 4000)], 2)
    if name.endswith("tif"):
        tifffile.imwrite(tmp_path / name, deep, photometric="rgb")
    else:
        cv2.imwrite(str(tmp_path / name), deep[..., ::-1])
    image = read_image(tmp_path / name)
    assert image[0, 0].tolist() == [0, 124, 255]


def test_float_and_planar_tiff(tmp_path):
    plane = np.linspace(-1, 1, 3 * 20 * 30, dtype=np.float32).reshape(3, 20, 30)
    tifffile.imwrite(tmp_path / "f.tif", plane, photometric="rgb", planarconfig="separate")
    image = read_image(tmp_path / "f.tif")
    assert image.shape == (20, 30, 3)
    assert image[0, 0, 0] == 0
    assert image[-1, -1, 2] == 255


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiff(tmp_path, compression):
    Image.fromarray(RGB).save(tmp_path / "c.tif", compression=compression)
    np.testing.assert_array_equal(read_image(tmp_path / "c.tif"), RGB)


def test_constant_deep_image_is_black_not_broken(tmp_path, save_image):
    assert read_image(save_image(tmp_path / "c.png", np.full((4, 4), 700, np.uint16))).max() == 0


def test_exif_orientation_is_applied(tmp_path):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: to be rotated clockwise by 90 degrees
    path = tmp_path / "turned.jpg"
    Image.fromarray(np.rot90(upright).copy()).save(path, exif=exif, quality=95)
    image = read_image(path)
    assert image.shape == (16, 32, 3)
    assert image_size(path) == (16, 32)
    assert image[:, :12].min() > 200
    assert image[:, 20:].max() < 50


def test_masks_keep_deep_and_grey_values(tmp_path, save_image):
    deep = RNG.integers(0, 60000, (5, 7)).astype(np.uint16)
    for name in ("m.png", "m.tif"):
        np.testing.assert_array_equal(read_mask(save_image(tmp_path / name, deep)), deep)
    grey = GREY[..., None].repeat(3, 2)
    np.testing.assert_array_equal(read_mask(save_image(tmp_path / "g.png", grey)), GREY)
    rgba = np.dstack([grey, np.full_like(GREY, 255)])
    np.testing.assert_array_equal(read_mask(save_image(tmp_path / "a.png", rgba)), GREY)
    tifffile.imwrite(tmp_path / "f.tif", GREY.astype(np.float32))
    np.testing.assert_array_equal(read_mask(tmp_path / "f.tif"), GREY)


def test_coloured_and_fractional_masks_are_refused(tmp_path, save_image, refused):
    path = save_image(tmp_path / "c.png", RGB)
    refused([path, "coloured", "palette PNG"], read_mask, path)
    tifffile.imwrite(tmp_path / "f.tif", np.full((4, 4), 0.5, np.float32))
    refused(["f.tif", "fractions"], read_mask, tmp_path / "f.tif")


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.bmp"])
def test_truncated_and_foreign_files_are_refused(tmp_path, save_image, refused, name):
    path = save_image(tmp_path / name, RNG.integers(0, 256, (64, 64, 3), np.uint8))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused([path, "cannot be read as image", "replace"], read_image, path)
    refused([path, "cannot be read"], image_size, path)
    path.write_bytes(b"not an image")
    refused([path, "cannot be read as mask"], read_mask, path)
    path.write_bytes(b"")
    refused(path, read_image, path)
    path.unlink()
    refused([path, "no such image"], read_image, path)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "Too many open files")])
def test_what_the_machine_lacks_is_not_blamed_on_the_file(save_image, tmp_path, monkeypatch, error):
    def lacking(*_, **__):
        raise error

    path = save_image(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    monkeypatch.setattr("samtune.data.reading._pixels", lacking)
    with pytest.raises(type(error)):
        read_image(path)


def test_stacks_are_refused(tmp_path, refused):
    tifffile.imwrite(tmp_path / "z.tif", np.zeros((7, 16, 16), np.uint8), photometric="minisblack")
    refused(["z.tif", "7 channels", "slice"], read_image, tmp_path / "z.tif")


BLOB = np.zeros((16, 32), np.uint8)
BLOB[2:7, 4:20] = 255


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (9, 200, 40), (255,)])
def test_a_shape_in_the_alpha_channel_is_the_mask(tmp_path, refused, colour):
    flat = np.full((*BLOB.shape, len(colour)), colour, np.uint8)
    Image.fromarray(np.dstack([flat, BLOB])).save(tmp_path / "a.png")
    with remarks() as notes:
        np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), BLOB)
    assert [note.kind for note in notes] == ["mask in alpha"]
    clear = np.full_like(BLOB, 255)  # an alpha channel without a shape says nothing
    Image.fromarray(np.dstack([BLOB, BLOB, BLOB, clear])).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png"), BLOB)
    rgb = RNG.integers(0, 256, (*BLOB.shape, 3), np.uint8)
    Image.fromarray(np.dstack([rgb, BLOB])).save(tmp_path / "c.png")
    refused(["c.png", "alpha channel", "data.colors"], read_mask, tmp_path / "c.png")


def turned_pair(root, orientation, as_stored, shape=(16, 32)):
    """An image that EXIF turns, and its mask: of the pixels as stored, or upright."""
    stored = np.zeros((*shape, 3), np.uint8)
    mask = np.zeros(shape, np.uint8)
    mask[2:7, 4:12] = 255
    stored[mask > 0] = 200
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(root / "a.png", exif=exif)
    picture = Image.fromarray(mask)
    if not as_stored:
        picture.getexif()[0x0112] = orientation
        picture = ImageOps.exif_transpose(picture)
    picture.save(root / "m.png")
    return Record(root / "a.png", root / "m.png", "a")


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("as_stored", [True, False])
def test_masks_of_images_that_exif_turns(tmp_path, orientation, as_stored):
    record = turned_pair(tmp_path, orientation, as_stored)
    clear = orientation > 4  # of what the sizes tell
    found = look(record, DataConfig(turn_masks=as_stored and not clear), thorough=True)
    assert not found.problems
    kinds = {note.kind for note in found.remarks}
    assert kinds == ({"mask turned"} if clear and as_stored else
                     set() if clear or as_stored else {"EXIF orientation"})  # fmt: skip
    sample = read_sample(record, DataConfig(turn_masks=as_stored))
    np.testing.assert_array_equal(sample.labels.map > 0, sample.image[..., 0] > 0)
    square = turned_pair(tmp_path, orientation, as_stored, (16, 16))
    found = look(square, DataConfig(turn_masks=as_stored), thorough=True)
    assert {n.kind for n in found.remarks} == (set() if as_stored else {"EXIF orientation"})
    sample = read_sample(square, DataConfig(turn_masks=as_stored))
    np.testing.assert_array_equal(sample.labels.map > 0, sample.image[..., 0] > 0)


def test_pictures_of_any_size_that_memory_holds(tmp_path, monkeypatch, refused, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses twice as many
    Image.fromarray(np.dstack([BLOB] * 3)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (16, 32, 3)
    assert image_size(tmp_path / "a.png") == (16, 32)
    assert image_size(str(tmp_path / "a.png")) == (16, 32)
    assert read_image(str(tmp_path / "a.png")).shape == (16, 32, 3)
    np.testing.assert_array_equal(read_mask(str(tmp_path / "a.png")), BLOB)
    assert Image.MAX_IMAGE_PIXELS == 100 and not recwarn.list
    monkeypatch.setattr("os.sysconf", lambda name: 30)
    refused(["a.png", "32x16 pixels", "cut the image"], read_image, tmp_path / "a.png")


def test_soft_edges_are_pointed_at_the_threshold(tmp_path, refused):
    soft = np.asarray(Image.fromarray(BLOB).resize((50, 40), Image.Resampling.BICUBIC))
    Image.fromarray(soft).save(tmp_path / "s.png")
    words = ["s.png", "data.threshold=127"]
    values = read_mask(tmp_path / "s.png")
    refused(words, label_objects, values, DataConfig(), tmp_path / "s.png")
    cut = label_objects(values, DataConfig(threshold=127), tmp_path / "s.png")
    np.testing.assert_array_equal(cut.map, soft > 127)
    message = refused("s.png", label_objects, values // 60, DataConfig(), tmp_path / "s.png")
    assert "threshold" not in message
