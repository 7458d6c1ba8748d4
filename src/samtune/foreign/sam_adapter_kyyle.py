"""SAM-Adapter as Kyyle2114 saves it: a partial file of the trained tensors, or the whole state."""

from samtune.foreign.base import Dialect, Settings, register
from samtune.sam.spec import SamSpec
from samtune.sam.weights import State

ENCODER = "image_encoder."


def _settings(state: State, spec: SamSpec) -> Settings:
    hidden, width = state[ENCODER + "task_adapter_blocks.0.down_projection.weight"].shape
    return Settings({"width": width, "hidden": hidden})


SAM_ADAPTER_KYYLE = register(
    Dialect(
        name="sam_adapter_kyyle",
        system="Kyyle2114's SAM-Adapter-Pytorch-Implementation",
        adapter="sam_adapter_kyyle",
        decoder="tuned",
        marks=(
            r"^image_encoder\.task_adapter_blocks\.0\.down_projection\.weight$",
            r"^image_encoder\.patch_embed_tune\.weight$",
            r"^image_encoder\.HFC_tune\.weight$",
        ),
        names=(
            (r"^adapter\.high_pass\.embed\.proj\.", ENCODER + "HFC_tune."),
            (r"^adapter\.embedding\.", ENCODER + "patch_embed_tune."),
            (r"^adapter\.tune\.(\d+)\.", ENCODER + r"task_adapter_blocks.\1.down_projection."),
            (r"^adapter\.up\.", ENCODER + "task_adapter_up."),
            (r"^decoder\.", ""),
        ),
        # The layer that all prompts share is stored again with each of them.
        aliases=((r"task_adapter_blocks\.\d+\.up_projection\.", "task_adapter_up."),),
        flattened_names=r"^image_encoder\.HFC_tune\.weight$",
        settings=_settings,
    )
)
