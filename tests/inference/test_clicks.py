import pytest
import tiny
import torch

from samtune.inference.clicks import central_clicks, random_clicks
from samtune.losses import Loss
from samtune.model.finetuned import FineTuned
from samtune.prompts import ABSENT
from samtune.training.objective import Objective


@pytest.fixture
def masks():
    """Four answers to one square: with a part missed, with too much, right, and both wrong."""
    target = torch.zeros(20, 30, dtype=torch.bool)
    target[5:15, 5:15] = True
    missed, wrong, both = (target.clone() for _ in range(3))
    missed[5:15, 10:15] = False
    wrong[2:17, 17:26] = True
    both[5:8, 5:8] = False
    both[2:17, 17:26] = True
    return torch.stack([missed, wrong, target, both]), target.expand(4, -1, -1)


def test_a_click_is_in_the_middle_of_the_largest_wrong_region(masks):
    xy, labels = central_clicks(*masks, torch.ones(20, 30, dtype=torch.bool))
    assert labels.tolist() == [1, 0, ABSENT, 0]
    assert (xy[0] - torch.tensor([12.0, 9.5])).abs().max() <= 2.5 and xy[0, 0] == 12
    assert (xy[1] - torch.tensor([21.0, 9])).abs().max() <= 3 and torch.equal(xy[1], xy[3])


def test_two_small_regions_do_not_make_a_large_one(masks):
    _, targets = masks
    answer = targets[0].clone()
    answer[0:3, :] = True
    answer[18:20, :] = True
    answer[5:15, 5:13] = False
    _, labels = central_clicks(answer[None], targets[:1], torch.ones(20, 30, dtype=torch.bool))
    assert labels.tolist() == [0]  # 90 pixels too many against 80 missed
    answer[0:3, 10:20] = False
    _, labels = central_clicks(answer[None], targets[:1], torch.ones(20, 30, dtype=torch.bool))
    assert labels.tolist() == [1]  # 30 + 30 + 60 too many, but never more than 60 in one piece


def test_what_does_not_count_is_not_clicked(masks):
    valid = torch.ones(20, 30, dtype=torch.bool)
    valid[:, 15:] = False
    assert central_clicks(*masks, valid)[1].tolist() == [1, ABSENT, ABSENT, 1]
    drawn = random_clicks(*masks, valid.expand(4, -1, -1))
    assert drawn[1].tolist() == [1, ABSENT, ABSENT, 1]


def test_training_clicks_are_drawn_from_all_that_is_wrong(masks):
    answers, targets = masks
    valid = torch.ones(4, 20, 30, dtype=torch.bool)
    seen = set()
    for _ in range(60):
        xy, labels = random_clicks(answers, targets, valid)
        assert labels[0] == 1 and labels[1] == 0 and labels[2] == ABSENT
        for row in (0, 1, 3):
            x, y = xy[row].long().tolist()
            assert answers[row, y, x] != targets[row, y, x]
            assert labels[row] == int(targets[row, y, x])
        seen.add(int(labels[3]))
    assert seen == {0, 1}


@pytest.mark.parametrize("rounds", [1, 3])
def test_training_asks_again_with_the_last_answer_and_a_click(sam, rounds, monkeypatch):
    model, batch = FineTuned(sam, "lora", "tuned").train(), tiny.batch([0, 1, 1])
    asked, read = [], model.read

    def spied(features, prompts, multimask=False):
        asked.append((prompts, multimask))
        return read(features, prompts, multimask)

    monkeypatch.setattr(model, "read", spied)
    loss = Objective(model, Loss.parse("dice"), True, rounds)(batch)
    loss.backward()
    assert loss.ndim == 0 and torch.isfinite(loss)
    assert [multimask for _, multimask in asked] == [True, *[False] * (rounds - 1)]
    for i, (prompts, _) in enumerate(asked):
        assert prompts.coords.shape == (3, 2 + i, 2)
        assert (prompts.masks is None) == (i == 0) and torch.equal(
            prompts.coords[:, i:], batch.prompts.coords
        )
    assert all(not p.masks.requires_grad for p, _ in asked[1:])
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
