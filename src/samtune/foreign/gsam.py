"""Files of Generalized SAM's code (arXiv:2408.12406): seven models, each with its whole state.

Images are normalised with other constants than SAM's. The files do not store the input size: it is
1024, for SAMUS 256, and for GSAM it depends on the data set and is given by ``size``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from samtune.foreign.base import Dialect, Options, Settings, count, preset_policy, register
from samtune.sam.spec import SamSpec
from samtune.sam.weights import Names, State

STRIDE = 8
"""Pixels from one token to the next in SAMUS and GSAM."""
BLOCKS = "image_encoder.blocks."


def _stage(match: re.Match[str]) -> str:
    """A further stage of SAMUS's stem: a max-pooling, a convolution, a norm."""
    stage, part = int(match[1]) - 1, int(match[2]) + 1
    return f"image_encoder.cnn_embed.downs.{stage}.maxpool_conv.{part}."


def _of_block(part: str) -> str:
    return rf"^adapter\.{part}\.(\d+)\."


NAMES: Names = (
    (r"^adapter\.stem\.([123])\.([01])\.", _stage),
    (_of_block("bottlenecks"), BLOCKS + r"\1.MLP_Adapter."),
    (_of_block("updates") + r"([qkv])\.", BLOCKS + r"\1.lora_\2."),
    (r"(\.lora_[qkv])\.a$", r"\1.lora_A"),
    (r"(\.lora_[qkv])\.b$", r"\1.lora_B"),
    (r"(\.lora_[qkv])\.experts\.(\d)\.", r"\1.expert\2.conv."),
    (r"(\.lora_[qkv])\.gate\.", r"\1.gate.conv."),
    (r"\.pyramid\.dilated\.(\d)\.", r".aspp.convs.\1.conv."),
    (r"\.pyramid\.pooled\.", ".aspp.convs.4.conv."),
    (r"^adapter\.input\.", "image_encoder.input_Adapter."),
    (r"\.down\.", ".D_fc1."),
    (r"\.up\.", ".D_fc2."),
    (_of_block("tables"), BLOCKS + r"\1.attn.rel_pos_"),
    (_of_block("refine") + r"(se|conv)\.", BLOCKS + r"\1.refine_Adapter.\2."),
    (_of_block("refine"), BLOCKS + r"\1.refine_Adapter.conv."),
    (_of_block("cross"), BLOCKS + r"\1.Space_Adapter."),
    (r"^adapter\.peg\.", "image_encoder.pos_embed.conv."),
    (r"^adapter\.resnet\.", "image_encoder.cnn_embed.backbone."),
    (r"^adapter\.project\.", "image_encoder.cnn_embed.conv_f."),
    (r"^adapter\.stem\.0\.", "image_encoder.cnn_embed.inc.conv."),
    (r"^adapter\.positions\.0\.", "image_encoder.post_pos_embed.downs.0.maxpool_conv.1."),
    (r"^adapter\.positions\.1\.", "image_encoder.post_pos_embed.downs.0.maxpool_conv.2."),
    (r"^decoder\.positions\.", "positional_encoder.proj.0."),
    (r"^decoder\.mask_decoder\.", "mask_decoder."),
)
"""Patterns from this library's names to the published ones, in order; the factors A and B of a
residual are ``a`` and ``b`` here, ``lora_A`` and ``lora_B`` there."""
FOURTH = r"^mask_decoder\.output_hypernetworks_mlps\.3\."
"""The fourth head: files of three classes have three heads, SAM has four."""
ALIASES: Names = (
    (r"^image_encoder\.cnn_embed\.(conv1|bn1)\.", r"image_encoder.cnn_embed.backbone.\1."),
    (
        r"^image_encoder\.cnn_embed\.res([234])\.",
        lambda match: f"image_encoder.cnn_embed.backbone.layer{int(match[1]) - 1}.",
    ),
)
"""GSAM's state stores the stages of the ResNet twice."""


def _decoder(state: State) -> Options:
    tokens = state["mask_decoder.iou_token.weight"].shape[0]
    return {"classes": 2 if tokens == 1 else tokens}


def _ratio(width: int, of: int) -> float:
    """The fraction that gives a width after rounding down."""
    return width / of if int(of * (width / of)) == width else (width + 0.5) / of


def _beside_mlp(state: State) -> int:
    return next(t.shape[0] for k, t in state.items() if k.endswith("MLP_Adapter.D_fc1.weight"))


def _plain(state: State, spec: SamSpec) -> Options:
    return {}


def _low_rank(state: State, spec: SamSpec) -> Options:
    dim, rank = state[BLOCKS + "0.lora_q.lora_A"].shape
    return {"ratio": _ratio(rank, dim)}


def _adaptformer(state: State, spec: SamSpec) -> Options:
    form = {"scale": 0.5, "activation": "gelu", "zero_init": False}
    return {"hidden": _beside_mlp(state), **form}


def _share(state: State, spec: SamSpec) -> Options:
    return {"ratio": _ratio(_beside_mlp(state), spec.embed_dim)}


def _tables(state: State, spec: SamSpec) -> Options:
    rows = state[f"{BLOCKS}{spec.global_blocks[0]}.attn.rel_pos_h"].shape[0]
    return {**_share(state, spec), "table_size": (rows + 1) // 2 * STRIDE}


def _gsam(state: State, spec: SamSpec) -> Options:
    depth = count(state, r"^image_encoder\.cnn_embed\.backbone\.layer3\.(\d+)\.")
    return {**_tables(state, spec), "depth": depth}


def _family(
    name: str,
    adapter: str,
    marks: tuple[str, ...],
    options: Callable[[State, SamSpec], Options],
    side: int | None = None,
    **decoder: object,
) -> Dialect:
    return register(
        Dialect(
            name=f"gsam:{name}",
            system=f"Generalized SAM (Kato et al. 2024), its model {name}",
            adapter=adapter,
            decoder="semantic",
            marks=(r"^mask_decoder\.iou_token\.weight$", *marks),
            names=NAMES,
            aliases=ALIASES,
            ignored_names=r"^image_encoder\.cnn_embed\.backbone\.(layer4|fc)\.",
            absent_names=r"^image_encoder\.pos_embed$" if adapter == "gsam" else r"(?!)",
            optional_names=FOURTH,
            holds="all",
            settings=lambda state, spec: Settings(
                options(state, spec), {**_decoder(state), **decoder}
            ),
            policy=preset_policy("gsam", lambda spec: side or spec.image_size),
            prompts="none",
            variants=("channels", "first_size"),
            sized=adapter == "gsam",
        )
    )


LOW_RANK = tuple(rf"^image_encoder\.blocks\.0\.lora_q\.lora_{part}$" for part in "AB")
BESIDE_MLP = tuple(rf"^image_encoder\.blocks\.\d+\.MLP_Adapter\.D_fc{i}\.weight$" for i in (1, 2))
INPUT = r"^image_encoder\.input_Adapter\.D_fc1\.weight$"
GLOBAL = r"^image_encoder\.blocks\.\d+\.attn\.rel_pos_h$"

FAMILY: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        _family("sam", "none", (r"^image_encoder\.patch_embed\.proj\.weight$",), _plain),
        _family("lora", "head_lora", LOW_RANK, _low_rank),
        _family(
            "convlora",
            "head_conv_lora",
            (*LOW_RANK, r"\.lora_q\.expert1\.conv\.weight$"),
            _low_rank,
        ),
        _family("adaptformer", "adaptformer", BESIDE_MLP, _adaptformer),
        _family(
            "smadaptformer",
            "sm_adaptformer",
            (*BESIDE_MLP, r"\.MLP_Adapter\.aspp\.convs\.0\."),
            _share,
        ),
        _family(
            "samus",
            "samus",
            (*BESIDE_MLP, INPUT, GLOBAL, r"\.Space_Adapter\.q\.weight$"),
            _tables,
            side=256,
            frozen=True,
        ),
        _family(
            "gsam",
            "gsam",
            (*BESIDE_MLP, INPUT, GLOBAL, r"^image_encoder\.cnn_embed\.backbone\."),
            _gsam,
            side=256,
            positions="conv",
        ),
    )
}
"""The dialects of this code."""
