import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from samtune.data import read_image
from samtune.inference.everything.config import EverythingConfig
from samtune.inference.everything.folder import everything_folder
from samtune.inference.everything.generator import MaskGenerator
from samtune.inference.everything.instances import Instances
from samtune.inference.predictor import PromptMismatch
from samtune.model.checkpoint import load

# pycocotools 2.0 decodes through an old way into NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LOOSE = [
    "everything.points_per_side=3",
    "everything.pred_iou_thresh=0",
    "everything.stability_score_thresh=0",
]


@pytest.fixture
def ask(samtune, trained, tmp_path):
    """``ask(*words)``: everything in the training run's images; the answer and the folder."""

    def run(*words, source=trained.root / "images", out=tmp_path / "out"):
        weights = f"base.weights={trained.base}"
        fixed = ["everything", trained.checkpoint, source, weights, "--out", out, "--json"]
        return samtune(*fixed, *words), out

    return run


def test_a_folder_is_numbered_outlined_and_counted(ask, trained, sam):
    answer, out = ask(*LOOSE, "--as", "png,coco,geojson,geotiff", source=trained.root / "images")
    assert answer.code == 2 and "no georeference" in answer.err  # before anything is done
    answer, out = ask(*LOOSE, "--as", "png,coco,geojson")
    assert answer.code == 0, answer.err
    entries = json.loads((out / "predictions.json").read_text())
    assert answer.json["images"] == 8 and answer.json["instances"] == len(entries) > 8
    model = load(trained.checkpoint, sam)
    loose = {"points_per_side": 3, "pred_iou_thresh": 0, "stability_score_thresh": 0}
    with pytest.warns(PromptMismatch):
        generator = MaskGenerator(model, **loose)
    instances = generator(read_image(trained.root / "images" / "03.png"))
    mine = [entry for entry in entries if entry["image"] == "03.png"]
    assert [entry["segmentation"]["counts"] for entry in mine] == list(instances.counts)
    picture = np.asarray(Image.open(out / "03.png"))
    assert picture.dtype == np.uint16 and np.array_equal(picture, instances.label_map())
    overlay = np.asarray(Image.open(out / "overlays" / "03.png"))
    assert overlay.shape[0] > 48 and overlay.shape[1] >= 64
    tree = json.loads((out / "coco" / "annotations.json").read_text())
    assert len(tree["annotations"]) == len(entries)
    features = json.loads((out / "geojson" / "03.geojson").read_text())["features"]
    assert len(features) == len(mine)


def test_counts_and_the_edges_of_what_an_image_can_be(samtune, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    Image.new("RGB", (1, 1), "white").save(source / "dot.png")
    Image.new("RGB", (64, 48), "grey").save(source / "blank.png")
    rows, columns = np.mgrid[:64, :64]
    Image.fromarray(np.where(rows + columns > 0, 200, 0).astype(np.uint8)).save(source / "full.png")
    words = ["everything", "nano", source, "--out", out, "everything.points_per_side=2", "--json"]
    answer = samtune(*words, "everything.pred_iou_thresh=1")
    assert answer.code == 0, answer.err
    assert answer.json["instances"] == 0 and "no mask passed pred_iou_thresh 1" in answer.err
    table = (out / "counts.csv").read_text().splitlines()
    assert table[0].startswith("image,width,height,objects,mean_area") and len(table) == 4
    assert "dot.png,1,1,0,,,0," in table
    loose = ["everything.pred_iou_thresh=0", "everything.stability_score_thresh=0"]
    answer = samtune(*words, *loose)
    assert answer.code == 0 and answer.json["images"] == 3, answer.err
    entries = json.loads((out / "predictions.json").read_text())
    by_image = [line.split(",") for line in (out / "counts.csv").read_text().splitlines()[1:]]
    assert sum(int(row[3]) for row in by_image) == len(entries) == answer.json["instances"] > 0
    (out / "counts.csv").write_text("mine\n")
    assert "did not write" in samtune(*words).line


def test_an_interrupted_folder_goes_on_and_a_bad_image_is_listed(trained, sam, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for i in range(3):
        Image.open(trained.root / "images" / f"{i:02}.png").save(source / f"{i}.png")
    asked = []

    class Stopping:
        """Finds the image itself; the second time it stops."""

        def __init__(self):
            self.model, self.precision = load(trained.checkpoint, sam), "fp32"
            self.config = EverythingConfig()

        def __call__(self, image):
            asked.append(image.shape)
            if len(asked) == 2:
                raise KeyboardInterrupt
            return Instances.of_masks([np.ones(image.shape[:2], bool)], image.shape[:2], [0.5])

    with pytest.raises(KeyboardInterrupt):
        everything_folder(Stopping(), source, out)
    (source / "2.png").write_bytes(b"no picture")
    result = everything_folder(Stopping(), source, out)
    assert len(asked) == 3  # the first image was kept
    assert result["images"] == 2 and result["instances"] == 2
    assert [failed["file"].endswith("2.png") for failed in result["failed"]] == [True]
    assert any("done by an earlier call" in remark for remark in result["remarks"])


def test_a_raster_has_the_number_of_each_instance(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    from tiny import base

    from samtune.model.finetuned import FineTuned

    file = tmp_path / "in.tif"
    with rasterio.open(
        file, "w", driver="GTiff", width=40, height=30, count=3, dtype="uint8",
        crs="EPSG:32633", transform=rasterio.Affine(2, 0, 500000, 0, -2, 5000000),
    ) as raster:  # fmt: skip
        raster.write(np.random.default_rng(0).integers(0, 255, (3, 30, 40)).astype(np.uint8))
    generator = MaskGenerator(
        FineTuned(base()),
        points_per_side=3,
        pred_iou_thresh=0,
        stability_score_thresh=0,
        box_nms_thresh=1,
    )
    everything_folder(generator, file, tmp_path / "out", formats=["geotiff"], overlays=False)
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
    with rasterio.open(tmp_path / "out" / "geotiff" / "in.tif") as raster:
        numbers = raster.read(1)
    assert set(np.unique(numbers)) <= set(range(len(entries) + 1)) and numbers.max() > 1
    assert coco.decode(entries[0]["segmentation"]).shape == (30, 40)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["everything.points_per_side=0"], "everything.points_per_side=0"),
        (["everything.point_per_side=3"], "did you mean"),
        (["points_per_side=3"], "everything.points_per_side"),
        (["train.lr=1"], "everything does not use train.lr"),
        (["output=x"], "give --out x"),
        (["--as", "word"], "--as word: must be one of"),
        (["everything.crop_n_layers=1", "input.tiles=tiled"], "crop_n_layers=1: the model cuts"),
    ],
)
def test_wrong_words_are_one_line(ask, words, line):
    assert line in ask(*words)[0].line


def test_a_setting_of_everything_is_refused_where_it_has_no_use(samtune, trained, tmp_path):
    words = ["predict", trained.checkpoint, trained.root / "images", "--out", tmp_path / "o"]
    line = samtune(*words, "everything.points_per_side=3").line
    assert "predict does not use everything.points_per_side" in line
    assert "samtune everything" in line
