"""TS-SAM's released files: the whole state, with TS-SAM's own mask decoder."""

from samtune.foreign.base import Dialect, Settings, count, preset_policy, register
from samtune.sam.spec import SamSpec
from samtune.sam.weights import State


def _settings(state: State, spec: SamSpec) -> Settings:
    # The files do not store which blocks are refined; the published settings refine the last ones.
    return Settings(
        {
            "fft": any(key.startswith("image_encoder.fft_embedding.") for key in state),
            "side_dim": state["image_encoder.csa_embedding.weight"].shape[0],
            "refined": count(state, r"^image_encoder\.mrm_blocks\.(\d+)\.") - 1,
        }
    )


TS_SAM = register(
    Dialect(
        name="ts_sam",
        system="TS-SAM (Yu et al. 2024)",
        adapter="ts_sam",
        decoder="fusion",
        marks=(
            r"^image_encoder\.csa_embedding\.weight$",
            r"^image_encoder\.csa_blocks\.0\.",
            r"^image_encoder\.mrm_blocks\.1\.",
        ),
        names=((r"^adapter\.", "image_encoder."), (r"^decoder\.", "mask_decoder.")),
        absent_names=r"^(prompt_encoder|mask_decoder)\.",
        settings=_settings,
        policy=preset_policy("ts_sam"),
        prompts="none",
    )
)
