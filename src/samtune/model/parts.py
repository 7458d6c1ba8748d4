"""The parts of a model as Python code gives them: a base, an adapter, a decoder and options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from samtune.adapters import ADAPTERS, Adapter
from samtune.adapters.base import check_base
from samtune.decoders import DECODERS, Decoder
from samtune.errors import InputError, checks_keywords
from samtune.geometry import InputPolicy
from samtune.options.arguments import text_of_value
from samtune.prompts import Prompts
from samtune.registry import Registry, trust
from samtune.registry.places import PLACE
from samtune.sam.model import Sam
from samtune.sam.spec import SamSpec

_ELSEWHERE = {
    "device": "a model lies where its base does; load_sam(..., device='cuda'), or move it, as in "
    "model.to('cuda')",
    "base": "give it first, as in FineTuned(samtune.load_sam('nano'), 'lora')",
    "settings": "options are adapter_options={...} and decoder_options={...}",
    "strength": "set it afterwards, as in model.strength = 0.5",
}
"""Words that are no arguments of ``FineTuned``, and where the matter is settled."""
OF_PREDICTOR = {
    "device": "a model lies where its base does; move it before, as in model.to('cuda')",
    "thresh": "the logit to cut at is threshold=",
    "multimask": "is an argument of predict, multimask_output=",
}
"""Words that are no arguments of predictors and generators, and where the matter is settled."""
_REGISTRIES: Mapping[str, Registry[Any]] = {"adapter": ADAPTERS, "decoder": DECODERS}


def check_asked(prompts: Any) -> None:
    """Refuses what are no prompts, such as boxes as they are.

    Raises:
        InputError: With how they are made.
    """
    if not isinstance(prompts, Prompts):
        raise InputError(
            f"prompts={type(prompts).__name__}: must be samtune.Prompts, as in "
            "samtune.Prompts.of(boxes=boxes), or samtune.Prompts.of() to ask without a prompt"
        )


def check_base_of(sam: Any) -> None:
    """Refuses what is no base, or is one that would be trained.

    Raises:
        InputError: With what to give instead.
    """
    if not isinstance(sam, Sam):
        raise InputError(
            f"sam={text_of_value(sam)}: must be a base; give samtune.load_sam(NAME, WEIGHTS), "
            'as in samtune.load_sam("nano")'
        )
    if any(p.requires_grad for p in sam.parameters()):
        raise InputError("the base is not frozen: call sam.freeze(), or use samtune.load_sam")


def name_of(registry: Registry[Any], part: Any) -> Any:
    """The name of a class that stands for a part; a name or a module as it is.

    A place that is named here may be imported from now on.

    Raises:
        InputError: A class that cannot be such a part.
    """
    if isinstance(part, type):
        return registry.adopt(part)
    if isinstance(part, str):
        trust(*PLACE.findall(part))
        return part
    kind = Adapter if registry is ADAPTERS else Decoder
    if not isinstance(part, kind):
        what = "None" if part is None else type(part).__name__
        raise InputError(
            f"{registry.kind}={what}: is no {registry.kind}; give a name, as "
            f"{'none' if registry is ADAPTERS else 'frozen'!r} for SAM's own, or a class or module "
            f"that is built on samtune.{registry.kind}s.{kind.__name__}"
        )
    return part


def shown_name(name: str) -> str:
    """The name of an adapter or a decoder for readers, also if nobody has registered it."""
    return "a module of your own" if name in (Adapter.name, Decoder.name) else name


def description(model: Any) -> str:
    """A model in a few lines: base, adapter, decoder, and what is trained."""
    height, width = model.tuned_input.size
    total = model.trainable() + sum(p.numel() for p in model.sam.parameters())
    lines = [
        f"base: {model.sam.spec.name}, frame {height} x {width} pixels",
        *(f"{kind}: {shown_name(name)}" for kind, name in model.names.items()),
        f"trained: {model.trainable():,} of {total:,} parameters, for prompts {model.prompts}",
        f"strength: {model.strength}",
    ]
    return "\n".join(["FineTuned(", *(f"  {line}" for line in lines), ")"])


def check_parts(sam: Sam, parts: Sequence[Any]) -> None:
    """Refuses modules that cannot be an adapter and a decoder, or that hold the base.

    Args:
        sam: The base, which every model shares.
        parts: The adapter and the decoder.

    Raises:
        InputError: With what to do.
    """
    base = {id(tensor) for tensor in sam.parameters()}
    for kind, part in zip(("adapter", "decoder"), parts, strict=True):
        if any(id(tensor) in base for tensor in part.parameters()):
            raise InputError(
                f"{kind}={type(part).__name__}: holds tensors of the base among its own, which "
                "would be trained and saved with it; copy what it needs, or keep the base in a "
                "tuple, as self.base = (sam,)"
            )


def options_of(kind: str, options: Any) -> Mapping[str, Any]:
    """Options by name; of a method's ``Config`` its fields.

    Args:
        kind: ``adapter`` or ``decoder``, for messages.
        options: The options as Python code gives them; ``None`` for the defaults.

    Raises:
        InputError: They are neither.
    """
    if is_dataclass(options) and not isinstance(options, type):
        return asdict(options)
    if options is None or isinstance(options, Mapping):
        return options or {}
    raise InputError(
        f'{kind}_options={options!r}: must be options by name, as in {{"rank": 8}}, or a method\'s '
        "Config"
    )


def _option_of(name: str, arguments: Mapping[str, Any]) -> str:
    """The hint for an option of a method that stands among the arguments of ``FineTuned``.

    Args:
        name: The word.
        arguments: The arguments by name.

    Returns:
        A clause that says which argument takes it; empty if the methods have no such option.
    """
    for kind, registry in _REGISTRIES.items():
        part = arguments.get(kind)
        joined = part.split("+") if isinstance(part, str) else [part]
        for each in joined:
            label = each if isinstance(each, str) else getattr(each, "__name__", "")
            if name in _options_in(registry[name_of(registry, each)] if label == each else each):
                options = f"{{{name!r}: ...}}"
                options = f"{{{each!r}: {options}}}" if len(joined) > 1 else options
                return f"is an option of the {kind} {label}; give {kind}_options={options}"
    for kind, registry in _REGISTRIES.items():
        if having := [known for known in registry if name in _options_in(registry[known])]:
            some = ", ".join(having[:3]) + (", ..." if having[3:] else "")
            return (
                f"is an option of {some}; name one, as in {kind}={having[0]!r}, "
                f"{kind}_options={{{name!r}: ...}}"
            )
    return ""


def _options_in(cls: Any) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(getattr(cls, "Config", None), "__dataclass_fields__", {})
    return fields


checks_words = checks_keywords(InputPolicy, elsewhere=_ELSEWHERE, option=_option_of)
"""Has ``FineTuned`` refuse words that are no arguments of it, with what is meant."""


def check_pair(adapter: str | Adapter, decoder: str | Decoder) -> None:
    """Refuses an adapter and a decoder that do not fit together, before any weight is read.

    Raises:
        InputError: They do not fit; the message names decoders or adapters that would.
    """
    method = ADAPTERS[adapter] if isinstance(adapter, str) else adapter
    reader = DECODERS[decoder] if isinstance(decoder, str) else decoder
    fits, reads = method.decoders, reader.adapters
    if fits is not None and reader.name not in fits:
        raise InputError(
            f"decoder.name={reader.name}: {method.name} only works with {', '.join(fits)}; set "
            f"decoder.name={fits[0]}"
        )
    if reads is not None and not set(reads) & {method.name, *method.joins}:
        raise InputError(
            f"decoder.name={reader.name}: reads what {' or '.join(reads)} makes, and "
            f"{method.name} makes no such thing; set adapter.name={reads[0]}, or another decoder"
        )


def check_fit(adapter: str | Adapter, decoder: str | Decoder, spec: SamSpec) -> None:
    """Refuses a base that the adapter or the decoder does not fit, before any weight is read.

    Raises:
        InputError: The base does not fit; the message gives the reason.
    """
    check_base(ADAPTERS[adapter] if isinstance(adapter, str) else adapter, spec)
    (DECODERS[decoder] if isinstance(decoder, str) else decoder).check(spec)
