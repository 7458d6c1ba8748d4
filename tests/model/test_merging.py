import pytest
import tiny
import torch

from samtune.decoders import DECODERS
from samtune.model.checkpoint import save
from samtune.model.finetuned import FineTuned
from samtune.model.merging import merge
from samtune.sam.weights import load_sam

MERGEABLE = ["none", "lora", "fact", "ssf", "bitfit", "norm_tuning", "head_lora", "lora+bitfit"]


def tuned(sam, adapter, decoder="tuned", **options):
    """A model whose trained tensors have all moved."""
    model = FineTuned(sam, adapter, decoder, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


@torch.no_grad()
def answers(model):
    found = model(tiny.pixels(), tiny.boxes([0, 1, 1]), multimask=True)
    return torch.cat([found.logits.flatten(), found.iou.flatten()])


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("adapter", MERGEABLE)
def test_the_file_is_the_tuned_model(sam, tiny_registered, tmp_path, adapter, ending):
    model = tuned(sam, adapter, decoder_options={"prompt_encoder": True})
    path = tmp_path / "new" / f"sam.{ending}"
    made = merge(model, path)
    assert made.file == path and [p.name for p in path.parent.iterdir()] == [path.name]
    plain = FineTuned(load_sam("tiny", path))
    wanted, found = answers(model), answers(plain)
    assert (wanted - answers(FineTuned(sam))).abs().max() > 1e-2
    assert torch.allclose(found, wanted, atol=1e-5, rtol=1e-5)
    assert 0 <= made.max_difference < 1e-4


def test_a_pth_is_a_plain_state_dict(sam, tmp_path):
    merge(tuned(sam, "lora", "frozen"), tmp_path / "sam.pth")
    loaded = torch.load(tmp_path / "sam.pth", weights_only=True)
    assert type(loaded) is dict and loaded.keys() == sam.state_dict().keys()


def test_what_no_file_can_hold_is_refused(sam, tmp_path, refused):
    def check(words, *parts, **options):
        refused(words, merge, FineTuned(sam, *parts, **options), tmp_path / "sam.pth")

    check(["adapter.name=adaptformer", "plain SAM weights"], "adaptformer", "tuned")
    check(["decoder.name=hq", "not SAM's own"], "none", "hq")
    refused("--out=", merge, FineTuned(sam), tmp_path / "sam.onnx")
    assert not list(tmp_path.iterdir())


def test_the_command(samtune, sam, tiny_weights, tmp_path):
    checkpoint = save(tuned(sam, "lora"), tmp_path / "model.safetensors")
    out = tmp_path / "merged.pth"
    words = ["merge", checkpoint, "--base", tiny_weights, "--out", out]
    found = samtune(*words, "--json").json
    assert found["file"] == str(out) and 0 <= found["max_difference"] < 1e-4
    assert f"{out}: differs" in samtune(*words).out
    assert "no such checkpoint" in samtune("merge", "absent", "--out", out).line
    assert "one set of weights" in samtune(*words, "--strength", "box:0.5").line


@pytest.mark.parametrize("name", list(DECODERS))
def test_a_decoder_says_whether_it_is_sams_own(sam, name, refused, tmp_path):
    adapter = (DECODERS[name].adapters or ("none",))[0]
    model = FineTuned(sam, adapter, name)
    if name in ("frozen", "tuned"):
        assert model.decoder.sam_tensors().keys() <= sam.state_dict().keys()
    else:
        words = [f"decoder.name={name}: is not SAM's own", "frozen and tuned can be merged"]
        refused(words, merge, model, tmp_path / "sam.pth")
