"""What is chosen after a training, with the validations' numbers put in."""

import numpy as np
import pytest
import torch

from samtune.data import DataConfig, PromptConfig, SegmentationDataset, splits
from samtune.model.finetuned import FineTuned
from samtune.runs.selection import selection, verdict
from samtune.training.choice import Judge, drop_base
from samtune.training.engine import fit
from samtune.training.schedule import FitConfig
from samtune.training.state import TrainingState
from samtune.training.validation import Measurement


@pytest.fixture
def trained(sam, pairs, monkeypatch):
    """``trained(rows, **settings)``: a training of two steps and one validation, and its result.

    ``rows`` are the validations in their order: the base, the step, the mean, strengths.
    """

    def make(rows, adapter="lora", decoder="tuned", by_kind=False, **settings):
        if not by_kind:  # one strength for all prompts
            monkeypatch.setattr("samtune.training.engine.kinds_to_choose", lambda *how: ())
        data = DataConfig(root=str(pairs), augment="none")
        parts = splits(data)
        train, val = (
            SegmentationDataset(
                parts[name], data, (64, 64), prompts=PromptConfig(), mask_size=(32, 32),
                train=name == "train",
            )
            for name in ("train", "val")
        )  # fmt: skip
        rows, calls = iter(rows), []

        def measure(self, model, modes):
            calls.append((model.strength, tuple(modes)))
            row = dict.fromkeys(("iou", "dice", "iou_pooled", "dice_pooled"), 0.5) | next(rows)
            spread, images = row.pop("spread", 0.0), row.pop("images", 100)
            draws = np.array([row["iou"] - spread, row["iou"] + spread])
            row |= {str(self.criterion): self.criterion.value(row)}
            return Measurement(row, images, lambda: draws)

        monkeypatch.setattr("samtune.training.validation.Validation.measure", measure)
        torch.manual_seed(1)
        model = FineTuned(sam, adapter, decoder)
        config = FitConfig(**{"max_steps": 2, "batch_size": 2, "eval_every": 2, **settings})
        return fit(model, train, val, config), model, calls

    return make


def numbers(*values, point=None):
    """A row for each value, with the IoU of points where they count."""
    rows = [{"iou": value} for value in values]
    points = [] if point is None else [{"iou@point": at, "iou@box": 1.0} for at in point]
    return [{**row, **more} for row, more in zip(rows, points, strict=True)] if points else rows


def test_the_best_strength_is_chosen(trained):
    rows = numbers(0.5, 0.6, 0.5, 0.7, 0.65, 0.6)
    result, model, calls = trained(rows, average="none", keep="none")
    assert [strength for strength, _ in calls] == [0, 1, 0.25, 0.5, 0.75, 1]
    assert [(row["strength"], row["iou"]) for row in result.curve] == [
        (0, 0.5), (0.25, 0.5), (0.5, 0.7), (0.75, 0.65), (1, 0.6),
    ]  # fmt: skip
    assert model.strength == result.best["strength"] == 0.5
    assert result.best["step"] == 2 and result.weights == "step 2"


@pytest.mark.parametrize(
    ("spread", "images", "strength"), [(0.05, 100, 1), (0.01, 100, 0.5), (0.01, 2, 1), (0, 1, 1)]
)
def test_less_than_all_takes_evidence(trained, spread, images, strength):
    rows = numbers(0.5, 0.6, 0.55, 0.62, 0.58, 0.6)
    rows[3] |= {"spread": spread, "images": images}
    how = {"average": "none", "keep": "none"}
    assert trained(rows, **how)[1].strength == strength
    worse = numbers(0.7, 0.6, 0.65, 0.72, 0.58)
    worse[3] |= {"spread": spread, "images": images}
    assert trained(worse, **how)[1].strength == 0.5, "what harms in full is not compared with"


def test_the_mean_of_the_last_weights_is_a_candidate(trained):
    how = {"average": 1.0, "keep": "none"}
    rows = numbers(0.5, 0.6, 0.8, 0.6, 0.1, 0.1, 0.1)
    result, mean, _ = trained(rows, **how)
    assert result.best["weights"] == result.weights == "mean of 2" and mean.strength == 1
    assert result.top["iou"] == 0.6
    off = {"average": "none", "strength": "none", "keep": "none"}
    _, first, calls = trained(numbers(0.5, 0.6), **off)
    assert len(calls) == 2
    for at, of_mean in (0.4, 0.0), (0.61, 0.5):
        rows = numbers(0.5, 0.6, at, 0.6, 0.1, 0.1, 0.1)
        rows[2]["spread"] = of_mean
        _, last, _ = trained(rows, **how)
        assert all(torch.equal(t, first.state_dict()[n]) for n, t in last.state_dict().items())
    assert any(not torch.equal(t, last.state_dict()[n]) for n, t in mean.state_dict().items())


def test_a_mean_that_forgets_nothing_is_taken_where_the_steps_forget(trained):
    points = [0.62, 0.1, 0.62, 0.62, 0.62, 0.62]
    rows = numbers(0.5, 0.9, 0.7, 0.6, 0.6, 0.6, point=points)
    result, model, _ = trained(rows, average=1.0, keep=["point"])
    assert result.best["weights"] == "mean of 2" and model.strength == 1


def test_what_forgets_is_no_candidate_but_less_of_it_may_be(trained):
    values = (0.5, 0.9, 0.6, 0.7, 0.8, 0.65, 0.68, 0.66)
    points = [0.62, 0.57, 0.63, 0.6, 0.58, 0.62, 0.6, 0.615]
    how = {"average": "none", "keep": ["point"]}
    result, model, calls = trained(numbers(*values, point=points), **how)
    assert all(modes == ("point", "box") for _, modes in calls)
    assert result.top["iou"] == 0.9 and result.kept_modes == ("point",)
    assert [strength for strength, _ in calls[5:]] == [0.375, 0.4375, 0.40625]
    assert model.strength == 0.40625, "the most for which points are within 0.01 of the base's"
    curve = [row["strength"] for row in result.curve]
    assert curve == [0, 0.25, 0.375, 0.40625, 0.4375, 0.5, 0.75, 1]
    assert trained(numbers(*values, point=points), **how, forget=0.05)[1].strength == 1
    lost = numbers(*values, point=[0.62, *[0.1] * 7])
    result, model, calls = trained(lost, **how)
    assert model.strength == 0 and result.best["step"] == 0
    assert [strength for strength, _ in calls[5:]] == [0.125, 0.0625, 0.03125]


def test_less_of_what_forgets_needs_no_evidence_against_an_earlier_step(trained):
    values = (0.5, 0.55, 0.9, 0.54, 0.7, 0.8, 0.57, 0.68, 0.58)
    points = [0.62, 0.62, 0.5, 0.62, 0.6, 0.58, 0.62, 0.6, 0.62]
    rows = [{**row, "spread": 0.3} for row in numbers(*values, point=points)]
    how = {"average": "none", "keep": ["point"], "eval_every": 1}
    result, model, _ = trained(rows, **how)
    assert (model.strength, result.best["step"], result.best["iou"]) == (0.40625, 2, 0.58)


def test_a_fixed_strength_is_the_only_one(trained, refused):
    how = {"average": "none", "strength": 0.3, "keep": "none"}
    _, model, calls = trained(numbers(0.5, 0.4, 0.6), **how)
    assert [s for s, _ in calls] == [0, 1, 0.3] and model.strength == 0.3
    result, model, _ = trained(numbers(0.9, 0.3, 0.4), **how)
    assert model.strength == 0.3 and result.best["step"] == 2, "also if the base is better"
    how = {"adapter": "cat_sam_a", "decoder": "hq", "strength": 0.3}
    refused(["strength=0.3", "cat_sam_a"], trained, [], **how)


def test_what_has_nothing_between_is_all_or_none_of_it(trained):
    how = {"adapter": "cat_sam_a", "decoder": "hq", "average": "none", "keep": "none"}
    _, model, calls = trained(numbers(0.5, 0.6), **how)
    assert [s for s, _ in calls] == [0, 1] and model.strength == 1


def test_a_base_that_cannot_answer_is_no_candidate(trained, monkeypatch):
    reason = "the base knows no classes"
    monkeypatch.setattr("samtune.training.engine.no_base", lambda model: reason)
    how = {"keep": "none", "eval_every": 1}
    result, model, calls = trained(numbers(0.5, 0.1, 0.3), **how, average="none")
    assert [strength for strength, _ in calls] == [0, 1, 1]
    assert (model.strength, result.best["step"], result.curve) == (1, 2, ())
    said = verdict(result, FitConfig())[0]
    assert said.startswith("not worth it: on the validation images no weights beat zero-shot")
    assert "kept all the same, since the base knows no classes" in said
    assert selection(result, FitConfig())["worth_it"] is False
    result, _, _ = trained(numbers(0.5, 0.1, 0.3, 0.4, 0.3), **how, average=1.0)
    assert result.best["weights"] == "mean of 2"
    better, model, _ = trained(numbers(0.5, 0.6, 0.55), **how, average="none")
    assert (model.strength, better.best["step"]) == (1, 1)
    assert "zero-shot 0.500), step 1 of 2" in verdict(better, FitConfig())[0]
    nothing, model, _ = trained(numbers(0.5, *[float("nan")] * 3), **how, average="none")
    assert (nothing.best, model.strength) == (None, 1)
    assert verdict(nothing, FitConfig())[0].startswith("no trained weights gave a number")
    state = TrainingState(best={"strength": 0.0, "iou": 0.5}, top={"step": 1, "iou": 0.1})
    drop_base(Judge(None, None, FitConfig(), reason), state)
    assert state.best == {"step": 1, "iou": 0.1, "strength": 1.0}, "a run of an earlier version"


def by_kind(**values):
    """A row for each strength, in the order in which they are measured at the end of a training.

    ``values`` are the IoUs at 0, 0.25, 0.5, 0.75 and 1; of the box, which is trained, also those of
    the validation.
    """
    rows = [
        {f"iou@{mode}": at[i] for mode, at in values.items()} | {"iou": values["box"][i]}
        for i in range(5)
    ]
    return [rows[0], rows[4], rows[4], rows[0], *rows[1:4]]


def test_each_kind_of_prompt_gets_the_strength_that_serves_it(trained):
    box = (0.5, 0.55, 0.6, 0.65, 0.7)
    rows = by_kind(box=box, point=(0.6, 0.59, 0.5, 0.4, 0.3), none=(0.1, 0.2, 0.4, 0.3, 0.2))
    how = {"average": "none", "by_kind": True}
    result, model, calls = trained(rows + rows[:3], **how)
    assert model.strength.by_kind == {"box": 1, "point": 0, "none": 0.5}
    assert [at for at, _ in calls[:7]] == [0, 1, 1, 0, 0.25, 0.5, 0.75]
    assert all({"box", "point", "none"} <= {*modes} for _, modes in calls[2:])
    best = result.best
    assert [best[f"iou@{mode}"] for mode in ("box", "point", "none")] == [0.7, 0.6, 0.4]
    assert best["iou"] == 0.7 and best["step"] == 2 and best["weights"] == "step 2"
    assert model.strength < 1, "that of all together forgets no point"
    noisy = [{**row, "spread": 0.5 * (i > 3)} for i, row in enumerate(rows + rows[:3])]
    assert trained(noisy, **how)[1].strength.of("none") == 1, "what is clearly better"
    rows = by_kind(box=box, point=box, none=(0.1, 0.1, 0.2, 0.1, 0.1))
    for spread, strength in (0.08, 0), (0.04, 0.5):  # twice the error, since it was not trained
        noisy = [{**row, "spread": spread * (i > 3)} for i, row in enumerate(rows + rows[:3])]
        assert trained(noisy, **how)[1].strength.of("none") == strength


def test_nothing_that_serves_no_kind_is_handed_out(trained):
    worse = (0.5, 0.4, 0.4, 0.4, 0.4)
    rows = by_kind(box=worse, point=worse, none=worse)
    result, model, _ = trained(rows, average="none", by_kind=True)
    assert (model.strength, model.strength.by_kind, result.best["step"]) == (0, {}, 0)
    better = (0.5, 0.6, 0.6, 0.6, 0.7)
    rows = by_kind(box=better, point=better, none=better)
    assert trained(rows, average="none", by_kind=True)[1].strength.by_kind == {}
    model = trained(numbers(0.5, 0.6), decoder="semantic", by_kind=True, keep="none")[1]
    assert not model.strength.by_kind
