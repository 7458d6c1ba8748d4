"""MobileSAM at its full size and a miniature of it, filled by rule, and what was measured on it."""

import copy
from functools import cache

import deterministic
import pytest
import torch
from torch import Tensor

from samtune.sam.model import Sam
from samtune.sam.spec import SPECS, SamSpec, Stage
from samtune.sam.weights import from_state

TINY = SamSpec(
    "tiny_t",
    embed_dim=32,
    depth=4,
    heads=2,
    global_blocks=(),
    image_size=64,
    prompt_dim=32,
    decoder_hidden=64,
    iou_hidden=32,
    encoder="tiny_vit",
    # Windows that divide no grid of 64 pixels: all are padded.
    stages=(Stage(16, 1), Stage(16, 1, 2, 3), Stage(24, 2, 3, 3), Stage(32, 1, 4, 3)),
)


@cache
def _filled(spec: SamSpec) -> Sam:
    return from_state(spec, deterministic.fill(Sam(spec).state_dict()))


def base(spec: SamSpec = TINY) -> Sam:
    """A frozen base whose every tensor holds the fill; counters are 0."""
    return copy.deepcopy(_filled(spec))


def mobile_sam() -> Sam:
    """The full ``vit_t``, which no test may change."""
    return _filled(SPECS["vit_t"])


def check(found: Tensor, mean: float, std: float, greatest: float | None, *elements) -> None:
    """Statistics to 1e-5; elements, from the first one and from the middle, to 1e-4."""
    flat = found.detach().double().flatten()
    assert float(flat.mean()) == pytest.approx(mean, abs=1e-5)
    assert float(flat.std(correction=0)) == pytest.approx(std, abs=1e-5)
    if greatest is not None:
        assert float(flat.abs().max()) == pytest.approx(greatest, abs=1e-4)
    for start, values in zip((0, flat.numel() // 2), elements, strict=False):
        assert flat[start : start + len(values)].tolist() == pytest.approx(values, abs=1e-4)


def timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A MobileSAM's tensors under the names that timm has for its encoder."""
    named = {}
    for name, tensor in state.items():
        words = name.split(".")
        if words[0] == "image_encoder" and words[1] != "neck":
            words = ["conv" if word == "c" else word for word in words]
            if words[1] == "patch_embed":
                words[2:4] = [{"0": "conv1", "2": "conv2"}[words[3]]]
            elif words[1] == "layers":
                merges = words[3] == "downsample"
                words[1:3] = ["stages", str(int(words[2]) + merges)]
            elif words[1] in ("norm_head", "head"):
                words[1:2] = ["head", "norm" if words[1] == "norm_head" else "fc"]
        named[".".join(words)] = tensor
    assert len(named) == len(state)
    return named


def classifier(dim: int = 320) -> dict[str, Tensor]:
    """The tensors of MobileSAM's file that its model never uses."""
    return {
        "image_encoder.norm_head.weight": torch.ones(dim),
        "image_encoder.norm_head.bias": torch.zeros(dim),
        "image_encoder.head.weight": torch.zeros(1000, dim),
        "image_encoder.head.bias": torch.zeros(1000),
    }
