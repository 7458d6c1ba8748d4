"""MobileSAM's own file, also with timm's names: a base without trained additions."""

from samtune.foreign.base import Dialect, register
from samtune.sam.weights import TIMM_NAMES

MOBILE_SAM = register(
    Dialect(
        name="mobile_sam",
        system="MobileSAM (Zhang et al. 2023), a base",
        adapter="none",
        decoder="frozen",
        marks=(r"^image_encoder\.patch_embed\.seq\.0\.c\.weight$",),
        aliases=TIMM_NAMES,
        ignored_names=r"^image_encoder\.(norm_head|head)\.",
        holds="all",
    )
)
