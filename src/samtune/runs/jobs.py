"""The jobs of the command line: train and evaluate on a configuration, into a run folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from samtune.data import SegmentationDataset, select, write_split
from samtune.data.config import AUTO
from samtune.data.layouts import SplitRecords, find
from samtune.distributed import from_main, is_main, together
from samtune.errors import InputError
from samtune.files import as_path, write_whole
from samtune.model.finetuned import FineTuned
from samtune.model.header import BEST
from samtune.model.strength import setting_text
from samtune.precision import arithmetic
from samtune.prompts import AUTOMATIC, kind_of
from samtune.report.quantities import counted
from samtune.report.terminal import Display
from samtune.runs.assembly import frame_remarks
from samtune.runs.automatic import changed_settings, one_target_remark, with_able_modes
from samtune.runs.baseline import RunPictures, compare_with_base
from samtune.runs.calibrating import WAYS, fit_after_training, fitted_on, flattered
from samtune.runs.config import RunConfig
from samtune.runs.data_of_run import (
    SPLIT,
    altered,
    check_splits,
    data_name,
    leaks,
    splits_on_disk,
    trained_images,
    write_digests,
)
from samtune.runs.finished import finished_summary, length_of, write_summary
from samtune.runs.first_screen import images_per_step, of_evaluation, of_training
from samtune.runs.folder import (
    CONFIG,
    Log,
    check_output,
    default_name,
    finite,
    refuse_folders,
    refuse_taken,
    run_folder,
)
from samtune.runs.per_image import write_items
from samtune.runs.places import without_places
from samtune.runs.plan import Plan, plan_training, test_sets
from samtune.runs.remarks import shortfalls
from samtune.runs.selection import selection, verdict
from samtune.runs.source import Source
from samtune.runs.values import Tree
from samtune.runs.words import chosen_keys, keys_in, read_tree, settings_digest
from samtune.training.budget import Outside
from samtune.training.caching import as_word
from samtune.training.engine import fit
from samtune.training.memory import peak_memory
from samtune.training.result import FitResult
from samtune.training.saves import LAST, goes_on
from samtune.training.state import has_state, mend_state
from samtune.training.trackers import check_trackers

if TYPE_CHECKING:
    from samtune.data.record import Record
    from samtune.report.overlays import Overlay


Forecaster = Callable[[Plan], list[str]]
"""Gives lines about what a training will take."""
OF_ANSWERS = ("train.batch_size", "train.micro_batch", "train.precision", "train.multimask")
"""The settings of a training that an evaluation uses too."""


def train(
    config: RunConfig,
    display: Display,
    forecast: Forecaster | None = None,
    name: str | None = None,
) -> Tree:
    """Fine-tunes, measures zero-shot and tuned on the test split, and writes the run folder.

    With several processes, the main one writes, and each returns the summary.

    All data and the base are checked before the folder is created, and a run that ends before it
    can be resumed leaves no folder.

    Args:
        config: With ``resume`` set, that of the earlier run; see
            :func:`samtune.runs.words.from_words`.
        display: The output for the user.
        forecast: Gives lines of the first screen about what the training will take.
        name: The name of the folder below ``runs``, if ``output`` is not set.

    Raises:
        InputError: The configuration, data, weights or folder are wrong.
        KeyboardInterrupt: With how to go on as its message.
    """
    start = time.perf_counter()
    if config.preset is not None:
        raise InputError(
            f"preset={config.preset}: samtune train, demo and plan take it; give the settings that "
            f"samtune plan preset={config.preset} names instead"
        )
    if config.strength is not None:
        raise InputError(
            f"strength={setting_text(config.strength)}: of a checkpoint that is used; set "
            "train.strength for that of a training"
        )
    check_trackers(config.train.trackers)
    if config.resume is None:
        check_output(config.output, config.data.root)
    refuse_taken(config.output, config.resume)
    if (summary := finished_summary(config)) is not None:
        display.say(f"all is done: {config.resume} has its {summary['steps']} steps")
        return summary
    if config.resume is not None:
        goes_on(as_path(config.resume), resume=True)
        refuse_folders(as_path(config.resume))
    with together(config.device == "cpu"):
        return _train(config, display, start, forecast or (lambda plan: []), name)


def _train(
    config: RunConfig, display: Display, begun_at: float, forecast: Forecaster, name: str | None
) -> Tree:
    plan = plan_training(config)
    config, names = plan.config, (config.adapter["name"], config.decoder["name"])
    name = name or default_name(*names, config.base.name, data_name(config))
    with run_folder(config.output, name, config.resume) as folder:
        begun = config.resume is not None and has_state(folder / LAST)
        plan.remarks.extend(from_main(lambda: _mended(folder)) if begun else [])
        _announce(plan, folder, display, forecast(plan) if is_main() else [])
        log = Log(folder, display, resume=begun)
        if is_main() and not begun:
            _write_plan(plan, folder)
        outside = Outside(time.perf_counter() - begun_at, _images_after(plan))
        result = _fit(plan, folder, log, begun, outside)
        entry = fit_after_training(plan.model, plan.val, config, plan.looks, folder / BEST, display)
        test = _with_kept(plan, result)
        summary, pictures = compare_with_base(plan.baseline, plan.model, test, config, display)
        summary |= {**_costs(plan.model, config, result.seconds), "steps": result.steps}
        summary |= {"length": length_of(config), **(entry or {})}
        summary |= {"checkpoint": str(folder / BEST), "title": _title(config)}
        summary |= {**plan.model.strength.entries, "selection": selection(result, plan.settings)}
        left_out, short = _left_out(result, config), shortfalls(summary["by_prompt"])
        summary["diagnoses"], misfits = plan.examination.causes(log.rows, folder, display)
        summary["verdict"], *about = verdict(result, plan.settings, summary["diagnoses"])
        _tell([*left_out, *about, *short], display, summary["diagnoses"])
        remarks = [*plan.remarks, *left_out, summary["verdict"], *about, *short]
        return _write_results(folder, summary, config, remarks, log.rows, pictures, misfits)


def _announce(plan: Plan, folder: Path, display: Display, more: Sequence[str]) -> None:
    """Shows what the training is about to do, and what is remarkable of its data."""
    display.say(of_training(plan, folder, more))
    _tell(plan.remarks, display)


def _write_plan(plan: Plan, folder: Path) -> None:
    """Writes settings, splits and digests of the files; those of an interrupted run stay."""
    if plan.config.resume is None:
        write_whole(folder / CONFIG, _yaml(plan.config.tree()))
    write_split(folder / SPLIT, plan.parts)
    settings = settings_digest(read_tree(folder / CONFIG))
    write_digests(folder, plan.parts, plan.looks, plan.layout, settings)


def _images_after(plan: Plan) -> int:
    """How many images are measured after the training: by base and model, with each prompt mode."""
    one_more = plan.config.prompts.eval == AUTO  # what the training must keep
    modes = len(plan.test) + one_more
    return 2 * modes * len(next(iter(plan.test.values())))


def _fit(plan: Plan, folder: Path, log: Log, begun: bool, outside: Outside) -> FitResult:
    config, display = plan.config, log.display
    images = images_per_step(plan.settings)
    return fit(
        plan.model,
        plan.train,
        plan.val,
        plan.settings,
        output=folder,
        resume="anew" if begun and config.resume_changed else begun,
        seed=config.seed,
        on_event=log,
        progress=lambda done, total: display.step(
            done, total, images, peak_memory(plan.model.device)
        ),
        header={
            "config": without_places(config.tree()),
            "precision": arithmetic(config.train.precision, plan.model.device),
        },
        device=None if config.device == "auto" else config.device,
        measuring=config.eval,
        outside=outside,
        automatic=changed_settings(config),
    )


def _with_kept(plan: Plan, result: FitResult) -> dict[str, SegmentationDataset]:
    """The test data sets, with ``prompts.eval=auto`` also for the prompts that were kept."""
    test, first = plan.test, next(iter(plan.test.values()))
    kept = result.kept_modes if plan.config.prompts.eval == AUTO else ()
    return test | {mode: first.with_prompts(mode) for mode in kept if mode not in test}


def evaluate_run(
    source: str, words: Sequence[str], display: Display, among_others: bool = False
) -> Tree:
    """Measures a checkpoint, or a base by its name, on a data set; zero-shot stands beside tuned.

    Args:
        source: A checkpoint's path, or the name of a base for its zero-shot result alone.
        words: ``key=value`` and YAML files, over the settings of the checkpoint.
        display: The output for the user.
        among_others: Whether other models are measured too, so that an automatic mode that this
            model cannot do is left out instead of refused.

    Raises:
        InputError: The checkpoint, configuration or data are wrong, or a setting contradicts the
            checkpoint, or the model cannot do an automatic mode.
    """
    model = Source.of(source, words)
    model.refuse_damaged_run(words)
    config = model.configure(words)
    unused = [key for key in keys_in(words) if not is_used_in_evaluation(key)]
    if config.data.cache_folder is None:  # and it has no run's folder that outlives it
        unused += [key for key in keys_in(words) if key == "data.disk_cache"]
    if unused:
        display.say(f"note: {', '.join(unused)}: without effect in an evaluation")
    check_output(config.output, config.data.root)
    refuse_taken(config.output, None)  # before the processes meet: one of them makes the folder
    with together(config.device == "cpu"):
        return _evaluate(model, config, display, among_others, chosen_keys(words))


def is_used_in_evaluation(key: str) -> bool:
    """Whether an evaluation uses a setting: of the training's only how answers are computed."""
    return key in OF_ANSWERS or key.partition(".")[0] not in ("train", "resume", "preset")


def _evaluate(
    source: Source,
    config: RunConfig,
    display: Display,
    among_others: bool,
    chosen_names: Collection[str],
) -> Tree:
    start = time.perf_counter()
    whole = source.model(config)
    model, baseline = (None, whole) if source.is_base else (whole, whole.plain())
    left_out: list[str] = []
    if among_others:
        config, left_out = with_able_modes(whole, config)
    layout = find(config.data)
    parts, remarks, run = source.parts_to_measure(layout, config, config.data.split)
    records = select(parts, config.data.split)
    about = (model and model.about) or {}
    thorough = run is not None or bool(splits_on_disk(layout) or fitted_on(about))
    look = check_splits({config.data.split: records}, config, thorough=thorough)
    remarks += [*left_out, *leaks(look.looks, layout, config)]
    remarks += [*look.remarks, *one_target_remark(config), *frame_remarks(model, baseline)]
    remarks += altered(run, parts, look.looks, config.resume_changed)
    test = test_sets(config, model or baseline, records)
    if model is not None and config.data.split in ("val", "test"):
        remarks += _trained_on(source, records, layout, config)
    remarks += flattered(about, look.looks, test)
    display.say(of_evaluation(model or baseline, source.word, config, look.counts, test))
    path = Path(source.word)
    stem = path.parent.name if path.name == BEST else path.stem
    # the folder and the disk, before the long measurement
    with run_folder(config.output, f"eval-{stem}-{data_name(config)}") as folder:
        how = config, display, chosen_names
        summary, pictures = compare_with_base(baseline, model, test, *how)
        summary |= _costs(model or baseline, config, time.perf_counter() - start)
        summary |= {"checkpoint": None if model is None else source.word}
        summary |= {} if model is None else model.strength.entries
        summary |= {k: v for k, v in about.items() if k in WAYS}
        summary["title"] = f"{stem} on {data_name(config)}, {config.data.split}"
        remarks += shortfalls(summary["by_prompt"])
        kinds = {kind_of(mode) for mode in test if mode not in AUTOMATIC}
        if model is not None and kinds and not kinds & model.prompt_modes.kinds:
            remarks.append(f"trained with prompt {model.prompts}, evaluated with {', '.join(test)}")
        _tell(remarks, display)
        return _write_results(folder, summary, config, remarks, [], pictures)


def _trained_on(
    source: Source, records: Sequence[Record], layout: SplitRecords, config: RunConfig
) -> list[str]:
    """A remark if measured images were used in training.

    Splits made by samtune change when files are added; the list of a run's images is beside its
    checkpoint.
    """
    roots = [_place(str(r)) for r in (source.training_data().get("root"), config.data.root)]
    if roots[0] != roots[1]:
        return []
    again = set(records) & trained_images(Path(source.word).parent, layout)
    if not again:
        return []
    return [
        f"{len(again)} of the {len(records)} images were trained on, as {SPLIT} beside the "
        "checkpoint says, so the numbers flatter; keep splits in folders when files are added"
    ]


def _place(folder: str) -> Path:
    return as_path(folder).resolve()


def _mended(folder: Path) -> list[str]:
    """A remark if the newest state of a run is damaged and the previous one replaces it."""
    line = mend_state(folder / LAST)
    return [line] if line else []


def _title(config: RunConfig) -> str:
    return f"{config.adapter['name']} + {config.decoder['name']} on {data_name(config)}"


def _costs(model: FineTuned, config: RunConfig, seconds: float) -> Tree:
    return {
        "precision": arithmetic(config.train.precision, model.device),
        "trainable_parameters": model.trainable(),
        "total_parameters": sum(p.numel() for p in model.sam.parameters()) + model.trainable(),
        "seconds": round(seconds, 3),
        "peak_memory_bytes": peak_memory(model.device),
    }


def _tell(remarks: Sequence[str], display: Display, causes: Sequence[str] = ()) -> None:
    for remark in remarks:
        display.say(f"note: {remark}")
    for cause in causes:
        display.say(f"likely cause: {cause}")


def _left_out(result: FitResult, config: RunConfig) -> list[str]:
    remarks, setting = [], f"train.feature_cache={as_word(config.train.feature_cache)}"
    if result.left_out:
        remarks.append(
            f"{result.left_out} images did not fit into {setting}, and were encoded every time"
        )
    if result.samples_left_out:
        remarks.append(
            f"{counted(result.samples_left_out, 'image')} did not fit into "
            f"data.disk_cache={config.data.disk_cache}, and were decoded every time"
        )
    if result.damaged:
        remarks.append(f"{result.damaged} results of {setting} were damaged, and computed anew")
    if result.cache_failure:
        remarks.append(f"{setting}: the training went on without the disk: {result.cache_failure}")
    return remarks


def _write_results(
    folder: Path,
    summary: Tree,
    config: RunConfig,
    remarks: list[str],
    history: list[dict[str, Any]],
    pictures: RunPictures,
    misfits: Sequence[Overlay] = (),
) -> Tree:
    summary = {**summary, "remarks": remarks, "report": str(folder / "report.html")}
    items = summary.pop("items", [])
    if not is_main():
        return finite(summary)
    from samtune.report.page import Report, write_report

    report = Report(
        title=summary["title"],
        summary=summary,
        command=" ".join(["samtune", *sys.argv[1:]]),
        contract=summary["contract"],
        history=history,
        overlays=pictures.overlays,
        instances=pictures.instances,
        config=config.tree(),
        remarks=remarks,
        misfits=misfits,
    )
    write_report(folder, report)
    write_items(folder, items)
    summary = finite(summary)
    write_summary(folder, summary)
    return summary


def _yaml(tree: Tree) -> str:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
