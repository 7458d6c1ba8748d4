"""SAM-Adapter as its authors release it: the whole state, without a prompt encoder."""

from samtune.foreign.base import Dialect, Settings, preset_policy, register
from samtune.sam.spec import SamSpec
from samtune.sam.weights import State

GENERATOR = "image_encoder.prompt_generator."


def generator_names(adapter: str = r"^adapter\.") -> tuple[tuple[str, str], ...]:
    """Patterns from our names of the prompts' layers to the authors', which CAT-SAM-A shares."""
    return (
        (adapter + r"high_pass\.embed\.", GENERATOR + "prompt_generator."),
        (adapter + r"embedding\.", GENERATOR + "embedding_generator."),
        (adapter + r"tune\.(\d+)\.", GENERATOR + r"lightweight_mlp_\1.0."),
        (adapter + r"up\.", GENERATOR + "shared_mlp."),
    )


def scale_factor(state: State, spec: SamSpec) -> int:
    """The encoder's width divided by the width of the prompts' inner layers."""
    return spec.embed_dim // state[GENERATOR + "embedding_generator.weight"].shape[0]


def _settings(state: State, spec: SamSpec) -> Settings:
    return Settings({"scale_factor": scale_factor(state, spec)}, {"start": "random"})


SAM_ADAPTER = register(
    Dialect(
        name="sam_adapter",
        system="SAM-Adapter (Chen et al. 2023), the authors' code",
        adapter="sam_adapter",
        decoder="prompt_free",
        marks=(
            r"^image_encoder\.prompt_generator\.embedding_generator\.weight$",
            r"^image_encoder\.prompt_generator\.lightweight_mlp_0\.0\.weight$",
            r"^no_mask_embed\.weight$",
        ),
        names=(*generator_names(), (r"^decoder\.", "")),
        absent_names=r"^prompt_encoder\.",
        settings=_settings,
        policy=preset_policy("sam_adapter"),
        prompts="none",
    )
)
