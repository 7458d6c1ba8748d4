r"""Writes the averaged weights of a run as the file that the package ships.

    python training/export_nano.py runs/nano/last --out src/samtune/assets/nano.safetensors \
        --log training/log

Half precision, the official parameter names; the header says what it is and how it was made. The
printed sha256 is that of the file; ``PACKAGED`` in ``samtune.sam.weights`` holds it, for the check
when it is loaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from samtune.sam.model import Sam
from samtune.sam.spec import SPECS

LIMIT = 8 * 2**20


def weights_digest(weights: dict[str, torch.Tensor]) -> str:
    """sha256 over names and bytes of the tensors in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def export(run: Path, out: Path) -> str:
    """Writes ``out`` from the checkpoint folder ``run``; returns the file's sha256.

    Raises:
        ValueError: The weights do not fit the spec, are not finite or are too large.
    """
    weights = {k: v.half().contiguous() for k, v in load_file(run / "ema.safetensors").items()}
    Sam(SPECS["nano"]).load_state_dict({k: v.float() for k, v in weights.items()})
    if not all(bool(v.isfinite().all()) for v in weights.values()):
        raise ValueError(
            f"{run}: a weight is not finite in half precision; take another checkpoint"
        )
    state = json.loads((run / "state.json").read_text())
    about = {
        "format": "samtune base 1",
        "spec": json.dumps(asdict(SPECS["nano"])),
        "weights_sha256": weights_digest(weights),
        "license": "Apache-2.0",
        "trained": "by training/train_nano.py on procedural scenes; averaged weights",
        "settings": json.dumps(state["settings"]),
        "steps": str(state["step"]),
        "minutes": f"{state['seconds'] / 60:.0f}",
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, out, metadata=about)
    if out.stat().st_size > LIMIT:
        raise ValueError(f"{out}: {out.stat().st_size} bytes; the package takes at most {LIMIT}")
    return hashlib.sha256(out.read_bytes()).hexdigest()


def keep_log(run: Path, folder: Path, block: int = 50) -> None:
    """Writes means of every ``block`` steps, the validation and the curve into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    with (folder / "log.jsonl").open("w") as file:
        for start in range(0, len(steps), block):
            part = steps[start : start + block]
            row = {"step": part[-1]["step"], "minutes": round(part[-1]["seconds"] / 60, 2)}
            for key in ("rate", "loss1", "edge", "iou_box", "iou_point", "iou_none", "iou3"):
                found = [r[key] for r in part if key in r and not math.isnan(r[key])]
                row[key] = round(sum(found) / len(found), 4) if found else None
            file.write(json.dumps(row) + "\n")
    for name in ("validation.jsonl", "curve.svg"):
        shutil.copy(run / name, folder / name)


def main() -> None:
    """Reads the options, writes the file, prints its size and hash."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "run", type=Path, help="checkpoint folder of train_nano.py, such as runs/nano/last"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, help="folder that keeps the run's log and curve")
    args = parser.parse_args()
    if args.log:
        keep_log(args.run.parent, args.log)
    digest = export(args.run, args.out)
    print(json.dumps({"file": str(args.out), "bytes": args.out.stat().st_size, "sha256": digest}))


if __name__ == "__main__":
    main()
