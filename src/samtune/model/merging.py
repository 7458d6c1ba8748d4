"""A fine-tuned model as one plain SAM file, if its method has a closed form."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from samtune.decoders import DECODERS, Decoder
from samtune.errors import InputError
from samtune.files import (
    WRITTEN_BY,
    as_path,
    refuse_onto,
    refuse_to_replace,
    replacing,
    write_tensors,
)
from samtune.leftovers import remove_abandoned
from samtune.model.finetuned import FineTuned
from samtune.prompts import KINDS, Prompts
from samtune.sam.encoder import ENCODERS
from samtune.sam.model import Sam
from samtune.sam.spec import SamSpec
from samtune.sam.weights import from_state

ENDINGS = (".pth", ".safetensors")
VERB = "merge"


@dataclass(frozen=True)
class Merged:
    """The file written by merging."""

    file: Path
    max_difference: float
    """The largest difference of the two models' mask logits and estimated IoUs on a random image.
    """
    strength: float = 1.0
    """The fraction of the training that the file has."""


def merge(model: FineTuned, out: str | Path, sources: Sequence[str | Path | None] = ()) -> Merged:
    """Writes a model as one SAM with Meta's names, which ``load_sam`` and other programs read.

    A ``.pth`` file is a plain state dict. Both models answer the same prompts on the same random
    image at the model's input size, and their largest difference is returned.

    Args:
        model: A model with one of SAM's own decoders, and a method that weights can express, at its
            strength for one set of weights, see :func:`in_one`.
        out: The file to write; ``.pth`` or ``.safetensors``.
        sources: See :func:`place_of`.

    Raises:
        InputError: See :func:`place_of`; or there is no closed form, or the file cannot be written.
    """
    path = place_of(out, sources)
    model = in_one(model.eval())
    state = merged_state(model)
    plain = FineTuned(from_state(model.sam.spec, state, str(out)), input=model.input)
    difference = _difference(model, plain.to(model.device))
    write_sam(model.sam.spec, state, path)
    return Merged(path, difference, float(model.strength))


def in_one(model: FineTuned, kinds: Collection[str] = KINDS) -> FineTuned:
    """The model as one set of weights answers, see :meth:`Strength.in_one`.

    Args:
        model: It may have a strength for each kind of prompt.
        kinds: The kinds of prompts that these weights are asked with.
    """
    return model.at(model.strength.in_one(kinds, model.prompt_modes.kinds))


def merged_sam(model: FineTuned) -> Sam:
    """The plain SAM that computes what a model does at its strength, frozen, on its device.

    Args:
        model: See :func:`merge`.

    Raises:
        InputError: See :func:`merged_state`.
    """
    return from_state(model.sam.spec, merged_state(model), "the merged model").to(model.device)


def place_of(out: str | Path, sources: Sequence[str | Path | None] = ()) -> Path:
    """The path for a merged model, if it may be written.

    Args:
        out: The file to write; ``.pth`` or ``.safetensors``.
        sources: The files from which the model was read, which are never overwritten.

    Raises:
        InputError: The ending is another, or the file is one of the sources or was not written by
            merging.
    """
    path = as_path(out)
    if path.suffix not in ENDINGS:
        raise InputError(f"--out={out}: must end in {' or '.join(ENDINGS)}")
    refuse_onto(f"--out={out}", path, sources)
    refuse_to_replace(f"--out={out}", path, VERB)
    return path


@torch.no_grad()
def merged_state(model: FineTuned, normalised: bool = True) -> dict[str, Tensor]:
    """The tensors of the plain SAM that computes the same as the model, on the CPU.

    Args:
        model: The model, as for :func:`merge`.
        normalised: Whether the reader of the tensors normalises pixels with SAM's constants,
            whatever the model's are.

    Raises:
        InputError: The decoder is not SAM's, the method has no closed form, or the model normalises
            pixels differently from its base, and ``normalised`` is set.
    """
    spec, policy, adapter = model.sam.spec, model.input, model.acting.adapter
    of_decoder = decoder_state(model)
    own = {"mean": spec.pixel_mean, "std": spec.pixel_std}
    for name, value in own.items():
        if normalised and getattr(policy, name) not in (None, value):
            raise InputError(
                f"input.{name}={list(getattr(policy, name))}: plain SAM normalises with "
                f"{list(value)}, which no weight can change; keep the checkpoint"
            )
    try:
        deltas = adapter.deltas(model.sam)
    except NotImplementedError as error:
        raise InputError(f"adapter.name={adapter.name}: {error}; keep the checkpoint") from error
    state = {key: t.detach().clone() for key, t in model.sam.state_dict().items()}
    for key, delta in deltas.items():
        state[key] += delta
    state |= of_decoder
    return {key: t.cpu().contiguous() for key, t in state.items()}


def decoder_state(model: FineTuned) -> dict[str, Tensor]:
    """The tensors of SAM's decoder and prompt encoder that a model has others of, by name.

    Args:
        model: At its strength.

    Raises:
        InputError: Its decoder is not SAM's.
    """
    decoder = model.acting.decoder
    try:
        return decoder.sam_tensors()
    except NotImplementedError as error:
        fits = [n for n in DECODERS if DECODERS[n].sam_tensors is not Decoder.sam_tensors]
        raise InputError(
            f"decoder.name={decoder.name}: {error}, so no SAM file can hold it; "
            f"{' and '.join(fits)} can be merged"
        ) from error


@torch.no_grad()
def _difference(model: FineTuned, plain: FineTuned) -> float:
    """The largest difference of two models on a random image with a box, a point and no prompt."""
    h, w = model.input.size
    generator = torch.Generator().manual_seed(0)
    pixels = (torch.rand(1, 3, h, w, generator=generator) * 255).to(model.device)
    box = torch.tensor([[0.2 * w, 0.3 * h, 0.7 * w, 0.8 * h]])
    point = torch.tensor([[[0.5 * w, 0.5 * h]]])
    prompts = Prompts.cat(
        [
            Prompts.of(boxes=box),
            Prompts.of(points=point, labels=torch.ones(1, 1)),
            Prompts.of(count=1),
        ]
    ).to(model.device)
    one, other = (m(pixels, prompts, multimask=True) for m in (model, plain))
    return max(
        float((one.logits - other.logits).abs().max()), float((one.iou - other.iou).abs().max())
    )


def write_sam(spec: SamSpec, state: Mapping[str, Tensor], path: Path) -> None:
    """Writes the tensors of a SAM as an official file has them; strict readers take it.

    Tensors that such files have and nothing reads are there, filled with zeros.

    Args:
        spec: The specification of the base.
        state: All tensors of :class:`Sam`, on the CPU.
        path: ``.safetensors``; with any other ending it is a plain state dict of ``torch.save``.
    """
    remedy = "free some space or choose another --out"
    unused = {k: torch.zeros(shape) for k, shape in ENCODERS[spec.encoder].unused.items()}
    whole = {**unused, **state}
    if path.suffix == ".safetensors":
        write_tensors(path, whole, remedy, {WRITTEN_BY: VERB})
        return
    remove_abandoned(path.parent, path.name)
    with replacing(path, remedy) as partial:
        torch.save(whole, partial)
        sign_archive(partial, VERB)


def sign_archive(path: Path, verb: str) -> None:
    """Notes in a ``torch.save`` file, behind its tensors, which verb wrote it."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = f"{WRITTEN_BY}={verb}".encode()
