"""transformers' models as oracles: their configuration with a base's sizes, filled by rule."""

import deterministic
import pytest

from samtune.sam.spec import SamSpec


def configuration(family: str, spec: SamSpec, **decoder):
    """The configuration of a ``family``, ``Sam`` or ``SamHQ``, with the sizes of ``spec``."""
    transformers = pytest.importorskip("transformers")
    config, vision, prompts, masks = (
        getattr(transformers, f"{family}{part}Config")
        for part in ("", "Vision", "PromptEncoder", "MaskDecoder")
    )
    common = {"image_size": spec.image_size, "patch_size": spec.patch_size}
    return config(
        vision_config=vision(
            hidden_size=spec.embed_dim,
            output_channels=spec.prompt_dim,
            num_hidden_layers=spec.depth,
            num_attention_heads=spec.heads,
            window_size=spec.window,
            global_attn_indexes=list(spec.global_blocks),
            num_pos_feats=spec.prompt_dim // 2,
            mlp_dim=int(spec.embed_dim * spec.mlp_ratio),
            **common,
        ),
        prompt_encoder_config=prompts(hidden_size=spec.prompt_dim, **common),
        mask_decoder_config=masks(
            hidden_size=spec.prompt_dim,
            mlp_dim=spec.decoder_hidden,
            iou_head_hidden_dim=spec.iou_hidden,
            **decoder,
        ),
    )


def oracle(family: str, spec: SamSpec, **decoder):
    """A filled model of a ``family``, frozen, with the official eps in its decoder."""
    transformers = pytest.importorskip("transformers")
    built = getattr(transformers, f"{family}Model")
    model = built(configuration(family, spec, **decoder)).eval()
    model.load_state_dict(deterministic.fill(model.state_dict()))
    matrix = deterministic.value("matrix", (2, spec.prompt_dim // 2)) * 3
    model.shared_image_embedding.positional_embedding.data.copy_(matrix)
    for layer in model.mask_decoder.transformer.layers:
        for i in range(1, 5):
            getattr(layer, f"layer_norm{i}").eps = 1e-5  # transformers has 1e-6
    return model.requires_grad_(False)
