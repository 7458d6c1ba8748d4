"""MobileSAM's own file: a base and nothing trained beside it."""

from samtune.foreign.base import Dialect, register

MOBILE_SAM = register(
    Dialect(
        name="mobile_sam",
        system="MobileSAM (Zhang et al. 2023), a base",
        adapter="none",
        decoder="frozen",
        marks=(r"^image_encoder\.patch_embed\.seq\.0\.c\.weight$",),
        ignored=r"^image_encoder\.(norm_head|head)\.",
        holds="all",
    )
)
