"""The G-SAM family's golden numbers: its own fill of the weights, by the reference's names.

A tensor's values depend on its reference name and shape alone (NumPy's Mersenne Twister seeded with
the CRC-32 of the name), another rule than that of ``deterministic``.
"""

import json
import math
import zlib
from collections.abc import Container
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from deterministic import CHUNK
from torch import nn

from samtune.batch import Batch
from samtune.foreign import DIALECTS
from samtune.geometry import Geometry
from samtune.losses import Loss
from samtune.model.finetuned import FineTuned
from samtune.prompts import Prompts
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SamSpec
from samtune.sam.weights import from_state

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "gsam.json").read_text())

PLAIN = SamSpec("tiny", embed_dim=48, depth=4, heads=3, global_blocks=(1, 3), image_size=256)
PLAIN3 = SamSpec("tiny3", embed_dim=48, depth=3, heads=3, global_blocks=(2,), image_size=256)
# SAMUS and GSAM keep SAM's 64x64 positions in the reference's tiny models, too.
TINY, TINY3 = replace(PLAIN, image_size=1024), replace(PLAIN3, image_size=1024)

LAYER4, CLASSIFIER = 14_964_736, 2_049_000
"""Parameters of the parts of GSAM's ResNet that nothing uses."""

reference_name = DIALECTS["gsam:gsam"].theirs
"""The reference's name of a tensor of this library; the same rules for all seven models."""


def value(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The float32 fill of the tensor that the reference calls ``name``."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    numbers = np.empty(math.prod(shape), np.float32)
    for start in range(0, len(numbers), CHUNK):
        part = numbers[start : start + CHUNK]
        u = 2 * random.random_sample(len(part)) - 1  # as random.uniform(-1, 1)
        if name.endswith("running_var"):
            u = 1 + 0.5 * u
        elif name.endswith("running_mean"):
            u = 0.1 * u
        elif len(shape) == 1:
            u = 1 + 0.1 * u if name.endswith("weight") else 0.05 * u
        elif "rel_pos" in name or name == "image_encoder.pos_embed":
            u = 0.5 * u
        elif not name.endswith(("lora_A", "lora_B", "gaussian_matrix")):
            u = u * np.sqrt(3 / np.prod(shape[1:]))
        part[:] = u
    return torch.from_numpy(numbers.reshape(tuple(shape)))


@cache
def base(spec: SamSpec) -> Sam:
    """A frozen base that all share: to fill it takes longer than many a test."""
    with shapes_alone():
        names = Sam(spec).state_dict()
    return from_state(spec, {name: value(name, tuple(t.shape)) for name, t in names.items()})


@torch.no_grad()
def fill(module: nn.Module, prefix: str = "") -> None:
    for name, tensor in module.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            tensor.copy_(value(reference_name(prefix + name), tuple(tensor.shape)))


def model(spec: SamSpec, name: str, adapter: dict | None = None, **decoder) -> FineTuned:
    """A model with the semantic decoder whose every tensor holds the fill, in evaluation mode."""
    built = FineTuned(
        base(spec), name, "semantic", adapter_options=adapter, decoder_options=decoder
    )
    fill(built)
    return built.eval()


def image(size: tuple[int, int], count: int = 2) -> torch.Tensor:
    values = np.random.RandomState(0).uniform(-2, 2, (count, 3, *size))
    return torch.from_numpy(values.astype(np.float32))


def run(built: FineTuned, x: torch.Tensor):
    """Embedding, low-resolution logits as :class:`Masks`, and logits in the image's frame."""
    features = built.encode(x)
    prompts = Prompts.of(image=torch.arange(len(x)))
    masks = built.decoder(built.sam, features, prompts)
    full = nn.functional.interpolate(masks.logits, x.shape[-2:], mode="bilinear")
    return features.embedding, masks, full


def batch(x: torch.Tensor, classes: int | None = None) -> Batch:
    """The reference's random targets: masks above one half, or maps of classes."""
    n, size, generator = len(x), tuple(x.shape[-2:]), np.random.RandomState(1)
    if classes is None:
        targets = torch.from_numpy(generator.uniform(size=(n, 1, *size)) > 0.5)[:, 0]
    else:
        targets = torch.from_numpy(generator.randint(0, classes, (n, *size))).long()
    return Batch(
        pixels=torch.zeros(n, 3, *size, dtype=torch.uint8),
        sizes=torch.tensor([size] * n),
        prompts=Prompts.of(image=torch.arange(n)),
        targets=targets,
        valid=torch.ones(n, *size, dtype=torch.bool),
        classes=torch.zeros(n, dtype=torch.long),
        geometries=(Geometry(size, size, size),) * n,
        names=tuple(str(i) for i in range(n)),
    )


def loss(built: FineTuned, x: torch.Tensor, classes: int | None = None) -> torch.Tensor:
    _, masks, _ = run(built, x)
    return Loss.parse("bce" if classes is None else "ce")(masks, batch(x, classes))


def assert_summary(tensor: torch.Tensor, golden: dict, atol: float = 5e-5) -> None:
    """Shape, mean, population standard deviation, and four values."""
    flat = tensor.detach().double().flatten()
    n = len(flat)
    assert list(tensor.shape) == golden["shape"]
    found = [float(flat.mean()), float(flat.std(correction=0))]
    found += [float(flat[i]) for i in (0, n // 3, n // 2, n - 1)]
    np.testing.assert_allclose(found, [golden["mean"], golden["std"], *golden["at"]], 0, atol)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def total(built: FineTuned) -> int:
    """The parameters of the reference's model: what stays of the base, and our own."""
    whole = built.sam.image_encoder, built.sam.prompt_encoder
    replaced = 0
    for i in getattr(built.adapter, "tables", ()):  # of relative positions
        attention = built.sam.image_encoder.blocks[int(i)].attn
        replaced += attention.rel_pos_h.numel() + attention.rel_pos_w.numel()
    if built.adapter.name == "gsam":  # no absolute positions; two parts of the ResNet unused
        replaced += built.sam.image_encoder.pos_embed.numel() - LAYER4 - CLASSIFIER
    # What the reference freezes is a parameter there and a buffer here; statistics are in neither.
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    own = [t for n, t in built.state_dict().items() if not n.endswith(statistics)]
    return sum(map(count, whole)) - replaced + sum(t.numel() for t in own)


def assert_gradients(built: FineTuned, size: tuple[int, int], golden: dict) -> None:
    """The loss and the norms of its gradients, those of the base's tensors too."""
    built.sam.requires_grad_(True)
    built.adapter.detached = False  # where samtune leaves them out
    value = loss(built, image(size))
    assert float(value.detach()) == pytest.approx(golden["loss"], abs=5e-5)
    value.backward()
    found = {n: p.grad for n, p in built.sam.named_parameters()}
    built.sam.freeze().zero_grad()  # others share it
    found |= {reference_name(n): p.grad for n, p in built.named_parameters()}
    norms = {n: float(found[n].norm()) for n in golden["grad_l2"]}
    for name, wanted in golden["grad_l2"].items():
        assert norms[name] == pytest.approx(wanted, rel=1e-3), name


def assert_steps(
    built: FineTuned,
    size: tuple[int, int],
    classes: int,
    losses: list[float],
    later: float = 1e-3,
) -> None:
    """The losses before and after steps of Adam; the first to 1e-5, the others to ``later``."""
    optimizer = torch.optim.Adam(built.train().parameters(), lr=1e-3)
    found = []
    for _ in losses:
        value = loss(built, image(size), None if classes == 2 else classes)
        found.append(float(value.detach()))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert found[0] == pytest.approx(losses[0], abs=1e-5)
    np.testing.assert_allclose(found, losses, rtol=0, atol=later)


def assert_vit_b(
    built: FineTuned, size: tuple[int, int], golden: dict, before_leave: Container[int] = ()
) -> None:
    """Outputs of two blocks, embedding and masks of the full model on one image."""
    after, leave = {}, built.adapter.leave

    def watched(i, x, state):
        out = leave(i, x, state)
        after[i] = x if i in before_leave else out
        return out

    built.adapter.leave = watched
    embedding, masks, full = run(built, image(size, 1))
    for name, tensor in [("block0", after[0]), ("block2", after[2])]:
        # Activations of GSAM's random weights reach the tens.
        assert_summary(tensor, golden[name], atol=5e-5 * max(1.0, golden[name]["std"]))
    for name, tensor in [("E", embedding), ("L", masks.logits), ("M", full)]:
        assert_summary(tensor, golden[name])
