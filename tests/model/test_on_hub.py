"""The hub: a folder, a stand-in of its HTTP interface, and what is never done unasked."""

import json
import os
import subprocess
import sys

import pytest
import tiny
import yaml
from hub_stand_in import hub
from tuned_models import moved, save_picture

from samtune.model.checkpoint import load, save
from samtune.model.finetuned import FineTuned
from samtune.model.on_hub import repository_of

NUMBERS = {
    "tuned": {"iou": 0.91, "dice": 0.95},
    "zero_shot": {"iou": 0.74, "dice": 0.81},
    "guesses": {"whole image": {"iou": 0.3, "dice": 0.4}},
}


@pytest.fixture
def run(sam, tmp_path):
    """The folder of a run with its numbers."""
    settings = {"data": {"name": "polyps"}, "train": {"lr": 1e-3}}
    model = moved(FineTuned(sam, "lora", prompts="box"))
    save(model, tmp_path / "run/best.safetensors", config=settings, classes=["polyp"])
    (tmp_path / "run/summary.json").write_text(json.dumps(NUMBERS))
    return tmp_path / "run"


def test_a_folder_has_checkpoint_header_and_card(run, tiny_weights, tmp_path, samtune):
    model = load(run, tiny_weights)
    card = {"licence": "cc-by-4.0", "data": "me/polyps", "base_model": "facebook/sam-vit-base"}
    model.save_pretrained(tmp_path / "polyps", **card)
    names = sorted(path.name for path in (tmp_path / "polyps").iterdir())
    assert names == ["README.md", "config.json", "samtune.safetensors"]
    again = FineTuned.from_pretrained(tmp_path / "polyps", tiny_weights)
    assert again.about["config"] == {"data": {"name": "polyps"}, "train": {"lr": 1e-3}}
    assert again.about["summary"] == NUMBERS
    text = (tmp_path / "polyps/README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "samtune" and front["pipeline_tag"] == "mask-generation"
    assert front["license"] == "cc-by-4.0" and front["datasets"] == ["me/polyps"]
    results = front["model-index"][0]["results"][0]["metrics"]
    assert {"type": "iou", "value": 0.91, "name": "iou, tuned"} in results
    assert {"type": "iou", "value": 0.74, "name": "iou, zero-shot"} in results
    assert "| whole image | 0.3 | 0.4 |" in text and "lr: 0.001" in text
    assert "Prompts that it was trained for: `box`" in text
    words = ["export", tmp_path / "polyps", f"base.weights={tiny_weights}", "--format", "hub"]
    out = tmp_path / "exported"
    samtune(*words, "--out", out, "--check", save_picture(tmp_path / "run"), "format.licence=mit")
    assert "![A mask of the model](check.png)" in (out / "README.md").read_text()
    assert "license: mit" in (out / "README.md").read_text()


@pytest.mark.parametrize("word", ["hf:polyps", "hf:a/b/c", "hf:../x", "hf:a/b@", "hf:"])
def test_other_forms_of_repositories_are_refused(word, refused):
    refused("must be hf:owner/name", repository_of, word)


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import json, tiny, torch
from samtune import load, InputError
from samtune.model.finetuned import FineTuned
from tuned_models import moved

sam, said = tiny.base(), {}
model = moved(FineTuned(sam, "lora"))
said["word"] = model.push_to_hub("owner/polyps", licence="mit")
other = moved(FineTuned(sam, "bitfit")).push_to_hub("owner/polyps")

def refusal(call):
    try:
        call()
    except InputError as error:
        return str(error)

said["unasked"] = refusal(lambda: load("hf:owner/polyps", sam))
fetched = load(said["word"], sam, download=True)
said["pinned"] = fetched.adapter.name
said["newest"] = FineTuned.from_pretrained("owner/polyps", sam, download=True).adapter.name
ask = tiny.pixels(1), tiny.boxes([0])
said["same"] = bool(torch.allclose(fetched(*ask).logits, model(*ask).logits, atol=1e-5))
said["cached"] = load(said["word"], sam).adapter.name
from samtune.runs.source import Source
said["asked"] = Source.of("hf:owner/polyps", ["base.download=true"]).word.endswith(".safetensors")
said["absent"] = refusal(lambda: load("hf:owner/none", sam, download=True))
print(json.dumps(said))
"""


@pytest.mark.slow
def test_a_stand_in_of_the_hub(tmp_path):
    pytest.importorskip("huggingface_hub")
    support = os.path.dirname(tiny.__file__)
    with hub() as server:
        environment = {
            **os.environ,
            "HF_ENDPOINT": server.address,
            "HF_HOME": str(tmp_path / "hub"),
            "HF_TOKEN": "x",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, support],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert len(server.commits) == 2
    first = next(iter(server.commits.items()))
    assert said["word"] == f"hf:owner/polyps@{first[0]}"
    assert sorted(first[1]) == ["README.md", "config.json", "samtune.safetensors"]
    assert b"license: mit" in first[1]["README.md"]
    assert "is not in the local cache, and nothing is fetched unasked" in said["unasked"]
    assert said["pinned"] == said["cached"] == "lora" and said["newest"] == "bitfit"
    assert said["same"]
    assert said["asked"]
    assert "could not be fetched" in said["absent"]
    asked = {line.rpartition("/")[2] for line in server.seen if "/resolve/" in line}
    assert asked == {"samtune.safetensors"}, "nothing else is fetched, and no pickle"
