"""Predictions are written where nothing of anybody else's lies."""

import os

import numpy as np
import pytest
from pictures import blob, picture, save
from PIL import Image

from samtune.inference.places import Places, refuse_source, signed_png


@pytest.fixture
def root(tmp_path):
    for i in range(2):
        save(tmp_path / "set/images" / f"a{i}.png", picture(seed=i))
        save(tmp_path / "set/masks" / f"a{i}.png", blob())
    return tmp_path / "set"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_read_is_never_written_onto(root, tmp_path, refused, monkeypatch):
    before = contents(root)
    (tmp_path / "link").symlink_to(root / "images")
    for out in (root / "images", root / "images/deep/er", root / "masks/../images", root,
                tmp_path / "link"):  # fmt: skip
        line = refused([f"--out={out}", "-predicted"], refuse_source, out, root / "images")
        assert not os.path.exists(line.rpartition("--out=")[2])
    refused("--out", refuse_source, root / "images", root / "images/a0.png")
    monkeypatch.chdir(root / "images")
    refused("--out=.", refuse_source, ".", ".")
    refuse_source(tmp_path / "o", root / "images")
    refuse_source("o", "a0.png")
    assert contents(root) == before


def test_files_that_a_prediction_did_not_write_are_kept(root, tmp_path, refused):
    def places(out, names=("a0", "a1"), **options):
        return Places.of(out, root / "images", names, **options)

    refused([f"--out={root / 'masks'}", "a0.png"], places, root / "masks")
    refused(["--out", "a0.png"], places, root / "masks", ("b",))
    out = tmp_path / "out"
    (out / "overlays").mkdir(parents=True)
    for file in (places(out).mask("a0"), places(out).overlay("a0")):
        file.write_bytes(signed_png(blob()))
    places(out).entries.write_text("[]")
    assert places(out).folder == out
    save(out / "overlays/a1.png", picture())
    refused("overlays/a1.png", places, out)
    assert places(out, overlays=False).folder == out
    (out / "overlays/a1.png").unlink()
    with Image.open(places(out).mask("a0")) as opened:  # somebody corrected it, and kept its texts
        pixels, texts = np.array(opened), opened.info
    pixels[0, 0] ^= 255
    info = Image.fromarray(pixels)
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("samtune", texts["samtune"])
    info.save(places(tmp_path / "none").folder.with_name("out") / "a0.png", pnginfo=text)
    refused("a0.png", places, out)
    (out / "a0.png").unlink()
    (out / "predictions.json").write_text('{"mine": 1}')
    refused("predictions.json", places, out)


def test_a_file_of_prompts_is_not_written_over(root, tmp_path, refused):
    (tmp_path / "out").mkdir()
    file = tmp_path / "out/predictions.json"
    file.write_text("[]")
    refused("predictions.json", Places.of, file.parent, root / "images", ["a0"], [file, None])
