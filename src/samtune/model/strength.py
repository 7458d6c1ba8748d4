r"""The strength of a training: 0 is the base, 1 is the whole training, with values in between.

.. math:: w(a) = w_0 + a\,(w_1 - w_0), \quad 0 < a < 1

for every trained tensor :math:`w_1` whose start :math:`w_0` is known: zeros, ones, and copies or
functions of the base's tensors. Tensors that start at random keep their trained values. LoRA's
update is therefore scaled by :math:`a`, and a tuned decoder is interpolated between SAM's and
itself (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903). At 0 the base itself answers, at 1 the
trained model.

Only a model that starts as the base has values in between: see :func:`no_middle`. A model that
answers with classes cannot be reduced to the base: see :func:`no_base`.

A strength changes weights alone, so each kind of prompt can be answered at its own: see
:class:`Strength` and :func:`no_kinds`.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from samtune.adapters import ADAPTERS, Adapter
from samtune.decoders import DECODERS, Decoder
from samtune.errors import InputError
from samtune.geometry import InputPolicy, multiples
from samtune.prompts import KINDS, Prompts
from samtune.registry import Registry
from samtune.sam.model import Sam

if TYPE_CHECKING:
    from samtune.model.finetuned import FineTuned

PLAIN = {"adapter": "none", "decoder": "frozen"}
"""The names of the parts that leave the base as it is."""
Part = TypeVar("Part", Adapter, Decoder)


class Parts(NamedTuple):
    """An adapter and a decoder that act together."""

    adapter: Adapter
    decoder: Decoder


def build(
    registry: Registry[Part], sam: Sam, name: str, options: Mapping[str, Any]
) -> tuple[Part, dict[str, Any]]:
    """A new adapter or decoder by its name, and the options with which it can be built again.

    Args:
        registry: The registry of adapters or of decoders.
        sam: The base.
        name: One of the registry's.
        options: The options that differ from the defaults.

    Raises:
        InputError: A name or option is unknown.
    """
    config, cls = registry.config(name, dict(options)), registry[name]
    kept = cls.stored_options(asdict(config))
    return cls(sam, config), kept  # type: ignore[call-arg,arg-type]


StrengthSetting = float | str | Sequence[str] | Mapping[str, float]
"""One number for all kinds of prompts; or numbers by kind, as ``{"none": 1, "box": 0}``,
``none:1,box:0`` or a list of such words; or one kind, whose strength all kinds get."""


class Strength(float):
    """The strengths of a model: one for each kind of prompt, and one for all of them together.

    As a number it is the latter, for files that can hold one set of weights only.
    """

    by_kind: dict[str, float]
    """Empty if all kinds share one."""
    validated: frozenset[str]
    """The kinds whose strength a training chose, by its validation; none if all share one."""

    def __new__(
        cls,
        together: float = 1.0,
        by_kind: Mapping[str, float] | None = None,
        validated: Collection[str] = KINDS,
    ) -> Strength:
        """A strength for all prompts together, and those by kind, if they differ.

        Args:
            together: The fraction of the training that acts if all prompts share one.
            by_kind: The fractions by kind, see :data:`samtune.prompts.KINDS`. A kind without one
                has the lowest of the others.
            validated: The kinds whose strength a training chose, not somebody afterwards.
        """
        parts = by_kind or {}
        values = {kind: float(parts[kind]) + 0.0 for kind in KINDS if kind in parts}  # no -0
        alike = set(values.values())
        new = super().__new__(cls, next(iter(alike)) if len(alike) == 1 else together + 0.0)
        new.by_kind = values if len(alike) > 1 else {}
        new.validated = frozenset(validated if new.by_kind else ())
        return new

    def __getnewargs__(self) -> tuple[float, dict[str, float]]:  # type: ignore[override]
        return float(self), self.by_kind

    def __bool__(self) -> bool:
        """Whether anything of the training acts."""
        return any(self.by_kind.values()) if self.by_kind else float(self) > 0

    def __str__(self) -> str:
        """The setting that gives it, as ``0.5`` or ``none:1,point:0.25,box:0``."""
        parts = (f"{kind}:{value:g}" for kind, value in self.by_kind.items())
        return ",".join(parts) or f"{float(self):g}"

    def of(self, kind: str) -> float:
        """The strength at which a kind of prompt is answered."""
        if not self.by_kind:
            return float(self)
        return self.by_kind.get(kind, min(self.by_kind.values()))

    def in_one(self, kinds: Collection[str], trained_kinds: Collection[str]) -> float:
        """The strength of files that hold one set of weights for all prompts.

        It is that of the kinds whose strength somebody set, else of those that were trained, if
        these are asked and share one; else the one for all prompts together.

        Args:
            kinds: The kinds of prompts that the files are asked with.
            trained_kinds: The kinds that the model was trained for.

        Raises:
            InputError: Somebody set several for these kinds.
        """
        demanded = self.by_kind.keys() - self.validated
        for group in (demanded, trained_kinds):
            levels = {self.of(kind) for kind in kinds if self.by_kind and kind in group}
            if len(levels) == 1:
                return levels.pop()
            if levels and group is demanded:
                parts = ",".join(f"{kind}:{self.of(kind):g}" for kind in KINDS if kind in demanded)
                raise InputError(
                    f"strength={parts}: these files hold one set of weights for all prompts; give "
                    "one number, or one kind of prompt as in strength=box"
                )
        return float(self)

    def rows(self, prompts: Prompts) -> dict[float, Tensor]:
        """The rows ``(n,)`` of prompts that are answered at each strength, if there are any."""
        masks: dict[float, Tensor] = {}
        for kind, which in prompts.by_kind().items():
            level = self.of(kind)
            masks[level] = masks[level] | which if level in masks else which
        rows = {level: which.nonzero()[:, 0] for level, which in sorted(masks.items())}
        return {level: which for level, which in rows.items() if len(which)}

    def changed_by(self, setting: StrengthSetting) -> Strength:
        """The strengths with one for all kinds, or with others for some of them.

        Raises:
            InputError: It is not a number from 0 to 1, or a kind is unknown.
        """
        if isinstance(setting, Strength):
            return setting
        if isinstance(setting, str):
            if setting in KINDS:
                return Strength(self.of(setting))
            with suppress(ValueError):
                setting = float(setting)
        if isinstance(setting, int | float | Real):
            _check_fraction(setting, setting_text(setting))
            return Strength(float(setting))
        if not isinstance(setting, Mapping | str | list | tuple):
            _check_fraction(setting, setting)
        values = dict(setting) if isinstance(setting, Mapping) else _by_kind(setting)
        for kind, value in values.items():
            if kind not in KINDS:
                raise InputError(
                    f"strength={setting_text(setting)}: {kind} is no kind of prompt; the kinds are "
                    f"{', '.join(KINDS)}"
                )
            _check_fraction(value, setting_text(setting))
        strengths = {**{kind: self.of(kind) for kind in KINDS}, **values}
        return Strength(self, strengths, self.validated - values.keys())

    @property
    def entries(self) -> dict[str, Any]:
        """How a header or a summary says it, see :meth:`read`."""
        return {"strength": float(self)} | ({"strengths": self.by_kind} if self.by_kind else {})

    @staticmethod
    def read(tree: Mapping[str, Any]) -> Strength:
        """The strength that a header or a validation says; those without one are of full strength.

        Args:
            tree: A header or a row with ``strength``, and ``strengths`` by kind if these differ.
        """
        return Strength(tree.get("strength", 1.0), tree.get("strengths"))


IN_FULL = Strength()


def _by_kind(setting: str | Sequence[str]) -> dict[str, float]:
    """The numbers in ``none:1,box:0``."""
    words = setting.split(",") if isinstance(setting, str) else [str(word) for word in setting]
    values: dict[str, float] = {}
    for word in words:
        kind, _, number = (part.strip() for part in word.partition(":"))
        if kind in values:
            raise InputError(
                f"strength={setting_text(setting)}: says {kind} twice; give each kind of prompt "
                "one strength"
            )
        try:
            values[kind] = float(number)
        except ValueError:
            _check_fraction(word, setting_text(setting))
    return values


def setting_text(setting: StrengthSetting) -> str:
    """A setting of strength as the command line takes it."""
    if isinstance(setting, Mapping):
        return ",".join(f"{kind}:{value}" for kind, value in setting.items())
    if isinstance(setting, int | float | Real):
        return f"{float(setting):g}"
    if isinstance(setting, str):
        return setting
    return ",".join(map(str, setting))


def _check_fraction(value: Any, text: Any) -> None:
    if not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise InputError(
            f"strength={text}: must be a fraction of the training, from 0 to 1, one by kind of "
            "prompt as in none:1,box:0, or a kind, as in box, for that of this kind"
        )


def set_demanded(model: FineTuned, setting: StrengthSetting) -> None:
    """Sets a strength that somebody requests.

    Raises:
        InputError: See :attr:`FineTuned.strength`; or it is 0 and the base cannot answer.
    """
    model.strength = setting
    if not model.strength and (reason := no_base(model)):
        raise InputError(f"strength={model.strength}: {reason}; set 1, or nothing")


def check_supported(model: FineTuned, strength: Strength) -> None:
    """Refuses a strength that a model does not have.

    Raises:
        InputError: It is between 0 and 1, or differs by kind of prompt, and the model has no such;
            see :func:`no_middle` and :func:`no_kinds`.
    """
    levels = strength.by_kind.values() or (float(strength),)
    if any(0 < level < 1 for level in levels) and (reason := no_middle(model)):
        raise InputError(f"strength={strength}: {reason}; set 0, the base, or 1")
    if strength.by_kind and (reason := no_kinds(model)):
        raise InputError(f"strength={strength}: {reason}; set one number for all prompts")


def plain_input(sam: Sam, policy: InputPolicy) -> InputPolicy:
    """The input policy of the base alone on a model's images: normalised as in its own training.

    Its frame is the model's, or the next larger one that is a multiple of its encoder's stride.
    """
    size = multiples(policy.size, sam.image_encoder.stride)
    return replace(policy, size=size, mean=None, std=None)


def no_middle(model: FineTuned) -> str:
    """The reason, as a clause, why a model has no strength between 0 and 1; empty if it has.

    Such a model would not answer like the base at a small strength, or its start is unknown.
    """
    adapter, decoder = model.adapter, model.decoder
    for kind in ("adapter", "decoder"):
        if getattr(model, f"{kind}_options") is None:
            return f"the {kind} was given as a module, whose start is unknown"
    if not adapter.identity_at_init:
        return f"{adapter.name} does not start as the base: {adapter.changes_at_start}"
    if decoder.changes_at_start:
        return f"the decoder {decoder.name} does not start as SAM's: {decoder.changes_at_start}"
    if decoder.dense_targets:  # what is trained to read one embedding does not read another
        return f"{decoder.name} predicts {decoder.dense_targets[0]}, which the base does not know"
    if model.tuned_input != plain_input(model.sam, model.tuned_input):
        return "images are normalised differently than for the base"
    return ""


def no_base(model: FineTuned) -> str:
    """The reason, as a clause, why the base cannot answer in a model's place; empty if it can.

    The base has an answer of the same kind (single masks) even without a prompt, and whatever the
    start of an adapter or a decoder. It has no answer for classes.
    """
    if model.decoder.classes is None:
        return ""
    return f"the base knows no classes, and {model.decoder.name} predicts maps of them"


def no_kinds(model: FineTuned) -> str:
    """The reason, as a clause, why kinds of prompts cannot differ in strength; empty if they can.

    Then the model has one kind of answer, or the base would see other images than it does.
    """
    decoder = model.decoder
    if reason := no_base(model):
        return reason
    if not decoder.prompted:
        return f"{decoder.name} answers without a prompt, whatever is asked"
    if decoder.dense_targets:
        return f"{decoder.name} predicts {decoder.dense_targets[0]}, which the base does not know"
    stride = model.sam.image_encoder.stride
    same = plain_input(model.sam, model.tuned_input).size == model.tuned_input.size
    if not same or model.adapter.stride not in (None, stride):
        return f"{model.adapter.name} has another frame than the base"
    return ""


def starts(model: FineTuned) -> dict[str, Tensor]:
    """The initial values, by name, of the trained tensors that do not depend on the seed."""
    before = torch.get_rng_state()
    try:
        first, second = (_fresh_tensors(model, seed) for seed in (0, 1))
    finally:
        torch.set_rng_state(before)
    return {name: start for name, start in first.items() if torch.equal(start, second[name])}


def weakened(model: FineTuned, strength: float) -> Parts:
    """Copies of a model's adapter and decoder, interpolated from their start.

    Args:
        model: A model that starts as its base, see :func:`no_middle`.
        strength: A value above 0 and below 1.
    """
    parts = {name: copy.deepcopy(getattr(model, name)).eval() for name in Parts._fields}
    first = starts(model)
    with torch.no_grad():
        for kind, part in parts.items():
            for name, tensor in part.state_dict().items():
                start = first.get(f"{kind}.{name}")
                if start is not None and tensor.is_floating_point():
                    start = start.to(tensor.device)
                    tensor.copy_(start + strength * (tensor - start))
    return Parts(**parts)


def base_parts(sam: Sam) -> Parts:
    """The parts that leave the base as it is."""
    adapter, _ = build(ADAPTERS, sam, PLAIN["adapter"], {})
    decoder, _ = build(DECODERS, sam, PLAIN["decoder"], {})
    return Parts(adapter.eval(), decoder.eval())


def _fresh_tensors(model: FineTuned, seed: int) -> dict[str, Tensor]:
    torch.default_generator.manual_seed(seed)  # modules are made on the CPU
    adapter, _ = build(ADAPTERS, model.sam, model.names["adapter"], model.adapter_options or {})
    decoder, _ = build(DECODERS, model.sam, model.names["decoder"], model.decoder_options or {})
    parts = Parts(adapter, decoder)._asdict()
    tensors = ((kind, part.state_dict()) for kind, part in parts.items())
    return {f"{kind}.{name}": t for kind, state in tensors for name, t in state.items()}
