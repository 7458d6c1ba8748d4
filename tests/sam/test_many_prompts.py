import pytest
import torch
from tiny import base, pixels

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
    for prompts in (points, Prompts.of(boxes=torch.tensor([[3.0, 4, 30, 50]] * 2))):
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
