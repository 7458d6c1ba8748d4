"""What the golden tests of TS-SAM share: the small base, its fill, the maps between modules."""

import json
import math
import zlib
from pathlib import Path

import normals
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samtune.model.finetuned import FineTuned
from samtune.prompts import Prompts
from samtune.sam.spec import SamSpec

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "ts_sam.json").read_text())

SMALL = SamSpec(
    "small", 96, 4, 3, (1, 3), image_size=128, window=3, decoder_hidden=32, iou_hidden=32
)


def fill(key: str, shape: torch.Size) -> Tensor:
    """Values of one tensor, from the published name of it alone."""
    seed, count = zlib.crc32(key.encode()), math.prod(shape)
    if count >= normals.MANY and len(shape) > 1 and not key.endswith("pos_embed"):
        divisor = np.sqrt(count / shape[0])
        return normals.standard_normal(seed, shape, lambda n: n / divisor)
    random = np.random.RandomState(seed)
    n = random.standard_normal(tuple(shape))
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if key.endswith("running_var"):
        n = 0.5 + random.random_sample(tuple(shape))
    elif key.endswith("running_mean"):
        n = 0.1 * n
    elif key.endswith("pos_embed"):
        n = 0.02 * n
    elif len(shape) == 1:
        n = 1 + 0.1 * n if key.endswith("weight") else 0.1 * n
    else:
        n /= np.sqrt(n.size / shape[0])
    return torch.from_numpy(np.asarray(n, dtype=np.float32))


def noise(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def tapped(model: FineTuned, x: Tensor) -> dict[str, Tensor]:
    """What passes between the modules in one forward pass, by the names in the golden file."""
    seen: dict[str, Tensor] = {}
    adapter, decoder = model.adapter, model.decoder
    depth, first = len(model.sam.image_encoder.blocks), adapter.first_refined

    def watch(module: nn.Module, note) -> None:
        hooks.append(module.register_forward_hook(lambda _, given, made: note(given, made)))

    hooks: list = []
    csa, mrm = adapter.csa_blocks, adapter.mrm_blocks
    watch(csa[0], lambda given, made: seen.update(side_embed=given[1], side_0=made[0]))
    watch(csa[0], lambda given, made: seen.update(tokens_pos=given[0].permute(0, 2, 3, 1)))
    watch(csa[1], lambda given, made: seen.update(side_1=made[0]))
    for i in (0, depth - 1):
        name = f"block_out_{i}", f"fused_{i}"
        watch(csa[i + 1], lambda g, m, name=name: seen.update({name[0]: g[0], name[1]: m[1]}))
    watch(csa[depth], lambda given, made: seen.update({f"side_{depth}": made[0]}))
    names = f"mrm4x_{first}", f"mrm2x_{first}"
    watch(mrm[0], lambda given, made: seen.update(zip(names, made, strict=True)))
    watch(mrm[-1], lambda given, made: seen.update(neck=given[0]))
    half = decoder.conv1_1.in_channels
    watch(decoder.conv24_1, lambda given, made: seen.update(ffd_d4=given[0][:, half:]))
    watch(decoder.conv12_2, lambda given, made: seen.update(ffd_12_2=made))
    watch(decoder.conv24_2, lambda given, made: seen.update(ffd_24_2=made))
    with torch.no_grad():
        features = model.encode(x)
        seen["feat1x"], seen["feat2x"], seen["feat4x"] = features.state.maps
        seen["low_res"] = decoder(model.sam, features, per_image(len(x))).logits
    for hook in hooks:
        hook.remove()
    seen["logits"] = F.interpolate(seen["low_res"], x.shape[-2:], mode="bilinear")
    return seen


def per_image(images: int) -> Prompts:
    return Prompts.of(image=torch.arange(images))


def check(seen: dict[str, Tensor], golden: dict[str, list]) -> None:
    """Everything at 1e-4 of the standard deviation, beside the rounding of the golden file."""
    assert seen.keys() == golden.keys()
    for name, (shape, mean, std, greatest, first, middle, last) in golden.items():
        t = seen[name].contiguous()
        assert list(t.shape) == shape, name
        flat = t.flatten().double()
        found = [flat.mean(), flat.std(), flat.abs().max(), flat[0], flat[-1]]
        found = torch.stack([*found, flat[len(flat) // 2]])
        wanted = torch.tensor([mean, std, greatest, first, last, middle], dtype=torch.float64)
        assert (found - wanted).abs().max() <= 1e-4 * std + 2e-6, (name, found - wanted)
