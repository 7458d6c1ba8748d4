"""labelme's engine osam, asked in its own code, gives the masks of the model."""

import sys

import numpy as np
import pytest
import tiny
from PIL import Image
from tuned_models import quickly_traced

from samtune.exports.checks import SHAPES, asks, prompts_of
from samtune.exports.writing import export
from samtune.inference.prompted import PromptedImage
from samtune.model.finetuned import FineTuned


@pytest.mark.slow
@pytest.mark.usefixtures("operators_read_once")
def test_the_engine_of_labelme_gives_the_masks_of_the_model(tmp_path, monkeypatch):
    osam = pytest.importorskip("osam")
    pixels = tiny.pixels(1, (50, 90))[0].permute(1, 2, 0).byte().numpy()
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in/a.png")
    model = FineTuned(quickly_traced(), "none", "frozen", prompts="box")
    export(model, tmp_path / "out", format="labelme", name="polyps", check=tmp_path / "in")
    monkeypatch.setattr(osam.apis, "registered_model_types", [*osam.apis.registered_model_types])
    monkeypatch.syspath_prepend(tmp_path / "out")
    import start_labelme

    start_labelme.register()
    for down, right in SHAPES.values():
        image = np.ascontiguousarray(pixels[: round(50 * down), : round(90 * right)])
        prompted = PromptedImage(model, image)
        for ask in asks(image.shape[:2], ("box", "point"), prompted):
            expected = prompted.answer(prompts_of(ask))[0].logits[0, 0].numpy() > 0
            mask = _mask_of(osam, image, ask)
            assert (mask & expected).sum() / (mask | expected).sum() >= 0.999
    del sys.modules["start_labelme"]


def _mask_of(osam, image, ask):
    """osam's answer, in the whole image."""
    points = [ask.point] if ask.box is None else [ask.box[:2], ask.box[2:]]
    request = osam.types.GenerateRequest(
        model="polyps",
        image=image,
        prompt=osam.types.Prompt(
            points=np.array(points), point_labels=np.array([1] if ask.box is None else [2, 3])
        ),
    )
    (answer,) = osam.apis.generate(request).annotations
    mask, box = np.zeros(image.shape[:2], bool), answer.bounding_box
    mask[box.ymin : box.ymax + 1, box.xmin : box.xmax + 1] = answer.mask
    return mask
