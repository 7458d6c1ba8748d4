"""A bundle: checkpoint, base and card in one file, which works alone."""

import hashlib

import pytest
import tiny
import torch
from PIL import Image
from safetensors import safe_open
from tuned_models import moved, save_picture

from samtune.model import bundle as bundles
from samtune.model import header as headers
from samtune.model.bundle import bundle
from samtune.model.checkpoint import load, save
from samtune.model.finetuned import FineTuned
from samtune.model.header import read_header
from samtune.sam.weights import load_sam


@pytest.fixture
def checkpoint(sam, tmp_path):
    return save(moved(FineTuned(sam, "lora", prompts="box")), tmp_path / "polyps.safetensors")


@pytest.fixture
def file(checkpoint, tiny_weights, tmp_path):
    return bundle(checkpoint, tmp_path / "whole.safetensors", tiny_weights, licence="cc0-1.0")


@torch.no_grad()
def test_it_stands_alone(samtune, file, checkpoint, tiny_weights, tmp_path):
    one, other = load(file), load(checkpoint, tiny_weights)
    ask = tiny.pixels(1), tiny.boxes([0])
    assert torch.allclose(one(*ask).logits, other(*ask).logits, atol=1e-5)
    assert torch.equal(load_sam("tiny", file).state_dict()["mask_decoder.iou_token.weight"],
                       one.sam.mask_decoder.iou_token.weight)  # fmt: skip
    header = read_header(file)
    assert header["bundle"] == {"base_licence": "cc0-1.0"}
    assert header["card"].startswith("---\nlibrary_name: samtune\n")
    pixels = tiny.pixels(1)[0].permute(1, 2, 0).byte().numpy()
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    words = ["predict", file, tmp_path / "photo.png", "--box", "5,5,50,50"]
    samtune(*words, "--out", tmp_path / "masks", "--json")
    assert (tmp_path / "masks").is_dir()


def test_older_versions_refuse_it_and_say_why(file, refused, monkeypatch):
    monkeypatch.setattr(headers, "BUNDLE_FORMAT", 1)
    refused("newer than this one; upgrade with pip install -U samtune", read_header, file)


def test_a_base_is_handed_on_only_under_a_licence(
    samtune, checkpoint, tiny_weights, tmp_path, refused, monkeypatch
):
    out = tmp_path / "new.safetensors"
    refused("the licence of these weights is not known", bundle, checkpoint, out, tiny_weights)
    refused("its weights do not ship", bundle, checkpoint, out, licence="mit")
    words = ["bundle", checkpoint, "--base", tiny_weights, "--out", out]
    assert "--licence apache-2.0" in samtune(*words).line
    assert not out.exists()
    digest = hashlib.sha256(tiny_weights.read_bytes()).hexdigest()
    monkeypatch.setitem(bundles.OFFICIAL, "tiny", digest[:6])
    assert "MB; samtune predict" in samtune(*words).out
    assert read_header(out)["bundle"] == {"base_licence": "apache-2.0"}
    with safe_open(out, "pt") as content:
        assert any(key.startswith("base.") for key in content.keys())


def test_wrong_places_and_bases_are_refused(file, checkpoint, tiny_weights, tmp_path, refused):
    out = tmp_path / "new.safetensors"
    words = {"licence": "mit"}
    refused("must end in .safetensors", bundle, checkpoint, tmp_path / "a.pth", **words)
    refused("choose another", bundle, checkpoint, checkpoint, tiny_weights, **words)
    refused("is there already", bundle, checkpoint, tiny_weights, **words)
    refused("is a bundle already", bundle, file, out, tiny_weights, **words)
    other = tmp_path / "other.pth"
    state = {key: tensor + 1 for key, tensor in tiny.base().state_dict().items()}
    torch.save(state, other)
    refused("trained on another tiny", bundle, checkpoint, out, other, **words)
    assert not out.exists()


@torch.no_grad()
def test_programs_that_load_a_bundle_need_no_base(samtune, file, tmp_path):
    pictures = save_picture(tmp_path / "pictures")
    out = tmp_path / "backend"
    words = ["export", file, "--format", "label-studio", "--out", out, "--name", "polyps"]
    samtune(*words, "--check", pictures)
    written = out / "polyps.safetensors"
    assert read_header(written)["bundle"] == {"base_licence": "cc0-1.0"}
    ask = tiny.pixels(1), tiny.boxes([0])
    assert torch.allclose(load(written)(*ask).logits, load(file)(*ask).logits, atol=1e-5)
    assert "BASE = ''" in (out / "brushes.py").read_text("utf-8")
    assert "The file holds its base too." in (out / "README.md").read_text("utf-8")
