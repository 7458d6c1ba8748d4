import numpy as np
import pytest
import tifffile
from pictures import blob, picture, save
from PIL import Image

from samtune.data import DataConfig
from samtune.data.check import check


@pytest.mark.parametrize(
    ("mode", "line"),
    [
        ("L", "1 in 3 images: all used"), ("RGB", "3 in 3 images: all used"),
        ("P", "3 in 3 images: all used"), ("LA", "2 in 3 images: 0 used, 1 not (alpha)"),
        ("RGBA", "4 in 3 images: 0, 1, 2 used, 3 not (alpha)"),
    ],
)  # fmt: skip
def test_a_check_says_which_bands_are_used(samtune, tmp_path, mode, line):
    for i in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(picture(seed=i)).convert(mode).save(tmp_path / "images" / f"{i}.png")
        save(tmp_path / "masks" / f"{i}.png", blob())
    answer = samtune("data", "check", tmp_path)
    assert f"bands of images, from 0: {line}" in answer.out


def test_bands_are_told_of_pictures_that_pillow_finds_large(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow refuses twice as many
    for i in range(3):
        save(tmp_path / "images" / f"{i}.png", picture(seed=i))
        save(tmp_path / "masks" / f"{i}.png", blob())
    assert check(DataConfig(root=str(tmp_path))).counts["bands"] == ["3 in 3 images: all used"]


def test_chosen_bands_are_told_from_the_others(tmp_path):
    for i in range(3):
        save(tmp_path / "masks" / f"{i}.png", blob())
        (tmp_path / "images").mkdir(exist_ok=True)
        bands = np.random.default_rng(i).integers(0, 999, (12, 16, 6)).astype(np.uint16)
        tifffile.imwrite(tmp_path / "images" / f"{i}.tif", bands, photometric="minisblack",
                         planarconfig="contig")  # fmt: skip
    found = check(DataConfig(root=str(tmp_path), bands=(4, 2, 1)))
    assert found.counts["bands"] == ["6 in 3 images: 4, 2, 1 used, 0, 3, 5 not"]
