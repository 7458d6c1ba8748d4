"""peft: an adapter beside transformers' SamModel; PEFT itself is the judge."""

import json
from importlib.util import find_spec

import pytest
import tiny
from tuned_models import moved, save_picture

from samtune.errors import InputError
from samtune.exports.writing import export
from samtune.geometry import InputPolicy
from samtune.model.finetuned import FineTuned

# Not imported here: every process that collects the tests would take the time for it.
pytestmark = pytest.mark.skipif(
    find_spec("transformers") is None or find_spec("peft") is None, reason="needs peft"
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return save_picture(tmp_path_factory.mktemp("pictures"))


FORMS = {
    "pairs on queries and values": ("lora", {"alpha": 6.0}, "tuned", {"prompt_encoder": True}),
    "one pair in some blocks": ("lora", {"target": "qkv", "blocks": (1, 3)}, "frozen", {}),
    "magnitudes": ("dora", {}, "tuned", {}),
    "shared factors": ("fact", {"rank": 3, "scale": 0.5}, "frozen", {}),
    "a pair for every head": ("head_lora", {}, "frozen", {}),
}


@pytest.mark.parametrize("adapter, options, decoder, of_decoder", FORMS.values(), ids=FORMS.keys())
def test_peft_answers_as_the_model(adapter, options, decoder, of_decoder, pictures, tmp_path):
    model = FineTuned(
        tiny.base(), adapter, decoder, adapter_options=options, decoder_options=of_decoder
    )
    base = "facebook/sam-vit-base"
    exported = export(moved(model), tmp_path / "out", "peft", check=pictures, base_model=base)
    assert {"adapter_model.safetensors", "adapter_config.json"} < set(exported.files)
    assert exported.findings.difference < 1e-4 and exported.findings.iou > 0.999
    about = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert about["peft_type"] == "LORA" and about["base_model_name_or_path"] == base
    ranks = {"lora": 8 if "alpha" in options else 4, "dora": 8, "fact": 3, "head_lora": 24}
    assert about["r"] == ranks[adapter] and about["use_dora"] == (adapter == "dora")
    assert about["lora_bias"] == (adapter == "head_lora")
    modules = {"frozen": None, "tuned": ["mask_decoder"]}[decoder]
    assert about["modules_to_save"] == (
        [*(modules or []), "prompt_encoder"] if of_decoder else modules
    )


REFUSED = {
    "no low-rank update": ({"adapter": "bitfit"}, "bitfit is no low-rank update .* or to hf"),
    "another decoder": ({"adapter": "lora", "decoder": "hq"}, "decoder=hq: is not SAM's own"),
    "another size": (
        {"adapter": "lora", "input": InputPolicy((96, 96))},
        "the base beside it takes 64 pixels, .* input=.'size': 96",
    ),
}


@pytest.mark.parametrize("parts, line", REFUSED.values(), ids=REFUSED.keys())
def test_what_it_cannot_express_is_refused(parts, line, pictures, tmp_path):
    with pytest.raises(InputError, match=line):
        export(FineTuned(tiny.base(), **parts), tmp_path / "out", "peft", check=pictures)
    assert list(tmp_path.iterdir()) == []
