"""The jobs of the command line: train and evaluate on a configuration, into a run folder."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from samtune.checkpoint import load, read_header
from samtune.comparison import compare_with_base, measure, numbers
from samtune.config import RunConfig, Tree, parse_override, resolve
from samtune.data import SegmentationDataset, Summary, scan, select, splits, write_split
from samtune.display import Display
from samtune.engine import FitResult, fit, peak_memory
from samtune.errors import InputError
from samtune.finetuned import FineTuned
from samtune.predictor import Predictor
from samtune.sam.model import SPECS, Sam
from samtune.sam.weights import load_sam
from samtune.types import InputPolicy

if TYPE_CHECKING:
    from samtune.overlays import Overlay


def train(config: RunConfig, display: Display) -> Tree:
    """Fine-tunes, measures zero-shot and tuned on the test split, and writes the run folder.

    All of the data and the base are checked before the folder is made.

    Raises:
        InputError: Wrong configuration, data, weights or folder.
    """
    if config.resume is not None:
        config = _resumed(config)
    parts = splits(config.data)
    remarks = _checked(parts, config, display)
    model, baseline = _models(config)
    folder = _run_folder(config, model)
    data = {
        name: _dataset(config, model, parts[name], name == "train") for name in ("train", "val")
    }
    test = {mode: _dataset(config, model, parts["test"], False, mode) for mode in modes(config)}
    (folder / "config.yaml").write_text(_yaml(config.tree()), "utf-8")
    write_split(folder / "split.json", parts)
    log = _Log(folder / "metrics.jsonl", display, append=config.resume is not None)
    if config.resume is None:
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
        header={"config": config.tree()},
    )
    summary, shown = compare_with_base(baseline, model, test, config, display)
    summary |= _costs(model, result.seconds)
    summary |= {"checkpoint": str(folder / "best.safetensors"), "steps": result.steps}
    method = f"{config.adapter['name']} + {config.decoder['name']}"
    summary["title"] = f"{method} on {_data_name(config)}"
    return _written(folder, summary, config, remarks + _training_remarks(result), log.rows, shown)


def evaluate_run(source: str, words: Sequence[Tree], display: Display) -> Tree:
    """Measures a checkpoint, or a base by its name, on a data set; zero-shot stands beside tuned.

    Args:
        source: A checkpoint's path, or the name of a base for its zero-shot result alone.
        words: Settings over those of the checkpoint.
        display: Where to speak.

    Raises:
        InputError: Wrong checkpoint, configuration or data.
    """
    start = time.perf_counter()
    if source in SPECS and not Path(source).exists():
        first: Tree = {
            "base": {"name": source},
            "adapter": {"name": "none"},
            "decoder": {"name": "frozen"},
        }
        config = resolve([first, *words])
        baseline, model = _models(config)[1], None
    else:
        config = resolve([{**read_header(source).get("config", {}), "output": None}, *words])
        model = load(source, config.base.weights, any_base=config.base.any)
        model = model.to(_device(config))
        baseline = FineTuned(model.sam, input=model.input)
    records = select(splits(config.data), config.data.split)
    remarks = _checked({config.data.split: records}, config, display)
    test = {
        mode: _dataset(config, model or baseline, records, False, mode) for mode in modes(config)
    }
    folder = _eval_folder(config, source)
    summary, shown = compare_with_base(baseline, model, test, config, display)
    summary |= _costs(model or baseline, time.perf_counter() - start)
    summary |= {"checkpoint": None if model is None else source}
    summary["title"] = f"{Path(source).stem} on {_data_name(config)}, {config.data.split}"
    if model is not None and model.prompts not in (*modes(config), "mixed"):
        remarks.append(
            f"trained with prompt {model.prompts}, evaluated with {', '.join(modes(config))}"
        )
    return _written(folder, summary, config, remarks, [], shown)


def predictor_of(source: str, words: Sequence[str]) -> Predictor:
    """A predictor over a checkpoint, or over a base by its name.

    Args:
        source: A checkpoint's path, or the name of a base.
        words: ``base.*`` and ``device`` settings as ``key=value``.

    Raises:
        InputError: Wrong checkpoint, base or settings.
    """
    trees = [parse_override(word) for word in words]
    if source in SPECS and not Path(source).exists():
        plain = {"adapter": "none", "decoder": "frozen", "base": {"name": source}}
        model = _models(resolve([plain, *trees]))[1]
        model.prompts = "mixed"
        return model.predictor()
    config = resolve([read_header(source).get("config", {}), *trees])
    model = load(source, config.base.weights, any_base=config.base.any, device=_device(config))
    return model.predictor()


class _Log:
    """Appends events to ``metrics.jsonl`` and shows them."""

    def __init__(self, path: Path, display: Display, append: bool) -> None:
        self.path, self.display = path, display
        self.rows: list[dict[str, Any]] = []
        if append and path.is_file():
            self.rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        elif path.exists():
            path.unlink()

    def __call__(self, event: dict[str, Any]) -> None:
        self.rows.append(event)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(event)) + "\n")
        self.display.event(event)


def _models(config: RunConfig) -> tuple[FineTuned, FineTuned]:
    """The model to tune and the plain base beside it, over one and the same frozen base."""
    base = config.base
    torch.manual_seed(config.seed)
    sam = load_sam(base.name, base.weights, download=base.download, device=_device(config))
    policy = InputPolicy(_frame(config, sam), config.input.resize)
    options = {
        part: {key: value for key, value in tree.items() if key != "name"}
        for part, tree in (("adapter", config.adapter), ("decoder", config.decoder))
    }
    model = FineTuned(
        sam,
        config.adapter["name"],
        config.decoder["name"],
        input=policy,
        adapter_options=options["adapter"],
        decoder_options=options["decoder"],
        prompts=_joined(config.prompts.train),
    )
    return model.to(sam_device(sam)), FineTuned(sam, input=policy)


def sam_device(sam: Sam) -> torch.device:
    """Where a base lies."""
    return sam.image_encoder.pos_embed.device


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
        return config.device
    if torch.cuda.is_available():
        return f"cuda:{torch.cuda.current_device()}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


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


def _checked(parts: Mapping[str, Any], config: RunConfig, display: Display) -> list[str]:
    """Looks at every file once; returns what the reader should know."""
    remarks = []
    for name, records in parts.items():
        if not records:
            missing = f"{config.data.root}: the {name} split is empty"
            raise InputError(f"{missing}; add pairs, or let one split be made of all")
        summary: Summary = scan(records, config.data)
        display.say(f"{name}: {summary.images} images, {summary.objects} objects")
        if summary.empty:
            remarks.append(f"{name}: {summary.empty} of {summary.images} images have no object")
            display.say(f"  {remarks[-1]}")
    return remarks


def _costs(model: FineTuned, seconds: float) -> Tree:
    return {
        "trainable_parameters": model.trainable(),
        "total_parameters": sum(p.numel() for p in model.sam.parameters()) + model.trainable(),
        "seconds": round(seconds, 3),
        "peak_memory_bytes": peak_memory(model.device),
    }


def _training_remarks(result: FitResult) -> list[str]:
    if result.best is None:
        return []
    return [f"best validation at step {result.best['step']} of {result.steps}"]


def _written(
    folder: Path,
    summary: Tree,
    config: RunConfig,
    remarks: list[str],
    history: list[dict[str, Any]],
    shown: Sequence[Overlay],
) -> Tree:
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
    summary = {**summary, "remarks": remarks, "report": str(write_report(folder, report))}
    summary = _finite(summary)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
    return summary


def _run_folder(config: RunConfig, model: FineTuned) -> Path:
    """The run's folder, made now: nothing is written before all input has been checked."""
    if config.resume is not None:
        return Path(config.resume).expanduser()
    if not model.trainable():
        raise InputError(
            f"adapter.name={config.adapter['name']} decoder.name={config.decoder['name']}: nothing "
            "to train; set decoder.name=tuned or an adapter (samtune methods)"
        )
    parts = (config.adapter["name"], config.decoder["name"], config.base.name, _data_name(config))
    return _fresh(config.output, "-".join(parts))


def _eval_folder(config: RunConfig, source: str) -> Path:
    path = Path(source)
    stem = path.parent.name if path.name == "best.safetensors" else path.stem
    return _fresh(config.output, f"eval-{stem}-{_data_name(config)}")


def _fresh(wanted: str | None, name: str) -> Path:
    if wanted is not None:
        folder = Path(wanted).expanduser()
        if (folder / "config.yaml").exists() or (folder / "summary.json").exists():
            raise InputError(
                f"output={wanted}: holds a run already; choose another folder, or go on with "
                f"resume={wanted}"
            )
    else:
        folder = Path("runs") / name
        count = 2
        while folder.exists():
            folder = Path("runs") / f"{name}-{count}"
            count += 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output={folder}: cannot be made ({error}); choose another") from error
    return folder


def _resumed(config: RunConfig) -> RunConfig:
    """The configuration of the run to go on with; only its length may differ."""
    from samtune.config import read_tree

    folder = Path(str(config.resume)).expanduser()
    if not (folder / "config.yaml").is_file():
        raise InputError(f"resume={config.resume}: no run here; give a folder with config.yaml")
    earlier = resolve([read_tree(folder / "config.yaml")])
    longer = dataclasses.replace(
        earlier.train, max_steps=config.train.max_steps or earlier.train.max_steps
    )
    return dataclasses.replace(earlier, resume=str(folder), train=longer)


def _data_name(config: RunConfig) -> str:
    return config.data.name or Path(config.data.root or "data").expanduser().resolve().name


def _joined(mode: str | Sequence[str]) -> str:
    return mode if isinstance(mode, str) else "+".join(mode)


def _yaml(tree: Tree) -> str:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _finite(value: Any) -> Any:
    """JSON has no NaN: what was not measured is null."""
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
