"""A checkpoint, its base and its card as one file, which stands alone.

The tensors of the base lie under :data:`~samtune.sam.weights.BASE` beside those of a checkpoint, in
one safetensors file. The header is the checkpoint's with another number of its format, so that
versions that know no bundles refuse it and say why.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from samtune.errors import InputError, checks_keywords
from samtune.files import WRITTEN_BY, as_path, refuse_onto, refuse_to_replace, write_tensors
from samtune.model.card import card_of
from samtune.model.checkpoint import check_base, trained_tensors
from samtune.model.header import (
    BUNDLE,
    BUNDLE_FORMAT,
    HEADER,
    checkpoint_file,
    read_header,
    summary_beside,
)
from samtune.options import speaks_python
from samtune.sam.locating import PACKAGED
from samtune.sam.weights import BASE, BASE_NOTE, load_sam

ENDING = ".safetensors"
VERB = "bundle"
OFFICIAL = {"vit_b": "01ec64", "vit_l": "0b3195", "vit_h": "4b8939"}
"""How the sha256 of each official file begins, as the names of the files say themselves."""
OFFICIAL_LICENCE = "apache-2.0"
"""The licence of the official bases, of MobileSAM's and of nano."""


@speaks_python()
@checks_keywords(elsewhere={"license": "give licence=, as in licence='apache-2.0'"})
def bundle(
    checkpoint: str | Path,
    out: str | Path,
    base: str | Path | None = None,
    *,
    licence: str = "",
) -> Path:
    """Writes a checkpoint, its base and its card as one file that every verb takes alone.

    Args:
        checkpoint: A checkpoint, or the folder of a run.
        out: The ``.safetensors`` file to write.
        base: The weights that it was trained on; ``None`` if they ship with the package.
        licence: The licence of the base, as ``apache-2.0``; samtune knows that of its own base and
            of the official files.

    Raises:
        InputError: Not a checkpoint, another base, a base whose licence is unknown, another ending,
            or a place that cannot be written.
    """
    path, source = as_path(out), checkpoint_file(checkpoint)
    if path.suffix != ENDING:
        raise InputError(f"--out={out}: must end in {ENDING}")
    refuse_onto(f"--out={out}", path, (source, base))
    refuse_to_replace(f"--out={out}", path, VERB)
    header = read_header(source)
    if BUNDLE in header:
        raise InputError(f"{checkpoint}: is a bundle already, which holds its base; copy it")
    name = header["base"]["name"]
    licence = licence or _licence(name, base)
    sam = load_sam(name, base)
    check_base(header, sam, str(checkpoint))
    header |= {"format": BUNDLE_FORMAT, BUNDLE: {"base_licence": licence}}
    numbers = summary_beside(source)
    header |= {"summary": numbers} if numbers else {}
    header["card"] = card_of(header, path.stem)
    tensors = trained_tensors(source)
    tensors |= {f"{BASE}{key}": tensor.contiguous() for key, tensor in sam.state_dict().items()}
    notes = {HEADER: json.dumps(header), BASE_NOTE: BASE, WRITTEN_BY: VERB}
    return write_tensors(path, tensors, "free some space or choose another --out", notes)


def _licence(name: str, base: str | Path | None) -> str:
    """The licence of a base, if it is known.

    Raises:
        InputError: It is not; whoever hands weights on must say it.
    """
    if base in (None, name) and name in PACKAGED:
        return OFFICIAL_LICENCE
    file = None if base is None else as_path(base)
    if file is not None and file.is_file() and name in OFFICIAL:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest.startswith(OFFICIAL[name]):
            return OFFICIAL_LICENCE
    raise InputError(
        f"base.weights={base}: a bundle hands the base on, and the licence of these weights is not "
        "known; if it allows that, say which it is, as in --licence apache-2.0"
    )
