import math

import pytest
import torch

from samtune.data import DataConfig, SegmentationDataset, collate, splits
from samtune.evaluation import chosen, evaluate, predict
from samtune.finetuned import FineTuned
from samtune.metrics import iou_dice
from samtune.types import Masks


@pytest.fixture
def dataset(pairs):
    config = DataConfig(root=str(pairs))
    return SegmentationDataset(splits(config)["train"], config, (64, 64), mask_size=(32, 32))


@pytest.fixture(scope="module")
def model(sam):
    return FineTuned(sam, "none", "frozen")


def test_it_is_the_mean_over_the_images(model, dataset):
    found = evaluate(model, dataset, batch_size=4)
    scores = []
    for index in range(len(dataset)):
        batch = collate([dataset[index]])
        [masks] = predict(model, batch)
        assert masks.dtype == torch.bool and masks.shape == (1, 48, 64)
        scores.append(float(iou_dice(masks, batch.originals[0])[0]))
    assert found.metrics["iou"] == pytest.approx(sum(scores) / 6, abs=1e-3)
    assert found.images == 6 and found.metrics["objects"] == 6
    assert [item["index"] for item in found.items] == list(range(6))
    assert [item["iou"] for item in found.items] == pytest.approx(scores, abs=2e-3)
    assert 0 < found.metrics["iou"] < 1


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"batch_size": 4, "workers": 1}])
def test_batches_and_workers_change_nothing(model, dataset, settings):
    one, other = evaluate(model, dataset, batch_size=6), evaluate(model, dataset, **settings)
    assert other.metrics["iou"] == pytest.approx(one.metrics["iou"], abs=2e-3)
    assert [item["name"] for item in other.items] == [item["name"] for item in one.items]


def test_progress_counts_images(model, dataset):
    seen = []
    evaluate(model, dataset, batch_size=4, progress=lambda *at: seen.append(at))
    assert seen == [(4, 6), (6, 6)]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_close(model, dataset, precision):
    full = evaluate(model, dataset).metrics["iou"]
    assert evaluate(model, dataset, precision=precision).metrics["iou"] == pytest.approx(
        full, abs=0.05
    )


def test_an_image_without_objects_counts_nothing(model, dataset, monkeypatch):
    import numpy as np

    sample = dataset.sample(2)
    sample.labels.map[:] = 0
    empty = type(sample.labels)(sample.labels.map, np.zeros(0, np.int64))
    dataset._cache[2] = type(sample)(sample.image, empty, sample.name)
    found = evaluate(model, dataset, batch_size=1)
    assert found.metrics["objects"] == 5 and found.items[2]["objects"] == 0
    assert math.isnan(found.items[2]["iou"]) and 0 < found.metrics["iou"] < 1


def test_of_several_masks_the_best_by_the_models_own_estimate():
    logits = torch.arange(2 * 3.0).reshape(2, 3, 1, 1).expand(2, 3, 4, 4)
    best = chosen(Masks(logits, torch.tensor([[0.1, 0.9, 0.3], [0.8, 0.2, 0.1]])))
    assert best.shape == (2, 1, 4, 4) and best[:, 0, 0, 0].tolist() == [1.0, 3.0]


def test_multimask_reads_the_three(model, dataset):
    one = evaluate(model, dataset).metrics["iou"]
    assert evaluate(model, dataset, multimask=True).metrics["iou"] != pytest.approx(one, abs=1e-6)


def test_the_model_is_left_in_evaluation_mode(sam, dataset):
    model = FineTuned(sam, "lora", "tuned").train()
    evaluate(model, dataset)
    assert not model.training and all(p.grad is None for p in model.parameters())
