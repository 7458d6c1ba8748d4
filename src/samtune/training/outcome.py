"""The end of a training: its reason, and the result."""

from __future__ import annotations

from samtune.model.finetuned import FineTuned
from samtune.training.choice import Judge
from samtune.training.keeping import Keeping
from samtune.training.memory import peak_memory
from samtune.training.result import End, FitResult
from samtune.training.schedule import FitConfig
from samtune.training.state import TrainingState

EARLY = ("stop", "patience")
"""The ends that come before the last step."""


def end_of(config: FitConfig, state: TrainingState, stopping: bool, by_time: bool) -> End:
    """The reason why a training ends.

    Args:
        config: How it goes.
        state: The state of the training.
        stopping: Whether a callback has stopped it.
        by_time: Whether ``train.time`` chose its number of steps.
    """
    if stopping:
        return "stop"
    if config.patience is not None and state.since_best >= config.patience:
        return "patience"
    return "time" if by_time else "steps"


def result_of(
    state: TrainingState, judge: Judge | None, keeping: Keeping, model: FineTuned, end: End
) -> FitResult:
    """The outcome of a training.

    Args:
        state: After the choice of the weights.
        judge: The judge that compared validations, if there were any.
        keeping: The prompts that it kept.
        model: With the weights that were chosen.
        end: The reason for which the training ended.
    """
    choice, cache = state.choice or {"weights": "", "curve": []}, model.cache
    if cache is not None:
        cache.flush()
    store = None if cache is None else cache.store
    return FitResult(
        steps=state.step,
        best=state.best,
        seconds=state.seconds,
        peak_memory_bytes=peak_memory(model.device),
        left_out=0 if cache is None else cache.left_out,
        damaged=0 if store is None else store.damaged,
        cache_failure="" if store is None else store.failure,
        zero_shot=state.zero_shot,
        kept_modes=tuple(state.kept_modes),
        rehearsed_modes=keeping.rehearsed(state.kept_modes),
        watched_modes=() if judge is None else judge.watched(state),
        top=state.top,
        weights=choice["weights"],
        curve=tuple(choice["curve"]),
        no_base="" if judge is None else judge.no_base,
        end=end,
    )
