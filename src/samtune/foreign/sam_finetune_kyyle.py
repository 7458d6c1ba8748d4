"""Kyyle2114's fine-tuning of the mask decoder: a partial file of the decoder's parameters alone."""

from samtune.foreign.base import Dialect, register

SAM_FINETUNE_KYYLE = register(
    Dialect(
        name="sam_finetune_kyyle",
        system="Kyyle2114's Fine-tuning-Segment-Anything, partial weights",
        adapter="none",
        decoder="tuned",
        marks=(r"^mask_decoder\.mask_tokens\.weight$",),
        names=((r"^decoder\.", ""),),
        holds="trained",
    )
)
