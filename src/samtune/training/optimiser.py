"""The optimiser and its learning rates: samtune's own, or what a user gives."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from samtune.errors import InputError
from samtune.model.finetuned import FineTuned
from samtune.options import further_inputs, name_of
from samtune.training.criterion import Criterion
from samtune.training.packing import packed, unpacked
from samtune.training.schedule import FitConfig, learning_rate
from samtune.training.stepping import leaves_out_by_itself

OptimizerFactory = Callable[[Sequence[nn.Parameter]], Optimizer]
"""Makes an optimiser of the parameters that are trained."""
ScheduleFactory = Callable[..., LRScheduler]
"""Makes a schedule of an optimiser; by name it may take ``total_steps``."""
OF_OPTIMIZER = ("weight_decay", "decay_vectors")
OF_SCHEDULE = ("warmup", "min_lr", "cosine")
"""Settings that have no effect beside a user's optimiser or schedule."""


def parameter_groups(model: FineTuned, config: FitConfig) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels; on biases and norms it is a pull to nowhere."""
    decay, flat_decay = config.weight_decay, config.weight_decay if config.decay_vectors else 0.0
    wide = [p for p in model.parameters() if p.dim() > 1]
    flat = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": wide, "weight_decay": decay}, {"params": flat, "weight_decay": flat_decay}]
    return [group for group in groups if group["params"]]


def make_optimizer(
    model: FineTuned, config: FitConfig, factory: Optimizer | OptimizerFactory | None
) -> Optimizer:
    """The optimiser of a training.

    Args:
        model: On its device.
        config: Without a factory: rates and weight decay of AdamW; the rate is chosen.
        factory: Called with the list of all parameters that are trained; or an optimiser of them.

    Raises:
        InputError: The result is not an optimiser, has other parameters or none, or needs a
            closure; or a setting would have no effect with it.
    """
    if factory is None:
        fused = leaves_out_by_itself(model.device, config.precision) or None
        return torch.optim.AdamW(parameter_groups(model, config), lr=config.peak_lr, fused=fused)
    if isinstance(factory, str):
        raise InputError(
            f"optimizer={factory}: is a name; give a function that makes an optimiser of torch, as "
            "in lambda params: torch.optim.SGD(params, lr=1e-3)"
        )
    _refuse_settings(config, OF_OPTIMIZER, "optimizer")
    if isinstance(factory, Optimizer):
        optimizer = factory
    else:
        further_inputs(factory, "optimizer", ("params",))
        optimizer = factory([p for p in model.parameters() if p.requires_grad])
    if not isinstance(optimizer, Optimizer):
        raise InputError(
            f"optimizer: {name_of(factory)} returned a {type(optimizer).__name__}; return an "
            "optimizer of torch, as in lambda params: torch.optim.SGD(params, lr=1e-3)"
        )
    _check_optimizer(optimizer, model)
    rates = [float(group.get("lr") or 0.0) for group in optimizer.param_groups]
    if config.peak_lr not in (model.learning_rate, *rates):
        raise InputError(
            f"train.lr={config.peak_lr:g}: has no effect, since the given optimizer has lr="
            f"{' and '.join(f'{rate:g}' for rate in dict.fromkeys(rates))}; leave it out"
        )
    return optimizer


def _check_optimizer(optimizer: Optimizer, model: FineTuned) -> None:
    kind, mine = type(optimizer).__name__, {id(p) for p in model.parameters()}
    held_by = [p for group in optimizer.param_groups for p in group["params"]]
    if any(id(p) not in mine for p in held_by):
        raise InputError(
            f"optimizer: {kind} has parameters that are not the model's, and would not be saved; "
            "take them from model.parameters(), once the model is on its device"
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise InputError(
            f"optimizer: {kind} evaluates the loss several times per step, through a closure, "
            "which fit does not give; choose one without, such as AdamW or SGD"
        )


def make_schedule(
    optimizer: Optimizer, config: FitConfig, total: int, factory: ScheduleFactory | None
) -> LRScheduler | None:
    """A user's schedule, if there is one.

    Args:
        optimizer: The optimiser whose rates it sets.
        config: How training goes.
        total: Steps of the whole training.
        factory: Called with the optimiser, and with ``total_steps`` if it has such a parameter.

    Raises:
        InputError: It gives no schedule of this optimiser, or a setting has no effect beside it.
    """
    if factory is None:
        return None
    _refuse_settings(config, OF_SCHEDULE, "schedule")
    by_name = further_inputs(factory, "schedule", ("optimizer",), ("total_steps",))
    if by_name and config.time is not None:
        raise InputError(
            f"train.time={config.time}: the given schedule takes total_steps, which a time does "
            "not fix; set train.max_steps instead, or give a schedule without total_steps"
        )
    schedule = factory(optimizer, **dict.fromkeys(by_name, total))
    if not isinstance(schedule, LRScheduler):
        raise InputError(
            f"schedule: {name_of(factory)} returned a {type(schedule).__name__}; return a schedule "
            "of torch, as in lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 100)"
        )
    if schedule.optimizer is not optimizer:
        raise InputError(
            f"schedule: {type(schedule).__name__} is of another optimizer; make it from the one "
            "that the function is called with"
        )
    return schedule


def make_optimisation(
    model: FineTuned,
    config: FitConfig,
    total: int,
    batches: int,
    optimizer: Optimizer | OptimizerFactory | None = None,
    schedule: ScheduleFactory | None = None,
) -> Optimisation:
    """The optimiser of a training with its rates.

    Args:
        model: On its device.
        config: How training goes.
        total: Steps of the whole training.
        batches: Batches of an epoch.
        optimizer: The user's, see :func:`make_optimizer`.
        schedule: The user's, see :func:`make_schedule`.

    Raises:
        InputError: See these functions.
    """
    made = make_optimizer(model, config, optimizer)
    parts = Optimisation(made, optimizer is not None, total)
    if parts.of_user:
        rates = [group.get("lr") for group in made.param_groups]
        parts.scales = [None if rate is None else float(rate) / config.peak_lr for rate in rates]
    parts.schedule = make_schedule(made, config, total, schedule)
    if parts.schedule is None:
        parts.rate_of = lambda step: learning_rate(config, step, parts.total, batches)
    return parts


def _refuse_settings(config: FitConfig, names: Sequence[str], argument: str) -> None:
    for name in names:
        if (value := getattr(config, name)) != getattr(FitConfig, name):
            raise InputError(
                f"train.{name}={value}: has no effect beside a given {argument}; leave it out, and "
                f"say it in the {argument}"
            )


class Optimisation:
    """An optimiser with its learning rates, and its state as a run folder keeps it.

    Rates are those of a user's schedule, else the configuration's warm-up and cosine: of ``lr``,
    or for a user's optimiser of each group's own rate.

    Args:
        optimizer: An optimiser of torch.
        of_user: Whether the optimiser is the user's.
        total: Steps of the whole training, which a time may change.
    """

    schedule: LRScheduler | None = None
    """The user's."""
    rate_of: Callable[[int], float] | None = None
    """The configuration's rate of step ``1..total``."""
    rate = 0.0
    """The rate of the first group in the last step."""

    def __init__(self, optimizer: Optimizer, of_user: bool = False, total: int = 1) -> None:
        self.optimizer, self.of_user, self.total = optimizer, of_user, total
        self.scales: list[float | None] = [1.0] * len(optimizer.param_groups)
        """The configuration's rate times this is that of each group; ``None`` leaves it alone."""
        self._start = _settings(optimizer) if of_user else []

    def set_rates(self, step: int) -> None:
        """Sets the rates of step ``1..total``, unless the user's schedule has."""
        groups = self.optimizer.param_groups
        if self.rate_of is not None:
            for group, scale in zip(groups, self.scales, strict=True):
                if scale is not None:
                    group["lr"] = self.rate_of(step) * scale
        self.rate = float(groups[0].get("lr") or 0.0)

    def end_step(self) -> None:
        """Moves the user's schedule on, also after a step that was left out."""
        if self.schedule is None or isinstance(self.schedule, ReduceLROnPlateau):
            return
        with warnings.catch_warnings():  # it warns if the very first step was left out
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            self.schedule.step()

    def end_validation(self, value: float) -> None:
        """Passes the validation metric to a schedule that waits for a plateau; not if it is NaN."""
        if isinstance(self.schedule, ReduceLROnPlateau) and not math.isnan(value):
            self.schedule.step(value)

    def check_validation(self, criterion: Criterion | None) -> None:
        """Refuses a schedule that waits for a plateau and would never see it.

        Args:
            criterion: The criterion that compares validations; ``None`` if there are none.

        Raises:
            InputError: There are no validations, or it takes their better values for the worse.
        """
        if not isinstance(self.schedule, ReduceLROnPlateau):
            return
        if criterion is None:
            raise InputError(
                "schedule: ReduceLROnPlateau waits for validations; give validation images"
            )
        mode, word = ("max", "more") if criterion.higher else ("min", "less")
        if self.schedule.mode != mode:
            raise InputError(
                f"schedule: ReduceLROnPlateau has mode={self.schedule.mode!r}, but of "
                f"train.metric={criterion} {word} is better; set mode={mode!r}"
            )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors that a run folder keeps, and of a user's parts what else there is."""
        described: dict[str, Any] = {}
        if self.of_user:
            tensors: dict[str, Tensor] = {}
            described["optimizer"] = {
                "class": _class_of(self.optimizer),
                "start": packed(self._start, {}, "optimizer"),
                "state": packed(self.optimizer.state_dict(), tensors, "optimizer"),
            }
        else:
            tensors = _moments(self.optimizer)
        if self.schedule is not None:
            state = packed(self.schedule.state_dict(), tensors, "schedule")
            described["schedule"] = {"class": _class_of(self.schedule), "state": state}
        return tensors, described

    def load(self, tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> None:
        """Goes back to an earlier :meth:`state`.

        Raises:
            InputError: It is of another optimiser or schedule.
            KeyError: A tensor is missing.
            ValueError: It is of other parameters.
        """
        self._check_alike("optimizer", described, self.optimizer if self.of_user else None)
        self._check_alike("schedule", described, self.schedule)
        if self.of_user:
            of_optimizer = described["optimizer"]
            _check_settings(unpacked(of_optimizer["start"], {}), self._start)
            self.optimizer.load_state_dict(unpacked(of_optimizer["state"], tensors))
        else:
            _load_moments(self.optimizer, tensors)
        if self.schedule is not None:
            self.schedule.load_state_dict(unpacked(described["schedule"]["state"], tensors))
            if not self.of_user:  # whose rates are no part of its moments
                for group, rate in zip(
                    self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True
                ):
                    group["lr"] = rate

    def _check_alike(self, kind: str, described: Mapping[str, Any], mine: Any) -> None:
        was = described.get(kind, {}).get("class", "samtune's own")
        now = "samtune's own" if mine is None else _class_of(mine)
        if was != now:
            raise InputError(
                f"resume: the {kind} of the run was {was}, and the given one is {now}; give the "
                "same again, or start a new run"
            )


def _class_of(part: Any) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"


def _settings(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The settings of an optimiser's groups, and the number of parameters in each."""
    return [{**group, "params": len(group["params"])} for group in optimizer.param_groups]


def _check_settings(were: list[dict[str, Any]], now: list[dict[str, Any]]) -> None:
    """Refuses groups that are set to something else than when the run began."""
    if len(were) != len(now):
        raise InputError(
            f"resume: the optimizer of the run had {len(were)} parameter groups, and the given one "
            f"has {len(now)}; give the same again, or start a new run"
        )
    for i, (before, after) in enumerate(zip(were, now, strict=True)):
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                raise InputError(
                    f"resume: {key} of the optimizer's group {i} was {before.get(key)}, and is "
                    f"{after.get(key)} now; give the same again, or start a new run"
                )


def _moments(optimizer: Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as flat tensors ``<parameter index>.<name>``."""
    return {
        f"{index}.{name}": torch.as_tensor(value).detach().cpu().contiguous().clone()
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def _load_moments(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    current = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        if index.isdigit():  # else it is a schedule's
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": current["param_groups"]})
