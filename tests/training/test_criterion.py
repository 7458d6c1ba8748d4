import math

import pytest

from samtune.training.criterion import Criterion, over_modes

ROW = {"iou": 0.5, "iou@none": 0.2, "iou@point": 0.6, "iou@box": math.nan, "hd95": 9.0, "ber": 0.1}


@pytest.mark.parametrize(
    ("text", "value", "canonical"),
    [
        ("iou", 0.5, "iou"),
        ("iou@none + iou@point", 0.4, "iou@none+iou@point"),
        ("3*iou@none+iou@point", 0.3, "3*iou@none+iou@point"),
        ("min( iou@none, iou@point )", 0.2, "min(iou@none,iou@point)"),
        ("iou@none+iou@box", math.nan, "iou@none+iou@box"),
        ("iou@3_points", math.nan, "iou@3_points"),
        ("max(hd95,ber)", 9.0, "max(hd95,ber)"),
        ("msa@instances+iou@everything", math.nan, "msa@instances+iou@everything"),
    ],
)
def test_one_number_of_a_validation(text, value, canonical):
    criterion = Criterion.parse(text)
    assert str(criterion) == canonical and Criterion.parse(canonical) == criterion
    assert criterion.value(ROW) == pytest.approx(value, nan_ok=True)
    assert criterion.rank(ROW) == pytest.approx(
        -math.inf if math.isnan(value) else -value if "hd95" in text else value
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("iuo", "did you mean"),
        ("iou@boxx", "no such prompt"),
        ("hd95@instances", "take msa@instances"),
        ("iou+", "is no metric"),
        ("iou,dice", "min(iou@none,iou@point)"),
        ("iou@box+iou@box", "names iou@box twice"),
        ("iou+hd95", "metrics of one kind"),
        ("max(iou@none,iou@box)", "set min(...)"),
        ("min(2*iou@none,iou@box)", "no weights"),
        ("0*iou+dice", "leave it out"),
        ("", "is no metric"),
        ("count_bias", "take count_error"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text, said, refused):
    refused(["train.metric=", said], Criterion.parse, text)


def test_a_bare_metric_is_of_several_prompts_by_their_mean():
    both = over_modes(Criterion.parse("iou"), ("none", "point"))
    assert str(both) == "iou@none+iou@point" and both.modes == ("none", "point")
    assert str(over_modes(Criterion.parse("iou@box"), ("none",))) == "iou@box"
    assert Criterion.parse("iou@mixed").modes == ("box", "point", "mask")
