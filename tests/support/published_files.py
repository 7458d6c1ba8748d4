"""The tensors in other systems' files, by name and shape, written out from what is known of them.

Nothing here asks the dialects that read such files.
"""

from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SamSpec

Shapes = dict[str, tuple[int, ...]]

NORM = ("weight", "bias", "running_mean", "running_var")
STAGES = {1: (64, 3), 2: (128, 4), 3: (256, 23), 4: (512, 3)}
"""Width and bottlenecks of ResNet-101's stages."""


def official(spec: SamSpec, *parts: str) -> Shapes:
    """SAM's own tensors whose names begin so; all without any."""
    with shapes_alone():
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


def bottleneck(name: str, dim: int) -> Shapes:
    """One of Generalized SAM's adapters: down to a quarter and up again."""
    return layer(name + "D_fc1", dim // 4, dim) | layer(name + "D_fc2", dim, dim // 4)


def pyramid(name: str, width: int) -> Shapes:
    """What its SM-AdaptFormer has inside: four convolutions and one of the mean."""
    found: Shapes = {}
    for k, size in enumerate((3, 3, 3, 3, 1)):
        found |= layer(f"{name}aspp.convs.{k}.conv", width, width, size, size, bias=False)
    return found


def heads(classes: int) -> Shapes:
    """What of a mask decoder Generalized SAM's code makes by the number of classes above two."""
    found: Shapes = {
        "mask_decoder.iou_token.weight": (classes, 256),
        "mask_decoder.mask_tokens.weight": (4 * classes + 1, 256),
    }
    for i in range(classes):
        for k, out in enumerate((256, 256, 32)):
            name = f"mask_decoder.output_hypernetworks_mlps.{i}.layers.{k}"
            found |= layer(name, out, 256)
    return found


def low_rank(name: str, head: int, experts: bool) -> Shapes:
    """Its LoRA of the heads' queries, keys or values, or its Conv-LoRA."""
    rank = head // 4
    found: Shapes = {name + "lora_A": (head, rank), name + "lora_B": (rank, head)}
    for part in ("expert1", "expert2", "expert3", "expert4", "gate") if experts else ():
        found |= layer(f"{name}{part}.conv", 4 if part == "gate" else rank, rank, 3, 3)
    return found


def normed(first: str, second: str, out: int, given: int) -> Shapes:
    """A convolution of 3 x 3 without bias, and its norm."""
    return layer(first, out, given, 3, 3, bias=False) | plain_norm(second, out)


def gsam_sized(spec: SamSpec) -> Shapes:
    """The tables of relative positions for images of 256 pixels, in SAMUS and GSAM."""
    names = [f"image_encoder.blocks.{i}.attn.rel_pos_" for i in spec.global_blocks]
    return {name + axis: (63, spec.embed_dim // spec.heads) for name in names for axis in "hw"}


def samus(spec: SamSpec) -> Shapes:
    """The SAMUS of Generalized SAM's code, what it has beside SAM."""
    dim, own = spec.embed_dim, "image_encoder."
    found = gsam_sized(spec) | bottleneck(own + "input_Adapter.", dim)
    for i in spec.global_blocks:
        name = f"{own}blocks.{i}."
        found |= bottleneck(name + "MLP_Adapter.", dim)
        for part in ("q", "k", "v", "proj"):
            found |= layer(f"{name}Space_Adapter.{part}", dim, dim)
        refine = name + "refine_Adapter.conv."
        found |= normed(refine + "0", refine + "1", dim, dim)
    stem = own + "cnn_embed."
    found |= normed(stem + "inc.conv.0", stem + "inc.conv.1", 64, 3)
    for k, (given, out) in enumerate(((64, 128), (128, 256), (256, dim))):
        part = f"{stem}downs.{k}.maxpool_conv."
        found |= normed(part + "1", part + "2", out, given)
    part = own + "post_pos_embed.downs.0.maxpool_conv."
    return found | normed(part + "1", part + "2", dim, dim)


def gsam_row(spec: SamSpec, name: str, classes: int = 2) -> Shapes:
    """A model that Generalized SAM's code compares with, all of its state."""
    dim, found = spec.embed_dim, official(spec)
    if classes != 2:
        head = "mask_decoder.output_hypernetworks_mlps."
        found = {k: s for k, s in found.items() if not k.startswith(head)} | heads(classes)
    if name == "samus":
        return found | samus(spec)
    for i in range(spec.depth):
        block = f"image_encoder.blocks.{i}."
        if name in ("lora", "convlora"):
            for part in "qkv":
                experts = name == "convlora"
                found |= low_rank(f"{block}lora_{part}.", dim // spec.heads, experts)
        if name in ("adaptformer", "smadaptformer"):
            found |= bottleneck(block + "MLP_Adapter.", dim)
        if name == "smadaptformer":
            found |= pyramid(block + "MLP_Adapter.", dim // 4)
    return found


def gsam(spec: SamSpec) -> tuple[Shapes, dict[str, str]]:
    """Generalized SAM, and the second names of its ResNet's tensors with the first ones."""
    dim, own, backbone = spec.embed_dim, "image_encoder.", "image_encoder.cnn_embed.backbone."
    hidden, width = dim // 4, dim // 8
    found = official(spec) | layer(own + "cnn_embed.conv_f", dim, 1024, 1, 1, bias=False)
    del found[own + "pos_embed"]
    found |= resnet(backbone) | gsam_sized(spec) | bottleneck(own + "input_Adapter.", dim)
    for i in range(spec.depth):
        name = f"{own}blocks.{i}."
        found |= bottleneck(name + "MLP_Adapter.", dim) | pyramid(name + "MLP_Adapter.", hidden)
        if i not in spec.global_blocks:
            continue
        refine = name + "refine_Adapter."
        for k, shape in ((0, (width, dim, 1, 1)), (3, (width, 1, 3, 3)), (6, (dim, width, 1, 1))):
            found |= layer(f"{refine}conv.{k}", *shape, bias=False)
            found |= plain_norm(f"{refine}conv.{k + 1}", shape[0])
        found |= layer(refine + "se.fc1", hidden, dim) | layer(refine + "se.fc2", dim, hidden)
    found |= layer(own + "pos_embed.conv", dim, 1, 3, 3)
    found |= layer("positional_encoder.proj.0", 256, 1, 3, 3)
    second = {}
    short = {"conv1": "conv1", "bn1": "bn1"} | {f"layer{k}": f"res{k + 1}" for k in (1, 2, 3)}
    for key in found:
        part, _, rest = key.removeprefix(backbone).partition(".")
        if key.startswith(backbone) and part in short:
            second[f"{own}cnn_embed.{short[part]}.{rest}"] = key
    return found, second


def cat_sam(spec: SamSpec, variant: str) -> tuple[Shapes, dict[str, str]]:
    """CAT-SAM's variant ``t`` or ``a``, and the second names of its tensors with the first ones."""
    dim, own, few = spec.embed_dim, "image_encoder.", spec.embed_dim // 32
    encoders = official(spec, "image_encoder.", "prompt_encoder.")
    found = {f"ori_sam.{key}": shape for key, shape in encoders.items()}
    second = {}
    for key in encoders:
        part, _, rest = key.partition(".")
        second[f"{part}.sam_{part.replace('image', 'img')}.{rest}"] = f"ori_sam.{key}"
    found |= official(spec, decoder := "mask_decoder.") | {decoder + "hf_token.weight": (1, 256)}
    second["image_encoder.hq_token"] = decoder + "hf_token.weight"
    for i, (wide, out) in enumerate(((256, 256), (256, 256), (256, 32))):
        found |= layer(f"{decoder}hf_mlp.layers.{i}", out, wide)
    for name, given, hidden in (("compress_vit_feat", dim, 256), ("embedding_encoder", 256, 64)):
        found |= layer(f"{decoder}{name}.0", given, hidden, 2, 2, out=hidden)
        found |= plain_norm(f"{decoder}{name}.1", hidden)
        found |= layer(f"{decoder}{name}.3", hidden, 32, 2, 2, out=32)
    found |= layer(decoder + "embedding_maskfeature.0", 64, 32, 3, 3)
    found |= plain_norm(decoder + "embedding_maskfeature.1", 64)
    found |= layer(decoder + "embedding_maskfeature.3", 32, 64, 3, 3)
    if variant == "t":
        for i in range(spec.depth):
            found |= layer(f"{own}hq_token_proj.{i}.adapter.0", 64, 256)
            found |= layer(f"{own}hq_token_proj.{i}.adapter.2", dim, 64)
        return found, second
    inner = own + "prompt_generator."
    found |= layer(inner + "shared_mlp", dim, few) | layer(inner + "embedding_generator", few, dim)
    for i in range(spec.depth):
        found |= layer(f"{inner}lightweight_mlp_{i}.0", few, few)
    found |= layer(inner + "prompt_generator.proj", few, 3, 16, 16)
    for j in range(few):
        found |= layer(f"{own}hq_token_down_proj.{j}.adapter.0", 32, 256)
    return found | layer(own + "shared_up_proj", 4096, 32), second


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
