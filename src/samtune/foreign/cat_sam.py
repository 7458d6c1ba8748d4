"""CAT-SAM's files, both forms: the whole state, in which many tensors have two names.

Images of exactly the native size enter the published model without normalisation, and their prompts
are not rounded; an import repeats this only on request.
"""

from samtune.foreign.base import Dialect, Settings, preset_policy, register
from samtune.foreign.sam_adapter import generator_names, scale_factor
from samtune.sam.spec import SamSpec
from samtune.sam.weights import State

ENCODER = "image_encoder."
ALIASES = (
    (r"^ori_sam\.", ""),
    (r"^image_encoder\.sam_img_encoder\.", ENCODER),
    (r"^prompt_encoder\.sam_prompt_encoder\.", "prompt_encoder."),
    (r"^image_encoder\.hq_token$", "mask_decoder.hf_token.weight"),
)
"""``ori_sam`` holds the frozen encoders a second time, and each encoder holds the token."""
TOKEN = r"^mask_decoder\.hf_token\.weight$"
DECODER = ((r"^decoder\.", "mask_decoder."),)


def _tokens(state: State, spec: SamSpec) -> Settings:
    hidden = state[ENCODER + "hq_token_proj.0.adapter.0.weight"].shape[0]
    return Settings({"hidden": hidden}, {"combine": "hq"})


def _adapters(state: State, spec: SamSpec) -> Settings:
    hidden = state[ENCODER + "hq_token_down_proj.0.adapter.0.weight"].shape[0]
    return Settings({"hidden": hidden, "scale_factor": scale_factor(state, spec)})


CAT_SAM_T = register(
    Dialect(
        name="cat_sam_t",
        system="CAT-SAM with prompt tokens (Xiao et al. 2024)",
        adapter="cat_sam_t",
        decoder="hq",
        marks=(
            r"^image_encoder\.hq_token_proj\.0\.adapter\.0\.weight$",
            r"^image_encoder\.hq_token_proj\.0\.adapter\.2\.weight$",
            TOKEN,
        ),
        names=((r"^adapter\.bridges\.(\d+)\.", ENCODER + r"hq_token_proj.\1.adapter."), *DECODER),
        aliases=ALIASES,
        settings=_tokens,
        policy=preset_policy("cat_sam"),
        prompts="point+box+mask",
        variants=("native_raw",),
    )
)

CAT_SAM_A = register(
    Dialect(
        name="cat_sam_a",
        system="CAT-SAM with adapters (Xiao et al. 2024)",
        adapter="cat_sam_a",
        decoder="hq",
        marks=(
            r"^image_encoder\.hq_token_down_proj\.0\.adapter\.0\.weight$",
            r"^image_encoder\.prompt_generator\.embedding_generator\.weight$",
            TOKEN,
        ),
        names=(
            *generator_names(),
            (r"^adapter\.bridge_down\.(\d+)\.", ENCODER + r"hq_token_down_proj.\1.adapter.0."),
            (r"^adapter\.bridge_up\.", ENCODER + "shared_up_proj."),
            *DECODER,
        ),
        aliases=ALIASES,
        settings=_adapters,
        policy=preset_policy("cat_sam"),
        prompts="point+box+mask",
        variants=("native_raw",),
    )
)
