"""Encoders of one shape and the same weights: official, transformers' two, and samtune's."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Callable
from contextlib import contextmanager, suppress
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samtune import FineTuned
from samtune.ops import attention, resize, windows
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS, SamSpec

HIDDEN = 64
"""Width of the adapter beside each MLP."""
Encode = Callable[[Tensor], Tensor]


class Beside(nn.Module):
    """An MLP with a trained bottleneck beside it, as AdaptFormer has it."""

    def __init__(self, mlp: nn.Module, dim: int) -> None:
        super().__init__()
        self.mlp, self.down, self.up = mlp, nn.Linear(dim, HIDDEN), nn.Linear(HIDDEN, dim)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(..., C)`` to ``(..., C)``."""
        return self.mlp(x) + self.up(torch.relu(self.down(x)))


class Written(nn.Module):
    """The official formulation, where the official package is not installed."""

    def __init__(self, sam: Sam, adapted: bool) -> None:
        super().__init__()
        self.encoder = sam.image_encoder
        dim, depth = sam.image_encoder.dim, len(sam.image_encoder.blocks)
        self.beside = nn.ModuleList(Beside(nn.Identity(), dim) for _ in range(depth * adapted))

    def forward(self, pixels: Tensor) -> Tensor:
        """The embedding ``(B, C, H, W)``."""
        x = self.encoder.embed(pixels)
        for i, block in enumerate(self.encoder.blocks):
            normed, grid = block.norm1(x), (x.shape[1], x.shape[2])
            if block.window:
                parts, padded = windows.partition(normed, block.window)
                x = x + windows.merge(self._attend(block.attn, parts), padded, grid)
            else:
                x = x + self._attend(block.attn, normed)
            normed = block.norm2(x)
            out = _linear(F.gelu(_linear(normed, block.mlp.lin1)), block.mlp.lin2)
            if self.beside:
                adapter = self.beside[i]
                out = out + adapter.up(torch.relu(adapter.down(normed)))
            x = x + out
        return self.encoder.apply_neck(x)

    @staticmethod
    def _attend(attn: nn.Module, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        q, k, v = attn.split(_linear(x, attn.qkv).flatten(1, 2))
        tables = attn.rel_pos_h, attn.rel_pos_w
        rel = [resize.relative(t, n, n) for t, n in zip(tables, (h, w), strict=True)]
        out = attention.attend(q, k, v, *rel, form="textbook")
        return _linear(out.transpose(1, 2).reshape(b, h, w, c), attn.proj)


def _linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


def random_base(spec: SamSpec, device: str = "cpu") -> Sam:
    """A frozen base with random weights; relative tables too, whose zeros would hide errors."""
    torch.manual_seed(0)
    with torch.device(device):
        sam = Sam(spec)
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if "rel_pos" in name:
                parameter.normal_(0, 0.2)
            elif parameter.ndim > 1:
                parameter.normal_(0, 0.02)
    return sam.freeze()


def encoders(sam: Sam, adapted: bool) -> dict[str, Encode]:
    """The encoders by name, each with an adapter of the same width if ``adapted``."""
    spec, device = sam.spec, sam.device
    model = FineTuned(sam, adapter="adaptformer" if adapted else "none").to(device)
    model.train(adapted)
    found: dict[str, Encode] = {}
    official = _official(spec)
    if official is None:
        found["official formulation"] = Written(sam, adapted).to(device)
    else:
        official.load_state_dict(sam.image_encoder.state_dict())
        for block in official.requires_grad_(False).blocks if adapted else ():
            block.mlp = Beside(block.mlp, spec.embed_dim)
        found["official"] = official.to(device)
    for kind in ("eager", "sdpa"):
        with suppress(ImportError):
            found[f"transformers {kind}"] = _of_transformers(sam, kind, adapted)
    found["samtune"] = lambda pixels: model.encode(pixels).embedding
    return found


def trained(encode: Encode) -> list[nn.Parameter]:
    """Nothing for functions; of modules the parameters that need a gradient."""
    parameters = encode.parameters() if isinstance(encode, nn.Module) else ()
    return [p for p in parameters if p.requires_grad]


def _official(spec: SamSpec) -> nn.Module | None:
    try:
        with _torchvision_stands_in():
            from segment_anything.modeling.image_encoder import ImageEncoderViT
    except ImportError:
        return None
    return ImageEncoderViT(
        depth=spec.depth, embed_dim=spec.embed_dim, img_size=spec.image_size,
        mlp_ratio=spec.mlp_ratio, norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_heads=spec.heads, patch_size=spec.patch_size, qkv_bias=True, use_rel_pos=True,
        global_attn_indexes=list(spec.global_blocks), window_size=spec.window,
        out_chans=spec.prompt_dim,
    )  # fmt: skip


@contextmanager
def _torchvision_stands_in():
    """The package imports torchvision, of which its encoder needs nothing."""
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    names = ["", ".transforms", ".transforms.functional", ".ops", ".ops.boxes"]
    names = [f"torchvision{name}" for name in names]
    for name in names:
        module = sys.modules[name] = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        for part in ("resize", "to_pil_image", "batched_nms", "box_area"):
            setattr(module, part, None)
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name)


NAMES_OF_TRANSFORMERS = {
    "patch_embed.proj": "patch_embed.projection", "blocks.": "layers.", "norm1": "layer_norm1",
    "norm2": "layer_norm2", "neck.0": "neck.conv1", "neck.1": "neck.layer_norm1",
    "neck.2": "neck.conv2", "neck.3": "neck.layer_norm2",
}  # fmt: skip


def _of_transformers(sam: Sam, kind: str, adapted: bool) -> nn.Module:
    from transformers import SamVisionConfig
    from transformers.models.sam.modeling_sam import SamVisionEncoder

    spec = sam.spec
    config = SamVisionConfig(
        hidden_size=spec.embed_dim, output_channels=spec.prompt_dim,
        num_hidden_layers=spec.depth, num_attention_heads=spec.heads, num_channels=3,
        image_size=spec.image_size, patch_size=spec.patch_size, window_size=spec.window,
        global_attn_indexes=list(spec.global_blocks), mlp_ratio=spec.mlp_ratio,
        mlp_dim=int(spec.embed_dim * spec.mlp_ratio), layer_norm_eps=1e-6,
    )  # fmt: skip
    config._attn_implementation = kind
    encoder = SamVisionEncoder(config)
    state = {}
    for name, value in sam.image_encoder.state_dict().items():
        key = name
        for old, new in NAMES_OF_TRANSFORMERS.items():
            key = key.replace(old, new)
        state[key] = value
    encoder.load_state_dict(state)
    for layer in encoder.requires_grad_(False).layers if adapted else ():
        layer.mlp = Beside(layer.mlp, spec.embed_dim)
    return OfTransformers(encoder).to(sam.device)


class OfTransformers(nn.Module):
    """An encoder whose answer is the embedding alone."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        """The embedding ``(B, C, H, W)``."""
        return self.encoder(pixels).last_hidden_state


def spec_at(name: str, size: int) -> SamSpec:
    """A base whose native side is ``size``; ``tiny`` is a small one to try the script."""
    from dataclasses import replace

    if name == "tiny":
        return SamSpec("tiny", 32, 2, 2, (1,), image_size=size, prompt_dim=32)
    return replace(SPECS[name], image_size=size)
