"""Files of Generalized SAM's code, filled by its names: once imported, they give its numbers.

With the other number of classes, ``test_published_files.py`` holds each to them.
"""

import gsam_reference as reference
import pytest
import torch
from safetensors.torch import save_file

import samtune
from samtune.foreign import DIALECTS, import_checkpoint
from samtune.sam.spec import SPECS

PLAIN, FINE = reference.PLAIN, reference.TINY
ADAPTFORMER = {"hidden": 12, "scale": 0.5, "activation": "gelu", "zero_init": False}
MODELS = {
    "gsam:sam": ("SAM", PLAIN, (256, 256), None, 5),
    "gsam:lora": ("SAM_LoRA", PLAIN, (256, 256), None, 2),
    "gsam:convlora": ("SAM_ConvLoRA", PLAIN, (256, 256), None, 5),
    "gsam:adaptformer": ("SAM_AdaptFormer", PLAIN, (256, 256), ADAPTFORMER, 2),
    "gsam:smadaptformer": ("SMAdaptFormer", PLAIN, (256, 256), None, 5),
    "gsam:samus": ("SAMUS", FINE, (256, 256), None, 2),
    "gsam:gsam": ("GSAM", FINE, (40, 72), None, 5),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_an_imported_file_gives_the_published_numbers(name, tmp_path, monkeypatch):
    title, spec, size, options, classes = MODELS[name]
    monkeypatch.setitem(SPECS, spec.name, spec)
    dialect = DIALECTS[name]
    positions = {"positions": "conv"} if name == "gsam:gsam" else {}
    made = reference.model(spec, dialect.adapter, options, classes=classes, **positions)
    base = {key: t.clone() for key, t in made.sam.state_dict().items()}
    save_file(base, tmp_path / "base.safetensors")
    own = {dialect.theirs(key): t for key, t in made.state_dict().items()}
    if name == "gsam:gsam":
        del base["image_encoder.pos_embed"]
    torch.save(base | own, tmp_path / "model_bestiou.pth")
    out = tmp_path / "x.safetensors"
    import_checkpoint(
        tmp_path / "model_bestiou.pth",
        name,
        out,
        base=tmp_path / "base.safetensors",
        size=size if dialect.sized else None,
    )
    loaded = samtune.load(out, base=tmp_path / "base.safetensors")
    golden = reference.GOLDEN[f"tiny/{title}/C{classes}/{size[0]}x{size[1]}"]
    embedding, masks, full = reference.run(loaded, reference.image(size))
    reference.assert_summary(embedding, golden["E"])
    reference.assert_summary(masks.logits, golden["L"])
    reference.assert_summary(full, golden["M"])
