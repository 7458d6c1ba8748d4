"""What is found without prompts, beside the objects of a data set."""

import math

import numpy as np
import pytest
from PIL import Image

import samtune
from samtune.data import DataConfig, SegmentationDataset, splits
from samtune.errors import InputError
from samtune.evaluation import automatic
from samtune.evaluation.automatic import automatic_metrics, evaluate_automatic
from samtune.inference.everything.instances import Instances
from samtune.metrics.config import EvalConfig
from samtune.model.finetuned import FineTuned

SIZE = (40, 60)


def map_of(index):
    """Objects of 6 x 6 pixels, ``index`` of them; the last one is a single pixel."""
    labels = np.zeros(SIZE, np.uint8)
    for k in range(index):
        labels[4 + 9 * (k // 6) : 10 + 9 * (k // 6), 4 + 9 * (k % 6) : 10 + 9 * (k % 6)] = k + 1
    if index > 1:
        labels[labels == index] = 0
        labels[-1, -1] = index
    return labels


@pytest.fixture
def folder(tmp_path):
    """Four images with 0, 1, 4 and 9 objects; the red of an image is its number."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for index in (0, 1, 4, 9):
        picture = np.full((*SIZE, 3), 17, np.uint8)
        picture[..., 0] = index
        Image.fromarray(picture).save(tmp_path / "images" / f"{index}.png")
        Image.fromarray(map_of(index)).save(tmp_path / "masks" / f"{index}.png")
    return tmp_path


def dataset_of(folder, **settings):
    config = DataConfig(root=str(folder), masks="instance", **settings)
    records = [record for part in splits(config).values() for record in part]
    records = sorted(records, key=lambda record: record.name)
    return SegmentationDataset(records, config, (64, 64), mask_size=(32, 32))


@pytest.fixture(scope="module")
def model(sam):
    return FineTuned(sam, "none", "frozen")


def right(image):
    """Finds everything, as only the truth does."""
    return Instances.of_label_map(map_of(int(image[0, 0, 0])))


def blind(image):
    """Finds nothing."""
    return Instances.none(image.shape[:2])


def halves(image):
    """Finds each object of the first row twice, and nothing else."""
    labels = map_of(int(image[0, 0, 0]))
    return Instances.of_masks([labels == k for k in (1, 1, 2, 2) if (labels == k).any()], SIZE)


def test_the_truth_scores_one_and_nothing_scores_zero(folder, model):
    dataset, seen = dataset_of(folder), []
    found = evaluate_automatic(
        model, dataset, right, progress=lambda *at: seen.append(at), measuring=EvalConfig()
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    expected = ("iou", "dice", "ap", "ap50", "msa", "pq", "aji")
    assert [found.metrics[name] for name in expected] == pytest.approx([1] * 7)
    assert found.metrics["objects"] == 14 and found.metrics["count_error"] == 0
    assert [(row["objects"], row["masks"], row["matches"]) for row in found.items] == [
        (n, n, n) for n in (0, 1, 4, 9)
    ]
    assert math.isnan(found.items[0]["iou"]) and found.images_per_second > 0
    nothing = evaluate_automatic(model, dataset, blind)
    assert [nothing.metrics[name] for name in expected] == [0] * 7
    assert nothing.metrics["count_bias"] == -14 / 4
    drawn = nothing.draws.values["msa"]  # those of the empty image alone have none
    assert np.nanmax(drawn) == 0 and "aji_plus" not in nothing.metrics


def test_a_target_counts_once_and_a_second_mask_of_it_is_wrong(folder, model):
    found = evaluate_automatic(model, dataset_of(folder), halves)
    assert found.metrics["iou"] == pytest.approx(5 / 14)  # 1 + 2 + 2 of 14 objects
    assert [row["masks"] for row in found.items] == [0, 2, 4, 4]
    assert found.metrics["sa50"] == pytest.approx(np.mean([1 / 2, 2 / 6, 2 / 11]))
    assert found.metrics["count_error"] == pytest.approx((1 + 0 + 5) / 4)


def test_objects_that_an_evaluation_leaves_out_are_neither_missed_nor_wrong(folder, model):
    dataset = dataset_of(folder, min_area_fraction=0.1)  # the single pixels are below it
    assert evaluate_automatic(model, dataset, right).metrics["objects"] == 12
    with_small, without = (
        evaluate_automatic(model, dataset, finds).metrics
        for finds in (right, lambda image: right(image).only(right(image).areas > 1))
    )
    for name in ("msa", "ap", "pq", "count_error", "iou"):
        assert with_small[name] == without[name], name
    assert without["msa"] == 1 and without["count_error"] == 0


def test_python_measures_automatic_modes_beside_prompts(folder, model, monkeypatch):
    monkeypatch.setattr(automatic, "generator_of", lambda *settings: right)
    data = samtune.open_data(str(folder), masks="instance")
    split = data.train
    found = samtune.evaluate(model, split, prompts="everything,box")
    assert list(found.by_prompt) == ["everything", "box"]
    assert found.metrics["msa"] == 1 and "msa" not in found.by_prompt["box"].metrics
    alone = samtune.evaluate(model, split, prompts=["everything"])
    assert not alone.by_prompt and alone.metrics["iou"] == 1
    prepared = samtune.prepare(split, model)
    assert samtune.evaluate(model, prepared, prompts="everything").metrics["aji"] == 1


def test_what_cannot_be_asked_for_is_said(folder, model, refused):
    with pytest.raises(InputError, match="is for evaluation alone"):
        FineTuned(model.sam, "none", "tuned", prompts="everything")
    with pytest.raises(InputError, match="instances"):
        automatic.generator_of(model, "instances")
    with pytest.raises(InputError, match=r"eval=everythin: .*did you mean .everything"):
        samtune.PromptConfig(eval="everythin")
    config = samtune.PromptConfig(train="point", eval="box,everything,instances")
    assert config.evaluated_modes == ("box", "everything", "instances")
    assert config.modes(train=False).names == ("box",)
    assert samtune.PromptConfig(train="point", eval="everything").modes(False).names == ("point",)


def test_metrics_that_need_a_package_are_measured_if_they_are_asked_for():
    assert "aji_plus" not in automatic_metrics(EvalConfig())
    assert "aji_plus" in automatic_metrics(EvalConfig(("instances",)))
