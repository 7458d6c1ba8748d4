"""By what a training is judged on its validation images."""

import pytest

from samtune.runs.assembly import evaluation_modes
from samtune.runs.selection import judged_by
from samtune.runs.words import from_words


@pytest.mark.parametrize(
    ("words", "evaluated", "metric", "mode"),
    [
        ("", "box", "iou", "box"),
        ("prompts.train=none", "none", "iou", "none"),
        ("prompts.train=none,point", "none point", "iou@none+iou@point", "none"),
        ("prompts.train=none prompts.eval=box,none", "box none", "iou", "none"),
        ("prompts.train=none,point prompts.eval=point,box", "point box", "iou", "point"),
        (
            "prompts.train=none,point prompts.eval=none,point,box train.metric=dice",
            "none point box", "dice@none+dice@point", "none",
        ),
        ("prompts.train=box prompts.eval=jittered_box", "jittered_box", "iou", "jittered_box"),
        ("prompts.train=none,point prompts.eval=box", "box", "iou@none+iou@point", "none"),
        ("prompts.train=none,point prompts.eval=box train.keep=none", "box", "iou", "box"),
    ],
)  # fmt: skip
def test_what_is_trained_judges(words, evaluated, metric, mode):
    config = from_words(words.split())
    assert evaluation_modes(config).names == tuple(evaluated.split())
    settings, first = judged_by(config)
    assert (settings.metric, first) == (metric, mode)
