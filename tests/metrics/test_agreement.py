"""The rows of benchmarks/metric_agreement.py: every metric against a library's."""

import importlib.util
import sys
from pathlib import Path

import pytest

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
    assert rows
    for row in rows:
        bound = 2e-5 if benchmark.SINGLE in row.reason else 1e-6
        assert row.cases >= 5 and row.difference <= bound, row


def test_the_scenes_of_instances_are_neither_perfect_nor_hopeless(benchmark):
    predicted, target, scores, _ = benchmark.scene(0)
    best = benchmark.overlaps(predicted, target).max(1)
    assert 0.3 < best.mean() < 0.95 and len(set(scores)) < len(scores)
