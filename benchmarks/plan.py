"""What ``samtune plan`` says, beside what a training then takes.

    python -m benchmarks.plan [ROW ...]

Each of twelve settings is first planned, which times steps of one and of a few images at once, and
then trained by ``fit`` in a process of its own: three steps on drawn images, whose last ones are
measured. Time is that of all processors, so that other programs on the machine do not count;
memory is the peak of the resident set less what the process had before the model was built.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from samtune.planning.forecast import Forecast
from samtune.planning.load import Load
from samtune.planning.trial import run_trials
from samtune.runs.words import from_words

VIT_B = "base.name=vit_b input.size=256"
SETTINGS = (
    "",
    "train.precision=bf16",
    "train.checkpointing=true train.precision=fp32",
    "adapter.name=none",
    "adapter.name=adaptformer train.precision=fp32 train.batch_size=8",
    "input.size=512 train.batch_size=2",
    "prompts.train=point train.keep=none train.batch_size=8",
    "adapter.name=vpt train.batch_size=2 train.precision=fp32",
    f"{VIT_B} train.precision=bf16",
    f"{VIT_B} train.precision=fp32 train.batch_size=2",
    f"{VIT_B} adapter.name=sam_adapter train.precision=bf16",
    f"{VIT_B} adapter.name=none train.precision=fp32",
)
"""Twelve settings: methods, bases, sizes, batches, precisions, recomputed blocks."""
STEPS = 3
RESULTS = Path(__file__).parent / "results"


def row_of(words: str) -> dict[str, object]:
    """The plan of some settings and the training that follows."""
    load = Load(from_words(words.split()))
    at_once = load.config.train.at_once
    forecast = Forecast.of(load, timed=True)
    plain = Forecast(load)
    (real,) = run_trials(load, (at_once,), STEPS)
    seconds = forecast.cpu_seconds() or 0.0
    peak = forecast.peak(at_once)
    return {
        "settings": words or "(defaults)",
        "images": at_once,
        "planned_gb": peak / 1e9,
        "counted_gb": plain.peak(at_once) / 1e9,
        "measured_gb": real.peak / 1e9,
        "memory_off": peak / real.peak - 1,
        "planned_s": seconds,
        "measured_s": real.cpu_seconds,
        "time_off": seconds / real.cpu_seconds - 1,
    }


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| settings | images | planned | counted | measured | off | planned | measured | off |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| `{r['settings']}` | {r['images']} | {r['planned_gb']:.2f} GB "
            f"| {r['counted_gb']:.2f} GB | {r['measured_gb']:.2f} GB | {r['memory_off']:+.0%} "
            f"| {r['planned_s']:.2f} s | {r['measured_s']:.2f} s | {r['time_off']:+.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures the rows that are named by their numbers, or all, and writes what there is."""
    chosen = [int(word) for word in sys.argv[1:]] or range(len(SETTINGS))
    file = RESULTS / "plan.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for number in chosen:
        row = row_of(SETTINGS[number])
        rows = [one for one in rows if one["settings"] != row["settings"]] + [row]
        file.write_text("".join(json.dumps(one) + "\n" for one in rows))
        print(table([row]), flush=True)
    order = [words or "(defaults)" for words in SETTINGS]
    rows.sort(key=lambda one: order.index(one["settings"]))
    print(table(rows))


if __name__ == "__main__":
    main()
