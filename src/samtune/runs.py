"""The jobs of the command line: train and evaluate on a configuration, into a run folder."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from samtune.checkpoint import load, read_header
from samtune.comparison import compare_with_base, measure, numbers
from samtune.config import RunConfig, Tree, layers, resolve
from samtune.data import SegmentationDataset, Summary, scan, select, splits, write_split
from samtune.data.scan import empty_split, no_objects
from samtune.display import Display
from samtune.engine import FitResult, fit, peak_memory
from samtune.errors import InputError
from samtune.finetuned import FineTuned
from samtune.predictor import Predictor
from samtune.processes import is_main, together
from samtune.runfolder import Log, finite, run_folder
from samtune.sam.model import SPECS, Sam
from samtune.sam.weights import load_sam
from samtune.types import InputPolicy

if TYPE_CHECKING:
    from samtune.overlays import Overlay


def train(config: RunConfig, display: Display) -> Tree:
    """Fine-tunes, measures zero-shot and tuned on the test split, and writes the run folder.

    Of several processes the main one writes, and each returns the summary.

    All of the data and the base are checked before the folder is made, and a run that ends before
    there is anything to resume leaves no folder.

    Args:
        config: With ``resume`` set, that of the earlier run; see
            :func:`samtune.config.from_words`.
        display: Where to speak.

    Raises:
        InputError: Wrong configuration, data, weights or folder.
        KeyboardInterrupt: With how to go on as its message.
    """
    with together(config.device == "cpu"):
        return _train(config, display)


def _train(config: RunConfig, display: Display) -> Tree:
    parts = splits(config.data)
    counts, remarks = _checked(parts, config)
    model, baseline = _models(config)
    data = {
        name: _dataset(config, model, parts[name], name == "train") for name in ("train", "val")
    }
    test = {mode: _dataset(config, model, parts["test"], False, mode) for mode in modes(config)}
    _check_trainable(config, model)
    names = (config.adapter["name"], config.decoder["name"], config.base.name, _data_name(config))
    with run_folder(config.output, "-".join(names), config.resume) as folder:
        display.settings(config.tree())
        display.say(counts)
        log = Log(folder, display, resume=config.resume is not None)
        if config.resume is None:
            if is_main():
                (folder / "config.yaml").write_text(_yaml(config.tree()), "utf-8")
                write_split(folder / "split.json", parts)
            before = measure(baseline, data["val"], config, display, "zero-shot, validation")
            log({"event": "zero_shot", "step": 0, **numbers(before)})
        result = fit(
            model,
            data["train"],
            data["val"],
            config.train,
            output=folder,
            resume=config.resume is not None,
            seed=config.seed,
            on_event=log,
            header={"config": {**config.tree(), "output": None, "resume": None}},
            cpu=config.device == "cpu",
        )
        summary, shown = compare_with_base(baseline, model, test, config, display)
        summary |= _costs(model, result.seconds)
        summary |= {"checkpoint": str(folder / "best.safetensors"), "steps": result.steps}
        method = f"{config.adapter['name']} + {config.decoder['name']}"
        summary["title"] = f"{method} on {_data_name(config)}"
        remarks += _training_remarks(result, config)
        return _written(folder, summary, config, remarks, log.rows, shown)


def evaluate_run(source: str, words: Sequence[str], display: Display) -> Tree:
    """Measures a checkpoint, or a base by its name, on a data set; zero-shot stands beside tuned.

    Args:
        source: A checkpoint's path, or the name of a base for its zero-shot result alone.
        words: ``key=value`` and YAML files, over the settings of the checkpoint.
        display: Where to speak.

    Raises:
        InputError: Wrong checkpoint, configuration or data.
    """
    config = resolve([_settings_of(source), *layers(words)])
    with together(config.device == "cpu"):
        return _evaluate(source, config, display)


def _evaluate(source: str, config: RunConfig, display: Display) -> Tree:
    start = time.perf_counter()
    if _is_base(source):
        baseline, model = _models(config)[1], None
    else:
        model = load(source, config.base.weights, any_base=config.base.any)
        model = model.to(_device(config))
        # Images come as the tuned model's, normalised as the base was trained.
        baseline = FineTuned(model.sam, input=replace(model.input, mean=None, std=None))
    records = select(splits(config.data), config.data.split)
    counts, remarks = _checked({config.data.split: records}, config)
    test = {
        mode: _dataset(config, model or baseline, records, False, mode) for mode in modes(config)
    }
    display.say(counts)
    summary, shown = compare_with_base(baseline, model, test, config, display)
    summary |= _costs(model or baseline, time.perf_counter() - start)
    summary |= {"checkpoint": None if model is None else source}
    summary["title"] = f"{Path(source).stem} on {_data_name(config)}, {config.data.split}"
    if model is not None and model.prompts not in (*modes(config), "mixed"):
        remarks.append(
            f"trained with prompt {model.prompts}, evaluated with {', '.join(modes(config))}"
        )
    path = Path(source)
    stem = path.parent.name if path.name == "best.safetensors" else path.stem
    with run_folder(config.output, f"eval-{stem}-{_data_name(config)}") as folder:
        return _written(folder, summary, config, remarks, [], shown)


def predictor_of(source: str, words: Sequence[str]) -> Predictor:
    """A predictor over a checkpoint, or over a base by its name.

    Args:
        source: A checkpoint's path, or the name of a base.
        words: ``base.*`` and ``device`` settings as ``key=value``.

    Raises:
        InputError: Wrong checkpoint, base or settings.
    """
    config = resolve([_settings_of(source), *layers(words)])
    if _is_base(source):
        model = _models(config)[1]
        model.prompts = "mixed"
        return model.predictor()
    model = load(source, config.base.weights, any_base=config.base.any, device=_device(config))
    return model.predictor()


def _models(config: RunConfig) -> tuple[FineTuned, FineTuned]:
    """The model to tune and the plain base beside it, over one and the same frozen base."""
    base = config.base
    torch.manual_seed(config.seed)
    device = _device(config)
    if config.train.precision == "fp16" and device == "cpu":
        raise InputError("train.precision=fp16: needs a GPU; choose bf16 or fp32")
    sam = load_sam(base.name, base.weights, download=base.download, device=device)
    policy = InputPolicy(_frame(config, sam), config.input.resize)
    options = {
        part: {key: value for key, value in tree.items() if key != "name"}
        for part, tree in (("adapter", config.adapter), ("decoder", config.decoder))
    }
    try:
        model = FineTuned(
            sam,
            config.adapter["name"],
            config.decoder["name"],
            input=policy,
            adapter_options=options["adapter"],
            decoder_options=options["decoder"],
            prompts=_joined(config.prompts.train),
        )
    except InputError:
        raise
    except ValueError as error:  # a layer of torch refuses an option's value
        words = " ".join(f"adapter.{key}={value}" for key, value in options["adapter"].items())
        raise InputError(
            f"{words}: {error}; see samtune methods {config.adapter['name']}"
        ) from error
    return model.to(sam.device), FineTuned(sam, input=policy)


def _frame(config: RunConfig, sam: Sam) -> tuple[int, int]:
    size = config.input.size
    if size is None:
        return (sam.spec.image_size,) * 2
    h, w = (size, size) if isinstance(size, int) else size
    patch = sam.spec.patch_size
    if h % patch or w % patch or h <= 0 or w <= 0:
        up = tuple(max(patch, -(-side // patch) * patch) for side in (h, w))
        raise InputError(
            f"input.size={size}: both sides must be positive multiples of {patch}, the patch of "
            f"{sam.spec.name}; try {list(up)}"
        )
    return h, w


def _device(config: RunConfig) -> str:
    if config.device != "auto":
        return _asked_device(config.device)
    if torch.cuda.is_available():
        return f"cuda:{torch.cuda.current_device()}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _asked_device(name: str) -> str:
    try:
        torch.empty(1, device=name)
        if name.startswith("cuda:"):
            torch.cuda.set_device(name)  # where accelerate puts the model
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise InputError(f"device={name}: {reason}; choose cpu, cuda, mps or auto") from error
    return name


def _dataset(
    config: RunConfig,
    model: FineTuned,
    records: Sequence[Any],
    train: bool,
    mode: str | None = None,
) -> SegmentationDataset:
    stride = model.stride
    h, w = model.input.size
    return SegmentationDataset(
        records,
        config.data,
        model.input.size,
        resize=model.input.resize,
        input=model.input,
        prompts=config.prompts,
        mask_size=(4 * h // stride, 4 * w // stride),
        train=train,
        mode=mode if train or mode is not None else modes(config)[0],
        seed=config.seed,
    )


def modes(config: RunConfig) -> list[str]:
    """The prompt modes of evaluation, one after another; ``mixed`` is the three it mixes."""
    from samtune.data import PROMPTERS

    asked = config.prompts.eval
    names = [asked] if isinstance(asked, str) else list(asked)
    return list(dict.fromkeys(m for n in names for m in (PROMPTERS if n == "mixed" else [n])))


def _checked(parts: Mapping[str, Any], config: RunConfig) -> tuple[str, list[str]]:
    """Looks at every file once; returns the counts, and what the reader should know of them."""
    remarks, counts = [], []
    for name, records in parts.items():
        if not records:
            raise empty_split(name, config.data)
        summary: Summary = scan(records, config.data)
        counts.append(f"{name}: {summary.images} images, {summary.objects} objects")
        if name == "train" and not summary.objects:
            raise no_objects(summary.images, config.data)
        if summary.empty:
            remarks.append(f"{name}: {summary.empty} of {summary.images} images have no object")
            counts[-1] += f" ({summary.empty} images without any)"
    return "\n".join(counts), remarks


def _is_base(source: str) -> bool:
    """Whether a base's name is meant, and no file of that name."""
    return source in SPECS and not Path(source).exists()


def _settings_of(source: str) -> Tree:
    """The settings that a checkpoint was trained with, or those of a base alone."""
    if _is_base(source):
        return {
            "base": {"name": source},
            "adapter": {"name": "none"},
            "decoder": {"name": "frozen"},
        }
    header = read_header(source)
    if "config" not in header:  # saved from Python: it says what the model is, not how it was made
        parts = {key: header[key] for key in ("adapter", "decoder")}
        parts["input"] = {key: header["input"][key] for key in ("size", "resize")}
        prompts = {"eval": header["prompts"].split("+")}
        return {"base": {"name": header["base"]["name"]}, "prompts": prompts, **parts}
    tree = header["config"]
    return {key: value for key, value in tree.items() if key not in ("output", "resume", "device")}


def _costs(model: FineTuned, seconds: float) -> Tree:
    return {
        "trainable_parameters": model.trainable(),
        "total_parameters": sum(p.numel() for p in model.sam.parameters()) + model.trainable(),
        "seconds": round(seconds, 3),
        "peak_memory_bytes": peak_memory(model.device),
    }


def _training_remarks(result: FitResult, config: RunConfig) -> list[str]:
    if result.best is None:
        return []
    metric = config.train.metric
    return [
        f"best {metric} on the validation images at step {result.best['step']} of {result.steps}"
    ]


def _written(
    folder: Path,
    summary: Tree,
    config: RunConfig,
    remarks: list[str],
    history: list[dict[str, Any]],
    shown: Sequence[Overlay],
) -> Tree:
    summary = {**summary, "remarks": remarks, "report": str(folder / "report.html")}
    if not is_main():
        return finite(summary)
    from samtune.metrics import METRIC_CONTRACT
    from samtune.report import Report, write_report

    report = Report(
        title=summary["title"],
        summary=summary,
        command=" ".join(["samtune", *sys.argv[1:]]),
        contract=METRIC_CONTRACT,
        history=history,
        overlays=shown,
        config=config.tree(),
        remarks=remarks,
    )
    write_report(folder, report)
    summary = finite(summary)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
    return summary


def _check_trainable(config: RunConfig, model: FineTuned) -> None:
    if not model.trainable():
        raise InputError(
            f"adapter.name={config.adapter['name']} decoder.name={config.decoder['name']}: nothing "
            "to train; set decoder.name=tuned or an adapter (samtune methods)"
        )


def _data_name(config: RunConfig) -> str:
    return config.data.name or Path(config.data.root or "data").expanduser().resolve().name


def _joined(mode: str | Sequence[str]) -> str:
    return mode if isinstance(mode, str) else "+".join(mode)


def _yaml(tree: Tree) -> str:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
