"""The layouts against what is known of the systems' own files: how many tensors they have."""

import re

import pytest

from samtune.foreign import DIALECTS
from samtune.model.finetuned import FineTuned
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS

COUNTS = [
    # dialect, base, options, tensors of the file without second names
    ("sam_finetune_kyyle", "vit_b", {}, 120),
    ("sam_adapter", "vit_b", {}, 329),
    ("sam_adapter", "vit_l", {}, 521),
    ("sam_adapter", "vit_h", {}, 649),
    ("sam_adapter_kyyle", "vit_b", {}, 372 - 2 * 13),
    ("sam_adapter_kyyle", "vit_h", {}, 732 - 2 * 33),
    ("ts_sam", "vit_b", {}, 835),
    ("ts_sam", "vit_b", {"fft": True}, 837),
    ("ts_sam", "vit_h", {}, 1395),
    ("gsam:sam", "vit_b", {}, 314),
]
# The image and the prompt encoder stand twice in a file, and the token.
COUNTS += [
    ("cat_sam_t", base, {}, total - 1 - encoders)
    for base, total, encoders in (("vit_b", 582, 194), ("vit_l", 966, 362), ("vit_h", 1222, 474))
]
COUNTS += [
    ("cat_sam_a", base, {}, total - 1 - encoders)
    for base, total, encoders in (("vit_b", 614, 194), ("vit_l", 990, 362), ("vit_h", 1246, 474))
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "base", "options", "count"), COUNTS)
def test_tensors_in_a_file(name, base, options, count):
    dialect = DIALECTS[name]
    decoder = {"start": "random"} if dialect.decoder == "prompt_free" else {}
    with shapes_alone():
        sam = Sam(SPECS[base]).freeze()
        model = FineTuned(
            sam,
            dialect.adapter,
            dialect.decoder,
            adapter_options=options,
            decoder_options=decoder,
        )
    keys = {dialect.theirs(key) for key in model.state_dict()}
    assert len(keys) == len(model.state_dict())
    if dialect.holds != "trained":
        keys |= {key for key in sam.state_dict() if not re.search(dialect.absent_names, key)}
    assert len(keys) == count
