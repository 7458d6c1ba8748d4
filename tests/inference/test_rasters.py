from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samtune.data.reading import read_image
from samtune.data.windows import Windows
from samtune.errors import OutputError
from samtune.inference.folder import predict_folder
from samtune.inference.rasters import predict_raster
from samtune.inference.strips import Strips
from samtune.model.finetuned import FineTuned

rasterio = pytest.importorskip("rasterio")
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


class Killed(BaseException):
    """What no handler expects."""


@pytest.fixture
def field(tmp_path):
    """A raster of 150 x 210 pixels in its place on the ground."""
    from rasterio.transform import from_origin

    values = np.random.default_rng(0).integers(0, 255, (3, 150, 210)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    with rasterio.open(
        tmp_path / "in" / "field.tif", "w", driver="GTiff", width=210, height=150, count=3,
        dtype="uint8", crs="EPSG:32633", transform=from_origin(5e5, 5e6, 2, 2),
    ) as file:  # fmt: skip
        file.write(values)
    return tmp_path / "in" / "field.tif"


def tiled(sam, decoder, prompts="none", **options):
    model = FineTuned(sam, "none", decoder, decoder_options=options, prompts=prompts)
    model.input = replace(model.input, tiles="tiled", overlap=0.3)
    return model.predictor()


def whole_mask(predictor, path):
    predictor.set_image(read_image(path, predictor.model.input))
    masks = predictor.predict(multimask_output=False)[0]
    return masks.argmax(0) if predictor.model.acting.decoder.classes else masks[0]


@pytest.mark.parametrize("wide", [2**28, 1])
@pytest.mark.parametrize("decoder", [("tuned", {}), ("semantic", {"classes": 3})])
def test_tile_by_tile_a_raster_has_the_mask_that_it_has_as_a_whole(
    sam, field, tmp_path, monkeypatch, wide, decoder
):
    monkeypatch.setattr("samtune.inference.rasters.BAND_BYTES", wide)  # 1: several columns
    predictor, seen = tiled(sam, decoder[0], **decoder[1]), []

    def note(done, total):
        seen.append((done, total))
        if len(seen) == stop:
            raise Killed

    stop, words = (3 if wide > 1 else 5), (predictor, field, tmp_path / "out.tif", note)
    with pytest.raises(Killed):
        predict_raster(*words, "all settings")
    strips = tmp_path / "out.tif.strips"
    strips.write_bytes(strips.read_bytes()[:-1])  # the last strip is not complete
    size, tiles, before = predict_raster(*words, "all settings")
    assert size == (150, 210) and before == seen[stop - 2][0] and seen[stop] == seen[stop - 1]
    assert tiles == seen[-1][0] == seen[-1][1] > 10 and not strips.exists()
    whole = predict_raster(predictor, field, tmp_path / "whole.tif", lambda *_: None)
    assert whole == (size, tiles, 0)
    assert (tmp_path / "whole.tif").read_bytes() == (tmp_path / "out.tif").read_bytes()
    with rasterio.open(tmp_path / "out.tif") as file, rasterio.open(field) as source:
        assert file.crs == source.crs and file.transform == source.transform
        values = file.read(1)
    wanted = whole_mask(predictor, field)
    assert (values != wanted).mean() < 0.002 and 0 < (values > 0).mean() < 1


def test_a_large_raster_goes_on_tile_by_tile_after_a_stop(sam, field, tmp_path, monkeypatch):
    predictor = tiled(sam, "semantic", classes=3)
    out, how = tmp_path / "out", {"formats": ["geotiff"]}
    predict_folder(predictor, field.parent, tmp_path / "whole", **how)
    monkeypatch.setattr("samtune.inference.answering.LARGE", 1000)
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(field.parent / "x.png")
    with pytest.raises(Exception, match=r"x\.png has no georeference"):
        predict_folder(predictor, field.parent, out, **how)
    (field.parent / "x.png").unlink()
    (field.parent / "z.tif").write_bytes(field.read_bytes()[:99])

    at = []

    def killed(done, total):
        at.append((done, total))
        raise Killed

    def stopped(**where):
        with pytest.raises(Killed):
            predict_folder(predictor, field.parent, out, **where, **how)

    stopped(tiles=killed)
    stopped(tiles=killed)
    one, tiles = at[0]
    assert at[1] == (2 * one, tiles)  # after the next row of tiles
    predictor.threshold = 0.5
    stopped(tiles=killed)
    assert at[2] == (one, tiles)  # another prediction takes nothing over
    predictor.threshold = 0.0
    stopped(tiles=killed)
    answer = predict_folder(predictor, field, out, **how)
    assert answer["remarks"][0].startswith(f"note: {field}: goes on after {one} of its {tiles}")
    stopped(progress=killed)
    assert (out / ".samtune-rasters" / "field.tif").is_file()
    monkeypatch.setattr(
        "samtune.inference.answering.predict_raster", lambda *_: pytest.fail("again")
    )
    answer = predict_folder(predictor, field.parent, out, **how)
    assert answer["images"] == 1 and "z.tif" in answer["failed"][0]["file"]
    assert "1 of 2 images is large and answered tile by tile" in " ".join(answer["remarks"])
    assert (out / "predictions.partial.jsonl").is_file() and (out / "geotiff").is_dir()
    (field.parent / "z.tif").unlink()
    answer = predict_folder(predictor, field.parent, out, **how)
    assert answer["images"] == 1 and not answer["failed"]
    assert {p.name for p in out.iterdir()} == {"geotiff", "predictions.json"}
    files = [tmp_path / "whole" / "geotiff" / "field.tif", out / "geotiff" / "field.tif"]
    one, other = (rasterio.open(file).read(1) for file in files)
    assert (one != other).mean() < 0.002


def test_a_full_disk_or_one_error_of_reading_costs_no_tile_that_is_done(
    sam, field, tmp_path, monkeypatch
):
    monkeypatch.setattr("samtune.inference.answering.LARGE", 1000)
    predictor, out = tiled(sam, "tuned"), tmp_path / "out"
    how = {"formats": ["geotiff"]}
    strips = out / ".samtune-rasters" / "field.tif.strips"
    add = Strips.add

    def full(self, window, values):
        if len(self.windows) == 1:
            raise OutputError("no room")
        add(self, window, values)

    def linked_to_full_disk(source, target):
        Path(target).write_bytes(Path(source).read_bytes())
        raise OutputError("no room")

    def unreadable(self, window):
        raise rasterio.errors.RasterioIOError("read failed")

    with monkeypatch.context() as patch:
        patch.setattr(Strips, "add", full)
        with pytest.raises(OutputError, match="no room"):
            predict_folder(predictor, field, out, **how)
    assert (out / "predictions.partial.jsonl").is_file() and strips.is_file()
    one = strips.stat().st_size
    with monkeypatch.context() as patch:
        patch.setattr(Windows, "read", unreadable)
        answer = predict_folder(predictor, field, out, **how)
    assert answer["images"] == 0
    assert "the same command goes on after the tiles so far" in answer["failed"][0]["reason"]
    assert strips.stat().st_size == one
    changed = strips.read_bytes().replace(b'"window": [0, 0', b'"window": [2, 0')
    for damage in (False, True):
        if damage:
            strips.parent.mkdir()
            strips.write_bytes(changed)
            with monkeypatch.context() as patch:
                patch.setattr("samtune.inference.writers.geotiff.os.link", linked_to_full_disk)
                with pytest.raises(OutputError, match="no room"):
                    predict_folder(predictor, field, out, **how)
            assert strips.with_suffix("").is_file() and not strips.exists()
        answer = predict_folder(predictor, field, out, **how)
        assert answer["images"] == 1 and not strips.parent.exists()
        assert ("goes on after" in answer["remarks"][0]) is not damage


def test_prompts_or_another_format_need_the_image_as_a_whole(sam, field, tmp_path, monkeypatch):
    monkeypatch.setattr("samtune.inference.answering.LARGE", 1000)
    monkeypatch.setattr(
        "samtune.inference.answering.predict_raster", lambda *_: pytest.fail("tiles")
    )
    predictor = tiled(sam, "tuned", "all")
    asked = {"*": {"boxes": [[5, 5, 60, 60]]}}
    for prompts, formats in ((asked, ["geotiff"]), ({}, ["geotiff", "coco"]), ({}, ["png"])):
        answer = predict_folder(
            predictor, field, tmp_path / f"{len(formats)}{len(prompts)}{formats[-1]}",
            prompts=prompts, formats=formats, overlays=False,
        )  # fmt: skip
        assert answer["images"] == 1
