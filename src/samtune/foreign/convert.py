"""Converts another system's file to a samtune checkpoint; all checks precede the writing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samtune.errors import InputError, nearest
from samtune.files import (
    as_path,
    refuse_onto,
    refuse_to_replace,
    replacing,
)
from samtune.foreign.base import DIALECTS, Dialect
from samtune.leftovers import remove_abandoned
from samtune.model.checkpoint import write_checkpoint
from samtune.model.finetuned import FineTuned
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS, SamSpec
from samtune.sam.weights import (
    PIXEL_BUFFERS,
    State,
    fitting_specs,
    from_state,
    official_names,
    read_state,
    renamed,
    spec_of,
)

VERB = "import"
TENSORS_TOLD = 12
"""Number of tensors of each kind that an error names."""


class ImportRefused(InputError):
    """Tensors that do not fit; the message names the first of each kind.

    Args:
        message: One line for the user.
        lists: All names by problem: ``missing``, ``unexpected``, ``of another shape``,
            ``other values``. If the dialect is wrong: the ``marks`` that the file lacks, and the
            names ``found``.
    """

    def __init__(self, message: str, lists: Mapping[str, Sequence[str]]) -> None:
        super().__init__(message)
        self.lists = {what: tuple(names) for what, names in lists.items() if names}


@dataclass(frozen=True)
class Imported:
    """The results of an import."""

    dialect: Dialect
    checkpoint: Path
    base: Path
    """The base that it needs: the one given, or the one split off the file."""
    model: FineTuned

    def summary(self) -> dict[str, Any]:
        """The results as JSON values."""
        return {
            "checkpoint": str(self.checkpoint),
            "from": self.dialect.name,
            "model": self.model.sam.spec.name,
            "base": str(self.base),
            "trainable_parameters": self.model.trainable(),
            "tensors": len(self.model.state_dict()),
            "input": self.model.input.differing(),
        }


def import_checkpoint(
    file: str | Path,
    dialect: str,
    out: str | Path,
    *,
    model: str | None = None,
    base: str | Path | None = None,
    save_base: str | Path | None = None,
    size: tuple[int, int] | None = None,
    first_size: tuple[int, int] | None = None,
    channels: str = "rgb",
    native_raw: bool = False,
) -> Imported:
    """Imports another system's checkpoint; nothing is written unless everything fits.

    Args:
        file: A pickle or safetensors file as that system writes it.
        dialect: One of :data:`DIALECTS`.
        out: The checkpoint to write, a ``.safetensors`` file.
        model: The base's name; by default it is inferred from the tensors.
        base: The base's weights. Frozen tensors in the file must equal them.
        save_base: The file for the base that the file holds, under the official names.
        size: Height and width of the input in pixels, if the system supports several.
        first_size: Height and width to which images are stretched first (GSAM's Trans10k).
        channels: ``bgr`` if the model was trained on such images (GSAM's Cityscapes).
        native_raw: Leave images of exactly the native size as they are, as CAT-SAM's code does.

    Raises:
        InputError: An unknown dialect, an option that it does not have, or no base.
        ImportRefused: The file is of another dialect, tensors do not fit, or the base is another.
    """
    theirs = _dialect(dialect)
    paths = _places(Path(file), Path(out), base, save_base)
    policy = _policy_options(theirs, size, first_size, channels, native_raw)
    named_spec = None if model is None else spec_of(model)
    origin = f"{file}: not a file of {theirs.name}"
    state = canonical(read_state(paths.file), theirs, str(file))
    if lacking := theirs.unmarked(state):
        raise ImportRefused(
            f"{origin}: it has no tensor like {', '.join(lacking)} among its {len(state)} "
            f"({_list(list(state))}){_resembles(state, theirs)}",
            {"marks": lacking, "found": list(state)},
        )
    base_state = None if paths.base is None else official_names(read_state(paths.base), str(base))
    spec = named_spec or _spec({**state, **(base_state or {})}, str(file))
    with shapes_alone():
        shapes = _build(Sam(spec).freeze(), theirs, state, policy)
    tuned_state, of_base = _sort(shapes, theirs, state, origin)
    if base_state is not None:
        sam = from_state(spec, base_state, str(base))
        _check_base(sam, of_base, f"{file}", str(base))
    else:
        sam = _split_base(shapes.sam, of_base, tuned_state, theirs, f"{file}", paths.save_base)
    result = _build(sam, theirs, state, policy)
    result.load_state_dict(tuned_state, strict=True)
    _write(result.eval(), theirs, paths)
    return Imported(theirs, paths.out, paths.base or paths.save_base or paths.file, result)


@dataclass(frozen=True)
class _Paths:
    file: Path
    out: Path
    base: Path | None
    save_base: Path | None


def _dialect(name: str) -> Dialect:
    if name not in DIALECTS:
        raise InputError(
            f"--from={name}: must be one of {', '.join(DIALECTS)}{nearest(name, DIALECTS)}"
        )
    return DIALECTS[name]


def _places(file: Path, out: Path, base: str | Path | None, save_base: str | Path | None) -> _Paths:
    if base is not None and save_base is not None:
        raise InputError(
            f"--save-base={save_base}: writes the base in the file, but --base={base} gives "
            "one already; leave one of them out"
        )
    options = {"--out": out, "--save-base": save_base}
    for option, path in options.items():
        if path is not None and Path(path).suffix != ".safetensors":
            raise InputError(f"{option}={path}: is a .safetensors file; give it that ending")
    paths = _Paths(
        *(None if p is None else as_path(p) for p in (file, out, base, save_base))  # type: ignore[arg-type]
    )
    # some file systems do not distinguish capitals and small letters
    if paths.save_base is not None and f"{paths.out.resolve()}".casefold() == (
        f"{paths.save_base.resolve()}".casefold()
    ):
        raise InputError(f"--out={out}: every file needs a path of its own; choose another")
    for option, path in (("--out", paths.out), ("--save-base", paths.save_base)):
        if path is not None:
            refuse_onto(f"{option}={options[option]}", path, (paths.file, paths.base))
            refuse_to_replace(f"{option}={options[option]}", path, VERB)
    return paths


def canonical(state: State, dialect: Dialect, origin: str) -> State:
    """Gives each tensor of a file one name: without wrappers of parallel training or aliases.

    Raises:
        InputError: Two names of the same tensor hold different values.
    """
    tensors: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = renamed(re.sub(r"^(module\.)+", "", key), dialect.aliases)
        if re.search(dialect.ignored_names, name) or name in PIXEL_BUFFERS:
            continue
        if name in tensors and not torch.equal(tensors[name], tensor):
            raise InputError(
                f"{origin}: {key} and {name} are one tensor in {dialect.name}, and here they "
                "differ; save the file again"
            )
        tensors.setdefault(name, tensor)
    return tensors


def _policy_options(
    dialect: Dialect,
    size: tuple[int, int] | None,
    first_size: tuple[int, int] | None,
    channels: str,
    native_raw: bool,
) -> dict[str, Any]:
    """The input options that an import sets.

    Raises:
        InputError: An option that the dialect does not leave open.
    """
    if size is not None and not dialect.sized:
        raise InputError(f"--size={size[0]},{size[1]}: {dialect.name} has one size; leave it out")
    if channels not in ("rgb", "bgr"):
        raise InputError(f"--channels={channels}: must be rgb or bgr")
    options: dict[str, Any] = {} if size is None else {"size": size}
    first = "" if first_size is None else f"--first-size={first_size[0]},{first_size[1]}"
    for name, option, value, plain in (
        ("first_size", first, first_size, None),
        ("channels", f"--channels={channels}", channels, "rgb"),
        ("native_raw", "--native-raw", native_raw, False),
    ):
        if value != plain and name not in dialect.variants:
            others = [d.name for d in DIALECTS.values() if name in d.variants]
            raise InputError(f"{option}: not for {dialect.name}, only {', '.join(others)}")
        options |= {} if value == plain else {name: value}
    return options


def _build(sam: Sam, dialect: Dialect, state: State, changes: Mapping[str, Any]) -> FineTuned:
    options, policy = dialect.settings(state, sam.spec), dialect.policy(sam.spec)
    policy = replace(policy, **changes)
    if policy.native_raw:
        policy = replace(policy, mean=sam.spec.pixel_mean, std=sam.spec.pixel_std)
    return FineTuned(
        sam,
        dialect.adapter,
        dialect.decoder,
        input=policy,
        adapter_options=options.adapter,
        decoder_options=options.decoder,
        prompts=dialect.prompts,
    )


def _spec(state: State, origin: str) -> SamSpec:
    """The base whose sizes match the tensors."""
    fitting = fitting_specs(state)
    if len(fitting) != 1:
        raise InputError(
            f"{origin}: its tensors do not show which base it belongs to; give --base with the "
            f"base's weights, and --model with one of {', '.join(SPECS)}"
        )
    return fitting[0]


def _sort(
    shapes: FineTuned, dialect: Dialect, state: State, origin: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Splits a file's tensors into ours that are trained and those of the base."""
    tensors = shapes.state_dict()
    ours = {dialect.theirs(name): name for name in tensors}
    official = {
        key: tensor
        for key, tensor in shapes.sam.state_dict().items()
        if key not in ours
        and not re.search(dialect.absent_names, key)
        and (key in state or not re.search(dialect.optional_names, key))
    }
    expected = {name: tensors[key].shape for name, key in ours.items()}
    for name, shape in expected.items():
        if re.search(dialect.flattened_names, name):
            expected[name] = torch.Size((shape[0], shape[1:].numel()))
    whole = dialect.holds == "all" or (
        dialect.holds == "either" and any(key in state for key in official)
    )
    if whole:
        expected |= {key: tensor.shape for key, tensor in official.items()}
    problems = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [key for key in state if key not in expected],
        "of another shape": [
            key for key, shape in expected.items() if key in state and state[key].shape != shape
        ],
    }
    if any(problems.values()):
        problem_list = "; ".join(
            f"{len(names)} {what} ({_list(names)})" for what, names in problems.items() if names
        )
        raise ImportRefused(
            f"{origin} on {shapes.sam.spec.name}: {problem_list}{_resembles(state, dialect)}",
            problems,
        )
    trained = {name: state[theirs].view(tensors[name].shape) for theirs, name in ours.items()}
    return trained, {key: state[key] for key in expected if key not in ours}


def _check_base(sam: Sam, of_base: Mapping[str, Tensor], file: str, base: str) -> None:
    expected = sam.state_dict()
    differing = [key for key, t in of_base.items() if not torch.equal(expected[key].to(t.dtype), t)]
    if differing:
        raise ImportRefused(
            f"{base}: not the base in {file}: {len(differing)} of {len(of_base)} frozen tensors "
            f"differ ({_list(differing)}); give the one it was trained on, or write its own "
            "with --save-base",
            {"other values": differing},
        )


def _split_base(
    shapes: Sam,
    of_base: Mapping[str, Tensor],
    tuned_state: Mapping[str, Tensor],
    dialect: Dialect,
    file: str,
    save_base: Path | None,
) -> Sam:
    """The base that a file holds; a trained decoder stands in for the base's missing one."""
    decoder = {dialect.theirs(k): t for k, t in tuned_state.items() if k.startswith("decoder.")}
    tensors = {**decoder, **of_base}
    expected = shapes.state_dict()
    missing = [k for k, t in expected.items() if k not in tensors or tensors[k].shape != t.shape]
    if missing:
        raise ImportRefused(
            f"{file}: does not hold its base, {len(missing)} of {len(expected)} tensors are "
            f"missing ({_list(missing)}); give the base's weights with --base",
            {"missing": missing},
        )
    if save_base is None:
        raise InputError(
            f"{file}: contains its base, which needs a place too; write it with "
            "--save-base=FILE.safetensors, or give the same weights with --base"
        )
    return from_state(shapes.spec, {key: tensors[key] for key in expected}, file)


def _write(model: FineTuned, dialect: Dialect, paths: _Paths) -> None:
    """Writes the base first, under a temporary name, so that a failure leaves neither file."""
    from safetensors.torch import save_file

    origin = {"from": dialect.name, "file": paths.file.name}
    if paths.save_base is None:
        write_checkpoint(model, paths.out, VERB, imported=origin)
        return
    remove_abandoned(paths.save_base.parent, paths.save_base.name)
    with replacing(paths.save_base, "free some space or choose another --save-base") as partial:
        save_file({k: t.clone() for k, t in model.sam.state_dict().items()}, partial)
        write_checkpoint(model, paths.out, VERB, imported=origin)


def _list(names: Sequence[str]) -> str:
    more = len(names) - TENSORS_TOLD
    return ", ".join(names[:TENSORS_TOLD]) + (f", and {more} more in --json" if more > 0 else "")


def _resembles(state: State, dialect: Dialect) -> str:
    """Names the dialects with the most marks in a file."""
    others = [d for d in DIALECTS.values() if d is not dialect and not d.unmarked(state)]
    if not others:
        return ""
    most = max(len(d.marks) for d in others)
    if not dialect.unmarked(state) and len(dialect.marks) >= most:
        return ""
    names = [d.name for d in others if len(d.marks) == most]
    return f"; it looks like {' or '.join(names)}: try --from {names[0]}"
