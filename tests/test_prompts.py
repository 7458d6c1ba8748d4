"""The value types: frames, flat prompts, and the names of prompt modes."""

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from samtune.data import PROMPTERS
from samtune.geometry import Geometry
from samtune.prompts import (
    ABSENT,
    MODE_KINDS,
    NONE,
    NOT_A_POINT,
    PromptModes,
    Prompts,
    kind_of,
)

side = st.integers(1, 300)


@settings(max_examples=50, deadline=None)
@given(st.tuples(side, side), st.tuples(side, side), st.lists(st.floats(-50, 500), min_size=2))
def test_points_come_back_from_the_models_frame(original, resized, numbers):
    geometry = Geometry(original, resized, (300, 300))
    xy = torch.tensor(numbers[: len(numbers) // 2 * 2], dtype=torch.float64).reshape(-1, 2)
    there = geometry.to_model(xy)
    torch.testing.assert_close(geometry.to_original(there), xy, rtol=1e-12, atol=1e-9)
    corner = torch.tensor([float(original[1]), float(original[0])], dtype=torch.float64)
    expected = torch.tensor([float(resized[1]), float(resized[0])], dtype=torch.float64)
    torch.testing.assert_close(geometry.to_model(corner), expected)


def test_scale_is_x_then_y():
    geometry = Geometry((10, 40), (20, 20), (20, 32))
    assert geometry.to_model(torch.tensor([[40.0, 10.0], [4, 1]])).tolist() == [[20, 20], [2, 2]]


def test_masks_come_back_to_the_original_frame():
    """The padding is cut off before the last resize: an object keeps its place."""
    geometry = Geometry(original=(60, 100), resized=(24, 40), model=(40, 40))
    low = torch.full((2, 1, 20, 20), -5.0)
    low[:, :, 12:] = 100.0  # the padding, wild
    low[0, :, 3:9, 10:15] = 5.0  # the model's rows 6..17, columns 20..29
    out = geometry.masks_to_original(low)
    assert out.shape == (2, 1, 60, 100)
    inside = out[0, 0, :56] > 0
    rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
    assert abs(rows.min() - 15) <= 1 and abs(rows.max() - 44) <= 1
    assert abs(columns.min() - 50) <= 1 and abs(columns.max() - 74) <= 1


def test_masks_of_the_same_frame_are_the_same_bits():
    geometry = Geometry((8, 6), (8, 6), (8, 8))
    logits = torch.randn(1, 3, 8, 8)
    assert torch.equal(geometry.masks_to_original(logits), logits[..., :6])


def test_masks_to_original_is_sams_two_steps():
    geometry = Geometry((33, 21), (64, 41), (64, 64))
    low, up = torch.randn(1, 1, 16, 16), torch.nn.functional.interpolate
    expected = up(low, (64, 64), mode="bilinear", align_corners=False)[..., :64, :41]
    expected = up(expected, (33, 21), mode="bilinear", align_corners=False)
    assert torch.equal(geometry.masks_to_original(low), expected)


BOX = torch.tensor([[1, 2, 30, 40], [5, 6, 7, 8]])
POINTS = torch.tensor([[[3, 4], [5, 6]], [[7, 8], [9, 10]]])
LABELS = torch.tensor([[1, 0], [0, 1]])


class TestOf:
    def test_boxes(self):
        prompts = Prompts.of(boxes=BOX)
        assert len(prompts) == 2 and prompts.coords.dtype == torch.float32
        assert prompts.coords.tolist() == BOX.reshape(2, 2, 2).tolist()
        assert prompts.labels.tolist() == [[2, 3]] * 2
        assert prompts.image.tolist() == [0, 0]
        assert torch.equal(prompts.boxes(), BOX.float())

    def test_points_get_the_padding_point(self):
        prompts = Prompts.of(points=POINTS, labels=LABELS, image=torch.tensor([1, 0]))
        assert prompts.labels.tolist() == [[1, 0, NOT_A_POINT], [0, 1, NOT_A_POINT]]
        assert prompts.coords[:, :2].tolist() == POINTS.tolist()
        assert prompts.image.tolist() == [1, 0]
        assert prompts.boxes().isnan().all()

    def test_boxes_and_points(self):
        prompts = Prompts.of(boxes=BOX, points=POINTS, labels=LABELS)
        assert prompts.labels.tolist() == [[1, 0, 2, 3], [0, 1, 2, 3]]
        assert torch.equal(prompts.boxes(), BOX.float())

    def test_masks(self):
        prompts = Prompts.of(masks=torch.ones(3, 1, 4, 4, dtype=torch.bool))
        assert len(prompts) == 3 and prompts.masks.dtype == torch.float32
        assert prompts.coords.shape == (3, 0, 2) and prompts.mask_flags().all()

    def test_nothing(self):
        assert len(Prompts.of()) == 1 and len(Prompts.of(count=0)) == 0
        prompts = Prompts.of(image=torch.tensor([0, 1, 1]))
        assert len(prompts) == 3 and prompts.labels.shape == (3, 0)
        assert not prompts.mask_flags().any()
        assert prompts.boxes().shape == (3, 4) and prompts.boxes().isnan().all()

    @pytest.mark.parametrize("half", [{"points": POINTS}, {"labels": LABELS}])
    def test_points_and_labels_come_together(self, half):
        with pytest.raises(ValueError, match="come together"):
            Prompts.of(**half)

    def test_no_prompts_of_a_kind(self):
        prompts = Prompts.of(boxes=torch.zeros(0, 4))
        assert len(prompts) == 0 and prompts.boxes().shape == (0, 4)


class TestCat:
    def test_ragged_sets_are_filled_up(self):
        parts = [
            Prompts.of(boxes=BOX, image=torch.tensor([0, 2])),
            Prompts.of(points=POINTS, labels=LABELS).at(1),
            Prompts.of().at(3),
        ]
        whole = Prompts.cat(parts)
        assert whole.image.tolist() == [0, 2, 1, 1, 3]
        assert whole.labels.tolist() == [
            [2, 3, ABSENT],
            [2, 3, ABSENT],
            [1, 0, NOT_A_POINT],
            [0, 1, NOT_A_POINT],
            [ABSENT] * 3,
        ]
        assert whole.masks is None and whole.has_mask is None
        assert torch.equal(whole.boxes()[:2], BOX.float()) and whole.boxes()[2:].isnan().all()

    def test_some_with_masks(self):
        masks = torch.randn(2, 1, 8, 8)
        whole = Prompts.cat([Prompts.of(boxes=BOX), Prompts.of(masks=masks)])
        assert whole.has_mask.tolist() == [False, False, True, True]
        assert torch.equal(whole.masks[2:], masks) and not whole.masks[:2].any()
        again = Prompts.cat([whole, Prompts.of(boxes=BOX)])
        assert again.has_mask.tolist() == [False, False, True, True, False, False]

    def test_refuses_nothing_and_masks_of_several_sizes(self):
        with pytest.raises(ValueError, match="at least one"):
            Prompts.cat([])
        small, large = (Prompts.of(masks=torch.zeros(1, 1, n, n)) for n in (4, 8))
        with pytest.raises(ValueError, match="several sizes"):
            Prompts.cat([small, large])


def test_prompts_to_the_models_frame():
    prompts = Prompts.of(boxes=BOX, masks=torch.zeros(2, 1, 4, 4))
    moved = prompts.to_model(Geometry((100, 50), (200, 200), (256, 256)))
    assert moved.boxes().tolist() == (BOX * torch.tensor([4, 2, 4, 2])).tolist()
    assert moved.masks is prompts.masks and torch.equal(moved.labels, prompts.labels)
    assert torch.equal(prompts.boxes(), BOX.float())  # the given ones stay


def test_values_move_to_another_device_whole():
    prompts = Prompts.cat([Prompts.of(boxes=BOX), Prompts.of(masks=torch.zeros(1, 1, 4, 4))])
    moved = prompts.to("meta")
    for name in ("coords", "labels", "image", "masks", "has_mask"):
        assert getattr(moved, name).device.type == "meta", name
    batch = tiny.batch([0, 1]).to("meta")
    for name in ("pixels", "sizes", "targets", "valid", "classes"):
        assert getattr(batch, name).device.type == "meta", name
    assert batch.prompts.coords.device.type == "meta"


def test_groups_of_modes_are_replaced_by_their_members():
    assert PromptModes.of("box").names == ("box",)
    assert PromptModes.of("mixed").names == ("box", "point", "mask")
    assert PromptModes.of(["mixed", "none", "box"]).names == ("box", "point", "mask", "none")
    every = PromptModes.of("all")
    assert every.names[0] == "none" and set(every) > set(MODE_KINDS) - {"3_points"}


def test_each_mode_but_none_has_a_prompter():
    assert set(MODE_KINDS) == {*PROMPTERS, NONE}


def test_modes_are_written_as_they_were_read():
    for text in ("box", "none+point", "mixed+none", "3_points+8_clicks"):
        assert str(PromptModes.parse(text)) == text
    assert PromptModes.parse("none+point") == PromptModes.of(["none", "point"])


def test_unknown_modes(refused):
    refused(["prompts.train=bos", "did you mean 'box'"], PromptModes.of, "bos", "prompts.train")
    refused(["prompts=[]", "empty"], PromptModes.of, [])
    refused("prompts=box+none", PromptModes.of, "box+none")


def test_modes_with_a_number(refused):
    assert PromptModes.of(["3_points", "10_clicks"]).names == ("3_points", "10_clicks")
    for wrong in ("0_points", "3_boxes", "_points", "3_point"):
        refused([f"prompts.eval={wrong}", "3_points"], PromptModes.of, wrong, "prompts.eval")


def test_how_often_a_model_is_asked():
    assert PromptModes.of(["box", "none"]).rounds(clicks=4) == 1
    assert PromptModes.of("clicks").rounds(clicks=4) == 4
    assert PromptModes.of(["box", "7_clicks", "clicks"]).rounds(clicks=4) == 7


def test_what_a_model_sees_of_a_mode():
    kinds = [kind_of(mode) for mode in ("jittered_box", "9_points", "2_clicks", "noisy_mask")]
    assert kinds == ["box", "point", "point", "mask"] and kind_of("none") == "none"
    assert PromptModes.parse("box+none").kinds == {"box", "none"}
    assert PromptModes.parse("mixed").kinds == {"box", "point", "mask"}
    assert PromptModes.parse("clicks").kinds == {"point", "mask"}
    assert PromptModes.parse("3_clicks").kinds == {"point", "mask"}
