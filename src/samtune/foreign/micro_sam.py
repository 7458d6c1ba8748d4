"""micro-sam's files: a fine-tuned SAM in the official layout, as trained or as exported.

A decoder for automatic instance segmentation may come with it (``decoder_state``); it is not part
of SAM and is left out.
"""

from samtune.foreign.base import Dialect, register

MICRO_SAM = register(
    Dialect(
        name="micro_sam",
        system="micro-sam (Archit et al. 2025), a base",
        adapter="none",
        decoder="frozen",
        marks=(r"^prompt_encoder\.not_a_point_embed\.weight$",),
        aliases=((r"^sam\.", ""),),
        ignored_names=r"^image_encoder\.(norm_head|head)\.",
        holds="all",
    )
)
