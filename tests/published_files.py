"""The tensors in other systems' files, by name and shape, written out from what is known of them.

Nothing here asks the dialects that read such files.
"""

import torch

from samtune.sam.model import Sam, SamSpec

Shapes = dict[str, tuple[int, ...]]

NORM = ("weight", "bias", "running_mean", "running_var")
STAGES = {1: (64, 3), 2: (128, 4), 3: (256, 23), 4: (512, 3)}
"""Width and bottlenecks of ResNet-101's stages."""


def official(spec: SamSpec, *parts: str) -> Shapes:
    """SAM's own tensors whose names begin so; all without any."""
    with torch.device("meta"):
        state = Sam(spec).state_dict()
    return {k: tuple(t.shape) for k, t in state.items() if k.startswith(parts or "")}


def layer(name: str, *weight: int, bias: bool = True, out: int = 0) -> Shapes:
    """A linear layer or a convolution; ``out`` where the bias is not as long as the weight."""
    found: Shapes = {f"{name}.weight": weight}
    return found | ({f"{name}.bias": (out or weight[0],)} if bias else {})


def plain_norm(name: str, width: int) -> Shapes:
    """A norm without statistics."""
    return {f"{name}.{leaf}": (width,) for leaf in NORM[:2]}


def batch_norm(name: str, width: int) -> Shapes:
    """A batch normalisation."""
    return {f"{name}.{leaf}": (width,) for leaf in NORM} | {f"{name}.num_batches_tracked": ()}


def sam_adapter(spec: SamSpec) -> Shapes:
    """The authors' SAM-Adapter: no prompt encoder, its two tensors stand at the top."""
    dim, inner, own = spec.embed_dim, spec.embed_dim // 32, "image_encoder.prompt_generator."
    found = official(spec, "image_encoder.", "mask_decoder.")
    found |= layer(own + "shared_mlp", dim, inner) | layer(own + "embedding_generator", inner, dim)
    for i in range(spec.depth):
        found |= layer(f"{own}lightweight_mlp_{i}.0", inner, inner)
    found |= layer(own + "prompt_generator.proj", inner, 3, 16, 16)
    found["no_mask_embed.weight"] = (1, 256)
    return found | {"pe_layer.positional_encoding_gaussian_matrix": (2, 128)}


def sam_adapter_kyyle(spec: SamSpec) -> Shapes:
    """Kyyle2114's partial file: what is trained, the shared layer once."""
    dim, width, hidden, own = spec.embed_dim, 192, 32, "image_encoder."
    found = official(spec, "mask_decoder.")
    found |= layer(own + "patch_embed_tune", width, dim)
    found |= layer(own + "HFC_tune", width, 3 * 16 * 16)
    found |= layer(own + "task_adapter_up", dim, hidden)
    for i in range(spec.depth + 1):
        found |= layer(f"{own}task_adapter_blocks.{i}.down_projection", hidden, width)
    return found


def ts_sam(spec: SamSpec, side: int, refined: int, fft: bool = False) -> Shapes:
    """TS-SAM: the image encoder, side adapters, refinements, and a decoder of its own."""
    dim, own = spec.embed_dim, "image_encoder."
    found = official(spec, own) | layer(own + "csa_embedding", side, dim)
    if fft:
        found |= layer(own + "fft_embedding.proj", side, 3, 16, 16)
    for i in range(spec.depth + 2):
        width, out = (dim, side) if i <= spec.depth else (256, 256)
        name = f"{own}csa_blocks.{i}."
        found |= layer(name + "conv1", width, side, 1, 1) | batch_norm(name + "bn1", width)
        found |= layer(name + "conv2", out, width, 1, 1) | batch_norm(name + "bn2", out)
    for i in range(refined + 1):
        name = f"{own}mrm_blocks.{i}."
        found |= layer(name + "conv_in.0", 128, dim if i < refined else 256, 1, 1)
        found |= batch_norm(name + "conv_in.1", 128)
        for part, places, gate in (("fpn1", (0, 3), 6), ("fpn2", (0,), 3)):
            for place in places:
                found |= layer(f"{name}{part}.{place}", 128, 128, 2, 2)
                found |= batch_norm(f"{name}{part}.{place + 1}", 128)
            for place in (0, 2):
                linear = f"{name}{part}.{gate}.res_gate.{place}"
                found |= layer(linear, 128, 128, bias=False)
    inputs = dict.fromkeys(("conv1", "conv12_1", "conv12_2", "conv24_1", "conv24_2"), 256)
    for name, channels in (inputs | {"conv2": 128, "conv4": 128}).items():
        found |= layer(f"mask_decoder.{name}.0", 128, channels, 3, 3, bias=False)
        found |= batch_norm(f"mask_decoder.{name}.1", 128)
    return found | layer("mask_decoder.conv1_1", 1, 128, 1, 1)


def resnet(prefix: str = "") -> Shapes:
    """torchvision's ResNet-101."""
    found = layer(prefix + "conv1", 64, 3, 7, 7, bias=False) | batch_norm(prefix + "bn1", 64)
    given = 64
    for stage, (width, depth) in STAGES.items():
        for i in range(depth):
            name, out = f"{prefix}layer{stage}.{i}.", 4 * width
            shapes = ((width, given, 1, 1), (width, width, 3, 3), (out, width, 1, 1))
            for k, shape in enumerate(shapes, 1):
                found |= layer(f"{name}conv{k}", *shape, bias=False)
                found |= batch_norm(f"{name}bn{k}", shape[0])
            if i == 0:
                found |= layer(name + "downsample.0", out, given, 1, 1, bias=False)
                found |= batch_norm(name + "downsample.1", out)
            given = out
    return found | layer(prefix + "fc", 1000, given)


def gsam(spec: SamSpec) -> tuple[Shapes, dict[str, str]]:
    """Generalized SAM, and the second names of its ResNet's tensors with the first ones."""
    dim, own, backbone = spec.embed_dim, "image_encoder.", "image_encoder.cnn_embed.backbone."
    hidden, width = dim // 4, dim // 8
    found = official(spec) | layer(own + "cnn_embed.conv_f", dim, 1024, 1, 1, bias=False)
    del found[own + "pos_embed"]
    found |= resnet(backbone)
    adapters = [own + "input_Adapter."]
    for i in range(spec.depth):
        name = f"{own}blocks.{i}."
        adapters.append(name + "MLP_Adapter.")
        for k in range(5):
            size = 3 if k < 4 else 1
            convolution = f"{name}MLP_Adapter.aspp.convs.{k}.conv"
            found |= layer(convolution, hidden, hidden, size, size, bias=False)
        if i not in spec.global_blocks:
            continue
        for axis in "hw":
            found[f"{name}attn.rel_pos_{axis}"] = (63, dim // spec.heads)
        refine = name + "refine_Adapter."
        for k, shape in ((0, (width, dim, 1, 1)), (3, (width, 1, 3, 3)), (6, (dim, width, 1, 1))):
            found |= layer(f"{refine}conv.{k}", *shape, bias=False)
            found |= plain_norm(f"{refine}conv.{k + 1}", shape[0])
        found |= layer(refine + "se.fc1", hidden, dim) | layer(refine + "se.fc2", dim, hidden)
    for name in adapters:
        found |= layer(name + "D_fc1", hidden, dim) | layer(name + "D_fc2", dim, hidden)
    found |= layer(own + "pos_embed.conv", dim, 1, 3, 3)
    found |= layer("positional_encoder.proj.0", 256, 1, 3, 3)
    second = {}
    short = {"conv1": "conv1", "bn1": "bn1"} | {f"layer{k}": f"res{k + 1}" for k in (1, 2, 3)}
    for key in found:
        part, _, rest = key.removeprefix(backbone).partition(".")
        if key.startswith(backbone) and part in short:
            second[f"{own}cnn_embed.{short[part]}.{rest}"] = key
    return found, second


def samed(spec: SamSpec, rank: int, classes: int) -> Shapes:
    """SAMed: pairs by number, queries' and values' in turn, and tensors of the frozen parts."""
    dim = spec.embed_dim
    found: Shapes = {}
    for i in range(2 * spec.depth):
        found |= {f"w_a_{i:03d}": (rank, dim), f"w_b_{i:03d}": (dim, rank)}
    found |= official(spec, "prompt_encoder.", "mask_decoder.transformer.")
    found |= official(spec, "mask_decoder.output_upscaling.", "mask_decoder.iou_token.")
    found["mask_decoder.mask_tokens.weight"] = (classes, 256)
    one = official(spec, head := "mask_decoder.output_hypernetworks_mlps.0.")
    for i in range(classes):
        names = {key.replace(".0.", f".{i}.", 1): shape for key, shape in one.items()}
        found |= {key: shape for key, shape in names.items() if key.startswith(head[:-2])}
    estimate = official(spec, "mask_decoder.iou_prediction_head.")
    last = "mask_decoder.iou_prediction_head.layers.2."
    return found | estimate | {last + "weight": (classes, 256), last + "bias": (classes,)}
