"""Kyyle2114's fine-tuned mask decoder: a partial file with only the decoder's parameters."""

from samtune.foreign.base import Dialect, register

SAM_FINETUNE_KYYLE = register(
    Dialect(
        name="sam_finetune_kyyle",
        system="Kyyle2114's Fine-tuning-Segment-Anything",
        adapter="none",
        decoder="tuned",
        marks=(r"^mask_decoder\.mask_tokens\.weight$",),
        names=((r"^decoder\.", ""),),
        holds="trained",
    )
)
