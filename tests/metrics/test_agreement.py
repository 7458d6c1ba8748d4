"""The rows of benchmarks/metric_agreement.py: every metric against a library's."""

import importlib.util
import sys
from pathlib import Path

import pytest

from samtune.metrics import GROUPS

PATH = Path(__file__).parents[2] / "benchmarks" / "metric_agreement.py"
LIBRARIES = {
    "regions": "sklearn",
    "boundaries": "monai",
    "saliency": "py_sod_metrics",
    "shadow": "sklearn",
    "instances": "scipy",
    "published": "sklearn",
}


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("metric_agreement", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.slow
@pytest.mark.parametrize("family", LIBRARIES)
def test_a_family_agrees_with_the_library(benchmark, family):
    pytest.importorskip(LIBRARIES[family])
    rows = list(getattr(benchmark, family)())
    # of published conventions most have tests of their own
    asked = {"miou_gsam"} if family == "published" else {*GROUPS[family]}
    assert asked <= {row.metric for row in rows}
    for row in rows:
        bound = 2e-5 if benchmark.SINGLE in row.reason else 1e-6
        assert row.cases >= 5 and row.difference <= bound, row


def test_the_scenes_of_instances_are_neither_perfect_nor_hopeless(benchmark):
    predicted, target, scores, _ = benchmark.scene(0)
    best = benchmark.ious(predicted, target).max(1)
    assert 0.3 < best.mean() < 0.95 and len(set(scores)) < len(scores)


def test_degenerate_images_are_among_them(benchmark):
    """And have the numbers that the rows then compare."""
    scenes = benchmark.scenes()
    found = {name: benchmark.coco_precision(images) for name, images in scenes.items()}
    assert found["perfect"] == pytest.approx([1] * 6)
    assert found["no target anywhere"] == [-1] * 6
    assert found["empty predictions everywhere"] == [0] * 6
    assert found["small targets, perfect"] == pytest.approx([1, 1, 1, 1, -1, -1])
    # All right, but only a hundred of 130 count: the recalls above 10/13 have no precision.
    assert found["more masks of a class than count"][0] == pytest.approx(77 / 101, abs=0.03)
    assert found["an image without targets"][0] < found["an image without masks"][0]
    assert benchmark.exhaustive(scenes["perfect"][0].only(slice(4))) == 1


def test_a_missing_number_is_never_agreement(benchmark):
    nan, inf = float("nan"), float("inf")
    assert benchmark.worst([(1, 1), (nan, nan)]) == (2, 0)
    assert benchmark.worst([(1, 1), (nan, 1)]) == (2, inf)
    assert benchmark.worst([(1, nan), (1, 1)]) == (2, inf)
