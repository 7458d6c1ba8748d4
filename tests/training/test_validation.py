"""What a validation measures, and how sure differences between two are."""

import math

import numpy as np
import pytest
import torch

from samtune.data import DataConfig, PromptConfig, SegmentationDataset, splits
from samtune.metrics.config import EvalConfig
from samtune.model.finetuned import FineTuned
from samtune.training.schedule import FitConfig
from samtune.training.validation import Measurement, Validation


def test_the_criterion_varies_with_the_images(sam, pairs):
    data = DataConfig(root=str(pairs), augment="none")
    records = splits(data)["train"]
    val = SegmentationDataset(
        records, data, (64, 64), prompts=PromptConfig(), mask_size=(32, 32), train=False
    )
    config = FitConfig(metric="2*iou+iou@none")
    torch.manual_seed(1)
    model = FineTuned(sam, "lora", "tuned")
    measured = Validation(val, config, EvalConfig()).measure(model, ["point"])
    assert {"iou", "iou@none", "iou@point"} <= measured.row.keys()
    assert measured.images == measured.encodings == len(records), "once for all prompts"
    value = measured.row["2*iou+iou@none"]
    assert value == (2 * measured.row["iou"] + measured.row["iou@none"]) / 3
    assert float(measured.values.mean()) == pytest.approx(value, abs=0.02)
    assert measured.values.std() > 0 and measured.error_beside(measured) == 0


def test_few_images_widen_the_error():
    def measurement(values, images):
        return Measurement({}, images, lambda: np.array(values))

    one, other = [1.0, 2.0, math.nan, 4.0], [1.0, 1.0, 1.0, 1.0]
    many = measurement(one, 10_000).error_beside(measurement(other, 10_000))
    assert many == pytest.approx(float(np.std([0, 1, 3])), rel=1e-3)
    few = measurement(one, 4).error_beside(measurement(other, 4))
    assert few == pytest.approx(many * math.sqrt(4 / 3) * 1.197, rel=1e-2)
    assert measurement(one, 1).error_beside(measurement(other, 1)) == math.inf
    assert measurement([], 4).error_beside(measurement([], 4)) == math.inf
