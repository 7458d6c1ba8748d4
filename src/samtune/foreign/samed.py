"""SAMed's files: numbered LoRA pairs, with the prompt encoder and the mask decoder.

Pairs are numbered over all blocks, in each block queries before values. Slices enter as values in
0..1 without normalisation, at the published size of 512 x 512. SciPy's zoom resizes others to it,
and their classes back.
"""

from __future__ import annotations

import re

from samtune.foreign.base import Dialect, Settings, preset_policy, register
from samtune.sam.spec import SamSpec
from samtune.sam.weights import State


def _pair(match: re.Match[str]) -> str:
    """Numbers LoRA's A and B of a block's pair: ``updates.3.a.1`` is ``w_a_007``."""
    block, factor, pair = int(match[1]), match[2], int(match[3])
    return f"w_{factor}_{2 * block + pair:03d}"


def _settings(state: State, spec: SamSpec) -> Settings:
    classes = state["mask_decoder.mask_tokens.weight"].shape[0]
    return Settings(
        {"rank": state["w_a_000"].shape[0]},
        {"classes": classes, "tokens": "per_class", "train_dense": True},
    )


def _side(spec: SamSpec) -> int:
    return spec.image_size // 2


SAMED = register(
    Dialect(
        name="samed",
        system="SAMed (Zhang and Liu 2023)",
        adapter="lora",
        decoder="semantic",
        marks=(r"^w_a_000$", r"^w_b_000$", r"^mask_decoder\.mask_tokens\.weight$"),
        names=(
            (r"^adapter\.updates\.(\d+)\.([ab])\.(\d)$", _pair),
            (r"^decoder\.no_mask_embed\.", "prompt_encoder.no_mask_embed."),
            (r"^decoder\.", ""),
        ),
        # The system computes an IoU estimate of each mask but does not use it.
        ignored_names=r"^mask_decoder\.iou_prediction_head\.",
        absent_names=r"^(image_encoder|mask_decoder)\.",
        holds="all",
        settings=_settings,
        policy=preset_policy("samed", _side),
        prompts="none",
        sized=True,
    )
)
