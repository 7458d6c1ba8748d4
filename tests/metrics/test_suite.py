"""All metrics together: splitting and merging change nothing, and the registry matches."""

import copy
import math

import pytest
import torch
from image_results import images

from samtune.errors import InputError
from samtune.metrics import GROUPS, MEASURES, Seen, Suite, contract, expand
from samtune.metrics.config import EvalConfig
from samtune.metrics.contract import ALWAYS, metrics_table
from samtune.metrics.instances import SIZES
from samtune.metrics.suite import FAMILIES

SINGLES = EvalConfig(tuple(MEASURES))


def filled(shown, config=SINGLES):
    suite = Suite(config)
    for image in shown:
        suite.update(image)
    return suite


def test_every_metric_has_a_family_that_gives_it():
    assert {m.family for m in MEASURES.values()} == {*FAMILIES, "masks"}
    found = filled(images()).compute()
    assert list(found) == [name for name in MEASURES if name not in ALWAYS]
    for name, value in found.items():
        # not every size is there, and the side networks' error needs both sides in every image
        there = not name.startswith(("iou_", "ber_")) and not name.endswith(SIZES[1:])
        assert isinstance(value, float) and not (there and math.isnan(value)), name


def test_order_and_processes_change_nothing(monkeypatch):
    """Sums of two ranks, gathered as torchmetrics gathers them, are those of one process."""
    shown = images()
    whole = filled(shown).compute()
    ranks = [filled(shown[1::2]), filled(shown[::2])]
    for family, metric in ranks[0].families.items():
        other = ranks[1].families[family]
        states = {id(getattr(metric, name)): getattr(other, name) for name in metric._reductions}
        packed = {
            id(part): torch.cat(getattr(other, name))
            for name in metric._reductions
            if isinstance(getattr(metric, name), list)
            for part in getattr(metric, name)
        }

        def gather(tensor, group=None, states=states, packed=packed):
            [mate] = [states[id(tensor)]] if id(tensor) in states else packed.values()
            return [tensor, mate]

        if packed:  # gathering joins the parts of a list first
            metric.rows = [torch.cat(metric.rows)]
            packed = {id(metric.rows[0]): torch.cat(other.rows)}
            gather.__defaults__ = (None, states, packed)
        metric.sync(dist_sync_fn=gather, distributed_available=lambda: True)
    found = ranks[0].compute()
    assert found == pytest.approx(whole, rel=1e-12, nan_ok=True)


def test_a_rank_without_images_adds_nothing():
    for metric in Suite(SINGLES).families.values():
        metric.sync(dist_sync_fn=lambda t, group=None: [t, t], distributed_available=lambda: True)
        for state in metric._reductions:
            value = getattr(metric, state)
            rows = value if isinstance(value, torch.Tensor) else torch.cat(value)
            assert rows.dtype == torch.float64 and not rows.any()


def test_updates_leave_the_image_as_it_was():
    [image] = images(3)[2:]
    before = copy.deepcopy(image)
    filled([image])
    for name in ("predicted", "target", "valid", "probability"):
        assert torch.equal(getattr(image, name), getattr(before, name))


@pytest.mark.parametrize(
    ("predicted", "target", "expected"),
    [
        (0, 0, {"boundary_iou": 1, "hd95": 0, "nsd": 1, "iou_per_image": 1}),
        (0, 1, {"boundary_iou": 0, "hd95": 50, "nsd": 0, "iou_per_image": 0}),
        (1, 0, {"boundary_iou": 0, "hd95": 50, "nsd": 0, "iou_per_image": 0}),
        (1, 1, {"boundary_iou": 1, "hd95": 0, "nsd": 1, "iou_per_image": 1}),
    ],
)
def test_empty_masks_follow_the_stated_policy(predicted, target, expected):
    masks = (torch.full((1, 30, 40), bool(value)) for value in (predicted, target))
    assert filled([Seen(*masks)], EvalConfig(tuple(expected))).compute() == expected


def test_sizes_are_cocos():
    target = torch.zeros(3, 200, 200, dtype=torch.bool)
    for mask, side in zip(target, (31, 32, 96), strict=True):
        mask[:side, :side] = True
    predicted = target.clone()
    predicted[1, :16] = False
    names = ("iou_small", "iou_medium", "iou_large", "iou_share_small", "iou_share_medium")
    found = filled([Seen(predicted, target)], EvalConfig(names)).compute()
    assert list(found.values())[:3] == [1, 0.5, 1]
    assert math.isnan(found["iou_share_small"]) and found["iou_share_medium"] == 0.75


def test_groups_and_names_expand_once():
    assert expand(["shadow", "iou", "ber"]) == (*GROUPS["shadow"], "iou")
    with pytest.raises(InputError, match=r"eval.metrics=weightedf: .*weighted_f"):
        expand(["weightedf"])
    with pytest.raises(InputError, match="maps of classes"):
        expand(EvalConfig(("regions", "mae")).metrics, maps=True)


@pytest.mark.parametrize("settings", [{"boundary_ratio": 0}, {"nsd_tolerance": -1}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match=f"^{next(iter(settings))}="):
        EvalConfig(**settings)


def test_the_contract_has_a_line_for_each_metric_used():
    text = contract(["hd95", "miou"])
    head, *lines = text.splitlines()
    assert [line.split(":")[0] for line in lines] == ["hd95", "miou"]
    assert "lower is better" in lines[0] and "higher is better" in lines[1]
    for part in ("resolution:", "threshold:"):  # the same for both: said once
        assert part in head and not any(part in line for line in lines)
    for part in ("averaged:", "empty masks:"):
        assert part not in head and all(part in line for line in lines)
    assert "resolution:" in contract(["hd95"]).splitlines()[1]
    assert metrics_table().count("\n") == len(MEASURES) + 2


@pytest.mark.parametrize("name", GROUPS["instances"])
def test_instances_are_said_to_be_of_prompted_targets(name):
    meaning = contract([name])
    assert "with prompts each mask belongs to one prompted target" in meaning
    detector = "takes that target's class, so the value cannot be compared with a detector's AP"
    assert (detector in meaning) == name.startswith("ap")


@pytest.mark.parametrize(
    ("name", "lacking"), [("mae", "probability"), ("ap", "scores"), ("mae_ts_sam", "frame")]
)
def test_what_a_metric_needs_is_named(name, lacking):
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=lacking):
        filled([Seen(masks, masks)], EvalConfig((name,)))


def test_without_scipy_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr("samtune.errors.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"samtune\[metrics\]"):
        Suite(EvalConfig(("hd95",)))


def test_more_masks_than_a_byte_counts():
    """300 instances of one image, all but three of them as they should be."""
    target = torch.zeros(300, 40, 40, dtype=torch.bool)
    for k in range(300):
        target[k, 2 * (k // 20) : 2 * (k // 20) + 2, 2 * (k % 20) : 2 * (k % 20) + 2] = True
    predicted = target.clone()
    predicted[:3] = False
    suite = Suite(EvalConfig(("msa", "ap")))
    suite.update(Seen(predicted, target, scores=torch.ones(300)))
    assert suite.compute()["msa"] == pytest.approx(297 / 300)
