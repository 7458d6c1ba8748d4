import pytest
import torch
from tiny import base, boxes, pixels

from samtune.batch import Candidates
from samtune.model.finetuned import FineTuned
from samtune.prompts import Prompts
from samtune.sam import many_prompts


@pytest.mark.parametrize("decoder", ["frozen", "tuned"])
@torch.no_grad()
def test_many_prompts_on_one_image_have_the_decoders_answers(decoder, monkeypatch):
    model = FineTuned(base(), "none", decoder).eval()
    features = model.encode(model.preprocess(pixels(1)))
    points = Prompts.of(
        points=torch.arange(28.0).view(7, 2, 2) * 2, labels=torch.tensor([[1, 0]] * 7)
    )
    for prompts in (points, Prompts.of(boxes=torch.tensor([[3.0, 4, 30, 50], [9, 2, 60, 40]]))):
        for multimask in (False, True):
            answer = model.decoder(model.sam, features, prompts, multimask)
            for least in (-9.0, float(answer.iou.min() + answer.iou.max()) / 2, 9.0):
                monkeypatch.setattr(many_prompts, "CACHE_BYTES", 2**15)  # several parts
                mine = model.decoder.candidates(model.sam, features, prompts, least, multimask)
                wanted = Candidates.of(answer, least)
                assert torch.equal(mine.prompt, wanted.prompt)
                assert torch.allclose(mine.iou, wanted.iou, atol=1e-5)
                assert torch.allclose(mine.logits, wanted.logits, atol=1e-4)
            assert len(mine.logits) == 0 and len(wanted.logits) == 0


@pytest.mark.parametrize("multimask", [False, True])
def test_the_gradient_image_by_image_is_that_of_all_prompts_at_once(multimask, monkeypatch):
    model = FineTuned(base(), "lora", "tuned").train()
    asked = model.preprocess(pixels(3))

    def step(prompts):
        model.zero_grad()
        masks = model.read(model.encode(asked), prompts, multimask)
        (masks.logits.square().mean() + masks.iou.square().mean()).backward()
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        return [masks.logits.detach(), masks.iou.detach(), *grads]

    decode, calls = many_prompts.decode_by_image, []
    monkeypatch.setattr(
        "samtune.sam.model.decode_by_image", lambda *a: (calls.append(1), decode(*a))[1]
    )
    prompts = boxes([2, 0, 2, 2])  # in no order, none for the second image
    wanted = step(prompts)
    assert not calls
    monkeypatch.setattr(many_prompts, "PLACES", 64)
    found = step(prompts)
    assert calls == [1]
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    step(boxes([])), step(prompts.with_click(torch.ones(4, 2), torch.ones(4), wanted[0][:, :1]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model.read(model.encode(asked), prompts)
    assert calls == [1]  # no prompts, masks, or no gradient: all at once
