"""Checkpoints in other systems' layouts, made from models of ours on the tiny base."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import deterministic
import tiny
import torch
from torch import Tensor

from samtune.foreign import DIALECTS
from samtune.model.finetuned import FineTuned
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SamSpec

# What a file tells by its shapes alone, so other values than the defaults.
OPTIONS: dict[str, tuple[dict, dict]] = {
    "sam_adapter": ({"scale_factor": 8}, {"start": "random"}),
    "sam_adapter_kyyle": ({"width": 24, "hidden": 6}, {}),
    "ts_sam": ({"fft": True, "side_dim": 16, "refined": 3}, {}),
    "cat_sam_t": ({"hidden": 12}, {}),
    "cat_sam_a": ({"hidden": 10, "scale_factor": 4}, {}),
    "gsam:sam": ({}, {"classes": 3}),
    "gsam:lora": ({"ratio": 0.5}, {"classes": 2}),
    "gsam:convlora": ({"ratio": 0.125}, {"classes": 5}),
    "gsam:adaptformer": (
        {"hidden": 6, "scale": 0.5, "activation": "gelu", "zero_init": False},
        {"classes": 2},
    ),
    "gsam:smadaptformer": ({"ratio": 0.3}, {"classes": 2}),
    "gsam:samus": ({"ratio": 0.5, "table_size": 64}, {"classes": 2, "frozen": True}),
    "gsam:gsam": (
        {"depth": 2, "ratio": 0.5, "table_size": 128},
        {"classes": 4, "positions": "conv"},
    ),
    "samed": ({"rank": 3}, {"classes": 5, "tokens": "per_class", "train_dense": True}),
}
NAMES = [name for name in DIALECTS if name not in ("mobile_sam", "micro_sam")]
NEEDS_BASE = {"sam_finetune_kyyle", "sam_adapter", "ts_sam", "gsam:samus", "gsam:gsam"} | {
    name for name, (_, decoder) in OPTIONS.items() if decoder.get("classes", 2) > 2
}
"""Those whose files, as they are made here, lack a part of the base."""


def aliases(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The second names that the system's files have for the same tensors."""
    more = {}
    if name.startswith("cat_sam"):
        for key in list(state):
            for part, inner in (("image", "sam_img_encoder"), ("prompt", "sam_prompt_encoder")):
                own = f"{part}_encoder."
                if key.startswith(own) and key in tiny_names():
                    tensor = state.pop(key)
                    more["ori_sam." + key] = tensor
                    more[own + inner + "." + key.removeprefix(own)] = tensor
        more["image_encoder.hq_token"] = state["mask_decoder.hf_token.weight"]
    if name == "sam_adapter_kyyle":
        for i in range(tiny.TINY.depth + 1):
            for leaf in ("weight", "bias"):
                key = f"image_encoder.task_adapter_blocks.{i}.up_projection.{leaf}"
                more[key] = state[f"image_encoder.task_adapter_up.{leaf}"]
    if name == "samed":  # one estimate of IoU for each class, which is not used
        more["mask_decoder.iou_prediction_head.layers.2.bias"] = torch.zeros(5)
    if name == "gsam:gsam":
        backbone = "image_encoder.cnn_embed.backbone."
        for key in list(state):
            for ours, theirs in (("layer1", "res2"), ("layer2", "res3"), ("layer3", "res4")):
                more[key.replace(f"backbone.{ours}", theirs)] = state[key]
        more[backbone + "layer4.0.conv1.weight"] = torch.zeros(2)
        more[backbone + "fc.weight"] = torch.zeros(2)
    return more


@cache
def tiny_names() -> set[str]:
    with shapes_alone():
        return set(Sam(tiny.TINY).state_dict())


@dataclass
class Layout:
    """A model of ours and its tensors under another system's names."""

    model: FineTuned
    trained: dict[str, Tensor]
    frozen: dict[str, Tensor]
    second: dict[str, Tensor] = field(default_factory=dict)

    @property
    def whole(self) -> dict[str, Tensor]:
        """Everything that the system's own training would write."""
        return self.frozen | self.trained | self.second

    @property
    def released(self) -> dict[str, Tensor]:
        """What the system writes."""
        partial = DIALECTS[self.model.imported].holds == "trained"
        return self.trained if partial else self.whole


def fill(model: FineTuned) -> FineTuned:
    """Values by name that hide nothing."""
    model.load_state_dict(deterministic.fill(model.state_dict()))
    return model.eval()


@cache
def layout(name: str, spec: SamSpec = tiny.TINY, hollow: bool = False) -> Layout:
    """A model with values by name, in the layout of a dialect; ``hollow`` has shapes alone."""
    dialect, (adapter, decoder) = DIALECTS[name], OPTIONS.get(name, ({}, {}))
    with shapes_alone() if hollow else nullcontext():
        model = FineTuned(
            Sam(spec).freeze() if hollow else tiny.base(spec),
            dialect.adapter,
            dialect.decoder,
            input=dialect.policy(spec),
            adapter_options=adapter,
            decoder_options=decoder,
            prompts=dialect.prompts,
        )
    model = model if hollow else fill(model)
    model.imported = name
    trained = {dialect.theirs(key): t for key, t in model.state_dict().items()}
    if name == "sam_adapter_kyyle":  # a linear layer over patches there, a convolution here
        key = "image_encoder.HFC_tune.weight"
        trained[key] = trained[key].flatten(1)
    base = dict(model.sam.state_dict())
    absent = {
        "sam_adapter": ("prompt_encoder.",),
        "ts_sam": ("prompt_encoder.", "mask_decoder."),
        "gsam:gsam": ("image_encoder.pos_embed",),
        "samed": ("image_encoder.", "mask_decoder."),
    }.get(name, ())
    frozen = {k: t for k, t in base.items() if k not in trained and not k.startswith(absent or "-")}
    state = frozen | trained
    second = aliases(name, state)
    return Layout(
        model,
        trained,
        {k: t for k, t in state.items() if k not in trained},
        second,
    )


def written(state: dict[str, Tensor], path: Path, wrapped: str | None = None) -> Path:
    """A pickle of a state, bare or under a key."""
    torch.save({wrapped: state} if wrapped else state, path)
    return path
