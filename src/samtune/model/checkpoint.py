"""One self-describing file per model: the trained tensors, and how to rebuild the rest.

It is a ``.safetensors`` file with the tensors ``adapter.*`` and ``decoder.*``; its header contains
the description of the model and the sha256 of the base. Nothing is pickled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from samtune.adapters import Adapter
from samtune.decoders import Decoder
from samtune.errors import InputError, checks_keywords
from samtune.files import WRITTEN_BY, read_tensors, write_tensors
from samtune.geometry import InputPolicy
from samtune.model.file_place import checkpoint_place
from samtune.model.finetuned import FineTuned
from samtune.model.header import (
    BUNDLE,
    ENTRIES,
    FORMAT,
    HEADER,
    MODULE,
    check_further,
    check_modules,
    checkpoint_file,
    read_header,
    summary_beside,
)
from samtune.model.packages import (
    REGISTRIES,
    check_packages,
    packages_of,
    with_packages_of_settings,
)
from samtune.model.parts import name_of
from samtune.model.strength import PLAIN, Strength, StrengthSetting, set_demanded
from samtune.options import speaks_python
from samtune.precision import Device, device_named
from samtune.registry import trust as allow
from samtune.registry.places import PLACE, place_of
from samtune.sam.model import Sam
from samtune.sam.weights import (
    BASE,
    check_numbers,
    fingerprint,
    from_state,
    load_sam,
    official_names,
    spec_of,
)

_FURTHER = ("samtune", "multimask", "strength", "strengths", "packages", "card")
OF_THE_MODEL = {*ENTRIES, *_FURTHER, BUNDLE}
"""The entries of a header that are written anew with every model."""
DAMAGED = "copy it again from its origin"
"""The remedy for a file that cannot be read."""


@speaks_python()
def save(
    model: FineTuned,
    path: str | Path,
    *,
    notes: Mapping[str, Any] | None = None,
    **extra: Any,
) -> Path:
    """Writes the trained tensors and the description of the model, atomically.

    The tensors have full strength; the header contains the strength at which the model acts.

    Args:
        model: The model. If its adapter or decoder was passed as a module, the file has only that
            module's tensors, and :func:`load` must be passed such a module, too.
        path: The file to write, by custom ``NAME.safetensors``; a missing folder is created.
        notes: JSON values of your own, which come back as ``load(path).about["notes"]``.
        extra: Entries of the header that samtune itself reads or shows: ``config`` (the settings of
            the training by section), ``classes`` (their names), ``metrics``, ``summary``,
            ``precision``, ``imported``, ``everything``, ``watershed``.

    Raises:
        InputError: An entry of another name or that is no JSON, the disk is full, or the path is a
            folder, a file that is no checkpoint, or ends as a pickle does, in ``.pt``.
    """
    if not isinstance(model, FineTuned):
        raise InputError(
            f"model: must be a FineTuned, not a {type(model).__name__}; call save(model, path)"
        )
    entries = {**extra, **({} if notes is None else {"notes": notes})}
    check_further(entries, "save")
    return write_checkpoint(model, path, **entries)


def write_checkpoint(
    model: FineTuned, path: str | Path, verb: str | None = None, **extra: Any
) -> Path:
    """Writes a model's file as :func:`save` does, with any entries, as those of an earlier file.

    Args:
        model: See there.
        path: See there.
        verb: The verb of the command line that writes it, if any.
        extra: Further JSON values of the header.

    Raises:
        InputError: The disk is full, or the path is a folder, or a file that is no checkpoint.
    """
    place = checkpoint_place(path)
    header = json.dumps(with_packages_of_settings({**describe(model), **extra}))
    tensors = _in_own_memory(model.state_dict())
    signed = {} if verb is None else {WRITTEN_BY: verb}
    return write_tensors(place, tensors, metadata={HEADER: header, **signed})


def add_to_header(path: Path, **entries: Any) -> None:
    """Writes a checkpoint anew with further entries in its header.

    Args:
        path: The file.
        **entries: JSON values.

    Raises:
        InputError: The file is damaged, or the disk is full.
    """
    header = json.dumps({**read_header(path), **entries})
    write_tensors(path, read_tensors(path, DAMAGED), metadata={HEADER: header})


def _in_own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU; those of one memory, as tied weights of an own module, one by one."""
    places: set[int] = set()
    parts: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        one = tensor.detach().cpu().contiguous()
        place = one.untyped_storage().data_ptr()
        parts[key] = one.clone() if place in places else one
        places.add(place)
    return parts


def describe(model: FineTuned) -> dict[str, Any]:
    """The header of a model's checkpoint: everything but the tensors, as JSON values."""
    needed = packages_of(model.names, model.adapter, model.decoder)
    return {
        "format": FORMAT,
        "samtune": version("samtune"),
        "base": {"name": model.sam.spec.name, "sha256": fingerprint(model.sam)},
        "adapter": _entry(model, "adapter", model.adapter_options),
        "decoder": _entry(model, "decoder", model.decoder_options),
        "input": model.tuned_input.differing(),
        "prompts": model.prompts,
        **({"multimask": True} if model.multimask else {}),
        **_not_in_full(model.strength),
        **({"packages": needed} if needed else {}),
    }


def _not_in_full(strength: Strength) -> dict[str, Any]:
    """How a header says a strength; nothing of a model that acts in full."""
    return strength.entries if strength.by_kind or strength != 1 else {}


def _entry(model: FineTuned, kind: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """How an adapter or a decoder is made again; of a module its class, for the reader."""
    name = model.names[kind]
    if options is not None:
        return {"name": name, **options}
    return {"name": name, MODULE: place_of(type(getattr(model, kind)))}


@speaks_python()
@checks_keywords(
    elsewhere={
        "weights": "the weights of the base are base=FILE",
        "map_location": "give device=, as in device='cuda'",
        "input": "the frame is that of the training, which the file states",
    }
)
def load(
    path: str | Path,
    base: Sam | str | Path | None = None,
    *,
    any_base: bool = False,
    device: Device = "cpu",
    strength: StrengthSetting | None = None,
    adapter: str | type[Adapter] | Adapter | None = None,
    decoder: str | type[Decoder] | Decoder | None = None,
    trust: str | Sequence[str] = (),
    download: bool = False,
) -> FineTuned:
    """Rebuilds a fine-tuned model from its checkpoint, in evaluation mode.

    Classes that a file names are only imported if their package is installed as a plug-in, or if
    you allow it.

    Args:
        path: A file that :func:`save` wrote, the folder of a run or of ``save_pretrained``, or a
            repository of the hub, as ``hf:owner/name`` or ``hf:owner/name@revision``.
        base: The base it was trained on: a loaded one, the path of its weights, or ``"nano"`` as
            well as ``None`` for the one that ships with the package.
        any_base: Accept other weights than those it was trained on.
        device: Device of the returned model.
        strength: The fraction of the training that acts: a number, or several by kind of prompt, as
            in ``{"none": 1, "box": 0}``; by default the checkpoint's, see
            :attr:`FineTuned.strength`.
        adapter: The class of its adapter or its place, if that is not one of samtune's or of a
            plug-in; or, if it was a module, such a module, which gets the tensors of the file.
        decoder: The class of its decoder, likewise.
        trust: Modules that may be imported if the file names a class of them, as ``my_pkg``.
        download: Whether a repository, or a base that is one, may be fetched; else they are in the
            hub's local cache.

    Raises:
        InputError: The file is not a checkpoint, the base is another, tensors do not fit, the model
            does not support the strength, or a class is not available or not trusted.
    """
    place = device_named(device)
    parts: dict[str, Any] = {"adapter": adapter, "decoder": decoder}
    modules = {kind: part for kind, part in parts.items() if isinstance(part, nn.Module)}
    classes = {kind: part for kind, part in parts.items() if kind not in modules}
    file = checkpoint_file(path, download)
    header = with_classes(read_header(file), classes)
    check_modules(header, str(path), list(modules))
    allow(*(trust if isinstance(trust, list | tuple) else [trust]))
    check_packages(_without(header, modules), str(path))
    tensors = read_tensors(file, DAMAGED)
    if base is None and BUNDLE in header:
        base = _base_within(header, tensors, str(path))
    name = header["base"]["name"]
    sam = base if isinstance(base, Sam) else load_sam(name, base, download=download)
    check_base(header, sam, str(path), any_base)
    model = rebuild(sam, header, modules)
    load_tensors(model, _without_base(tensors), str(path))
    model.strength = Strength.read(header)
    if strength is not None:
        set_demanded(model, strength)
    model.multimask, model.about = _multimask(header), _about(header, file)
    return model.to(place).eval()


def _about(header: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The entries of a header that describe the training, and the numbers that it came to."""
    rest = {key: value for key, value in header.items() if key not in OF_THE_MODEL}
    numbers = summary_beside(file)
    return {**({"summary": numbers} if numbers else {}), **rest}


def check_base(header: Mapping[str, Any], sam: Sam, path: str, any_base: bool = False) -> None:
    """Refuses a base that a checkpoint was not trained on.

    Args:
        header: The header of the checkpoint.
        sam: The base.
        path: The path of the checkpoint, for messages.
        any_base: Accept other weights of the same size.

    Raises:
        InputError: Another base.
    """
    name = header["base"]["name"]
    if sam.spec.name != name:
        raise InputError(f"{path}: trained on {name}, but the base given is {sam.spec.name}")
    if not any_base and fingerprint(sam) != header["base"]["sha256"]:
        raise InputError(
            f"{path}: trained on another {name} than the weights given (sha256 "
            f"{header['base']['sha256'][:12]}..., given {fingerprint(sam)[:12]}...); give the file "
            "it was trained on with base.weights=, or accept any with base.any=true"
        )


def trained_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, without those of the base that a bundle holds.

    Raises:
        InputError: The file is damaged.
    """
    return _without_base(read_tensors(checkpoint_file(path), DAMAGED))


def _without_base(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors.items() if not key.startswith(BASE)}


def _base_within(header: Mapping[str, Any], tensors: Mapping[str, Tensor], origin: str) -> Sam:
    """The base of a bundle, whose tensors have been read with the others."""
    of_base = {key.removeprefix(BASE): t for key, t in tensors.items() if key.startswith(BASE)}
    return from_state(spec_of(header["base"]["name"]), official_names(of_base, origin), origin)


def with_classes(header: dict[str, Any], classes: Mapping[str, Any]) -> dict[str, Any]:
    """A header in which given classes replace the names in the file.

    Args:
        header: The header, as :func:`read_header` gives it.
        classes: By ``adapter`` and ``decoder`` a class or its place, or ``None``.

    Raises:
        InputError: A class that cannot be such a part, or the name of another.
    """
    entries = {}
    for kind, cls in classes.items():
        if cls is None:
            continue
        name, known = name_of(REGISTRIES[kind], cls), header[kind]["name"]
        if isinstance(cls, str) and not PLACE.fullmatch(name) and name != known:
            raise InputError(
                f"{kind}={name}: the file has the {kind} {known}; leave {kind} out, or give the "
                f"class or module that it was trained with"
            )
        if "+" not in header[kind]["name"]:  # of several the name says which one it is
            entries[kind] = {**header[kind], "name": name}
    return {**header, **entries}


def _multimask(header: Mapping[str, Any]) -> bool:
    """Whether a model is trained for three masks; earlier versions said so in the settings."""
    train = header.get("config", {}).get("train", {})
    earlier = isinstance(train, Mapping) and train.get("multimask") is True
    return header.get("multimask") is True or earlier


def rebuild(sam: Sam, header: dict[str, Any], modules: Mapping[str, nn.Module]) -> FineTuned:
    """The model that a header describes, freshly initialised.

    Args:
        sam: The base.
        header: The header, as :func:`read_header` gives it.
        modules: By ``adapter`` and ``decoder``, what stands for the part that the header names.

    Raises:
        InputError: A part is not available or not trusted, see :func:`check_packages`.
    """
    parts: dict[str, Any] = dict(modules)
    for kind, registry in REGISTRIES.items():
        if kind not in modules:
            options = dict(header[kind])
            parts[kind] = name = options.pop("name")
            # files of earlier versions may name a file of initial weights, which is not needed
            parts[f"{kind}_options"] = registry[name].stored_options(options)
    return FineTuned(sam, input=InputPolicy.of(header["input"]), prompts=header["prompts"], **parts)


def _without(header: dict[str, Any], modules: Mapping[str, Any]) -> dict[str, Any]:
    """A header with the plain parts in place of those for which there is a module."""
    return {**header, **{kind: {"name": PLAIN[kind]} for kind in modules}}


def load_tensors(model: FineTuned, tensors: dict[str, Any], origin: str) -> None:
    """Fills a model's adapter and decoder, strictly.

    Raises:
        InputError: Tensors are missing, unexpected or wrongly shaped; the message names the first
            ones.
    """
    check_numbers(tensors, origin)
    tensors = under_current_names(model, tensors)
    expected = model.state_dict()
    missing = expected.keys() - tensors.keys()
    unexpected = tensors.keys() - expected.keys()
    shaped = [k for k in expected.keys() & tensors.keys() if expected[k].shape != tensors[k].shape]
    if missing or unexpected or shaped:
        parts = {"missing": missing, "unexpected": unexpected, "of another shape": shaped}
        listed = "; ".join(f"{what} {', '.join(sorted(v)[:4])}" for what, v in parts.items() if v)
        raise InputError(f"{origin}: its tensors do not fit the model it describes: {listed}")
    model.load_state_dict(tensors, strict=True)


def under_current_names(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model's file under today's names, whichever version wrote them.

    A module whose tensors had other names declares them in ``former_names``: patterns of whole
    names within the module, and their current names.

    Args:
        model: The whole model, or another module whose state the tensors are.
        tensors: The tensors by their names in the file.
    """
    former = [
        (rf"{re.escape(f'{place}.' if place else '')}{pattern}", f"{place}.{name}".lstrip("."))
        for place, module in model.named_modules()
        for pattern, name in getattr(module, "former_names", {}).items()
    ]

    def current(key: str) -> str:
        matches = ((re.fullmatch(pattern, key), name) for pattern, name in former)
        return next((match.expand(name) for match, name in matches if match), key)

    return {current(key): tensor for key, tensor in tensors.items()}
