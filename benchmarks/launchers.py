"""The same comparison one run after another, side by side, and on a Ray cluster of two nodes.

    python benchmarks/launchers.py OUT_FOLDER [KEY=VALUE ...] > benchmarks/results/launchers.md

The nodes are two of one machine, with one CPU each (``ray.cluster_utils.Cluster``), so that nothing
is faster than side by side; what is shown is that the tables are equal, and what starting costs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tables import table

from samtune.assets import demo_data

WORDS = (
    "methods=decoder,lora", "seeds=2", "shots=4", "train.max_steps=30", "device=cpu",
    "data.masks=instance", "input.tiles=whole",
)  # fmt: skip
NODES = 2
LAUNCHERS = {
    "sequential": ("launcher=sequential",),
    "local": ("launcher=local", f"jobs={NODES}"),
    "ray": ("launcher=ray",),
}
SAME = ("method", "shots", "seeds", "iou", "dice", "trainable_parameters")
"""What must be equal in all."""


def measure(launcher: str, folder: Path, more: Sequence[str]) -> dict[str, float]:
    """Runs one comparison with further settings; its seconds by the clock."""
    words = [*WORDS, *more, *LAUNCHERS[launcher], f"data.root={demo_data()}", f"output={folder}"]
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "samtune", "compare", *words, "--quiet"], check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return {"seconds": time.perf_counter() - start}


def rows_of(folder: Path) -> list[dict[str, object]]:
    """What must be equal, of each row of a comparison."""
    rows = json.loads((folder / "comparison.json").read_text("utf-8"))["rows"]
    return [{key: row[key] for key in SAME} for row in rows]


def main() -> None:
    """Prints the page; fails if the tables differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("words", nargs="*", help="further settings, also in place of those here")
    options = parser.parse_args()
    out = options.out
    os.environ["OMP_NUM_THREADS"] = "1"  # sums in another order would differ in the last digits
    results = {}
    for launcher in LAUNCHERS:
        cluster = None
        if launcher == "ray":
            from ray.cluster_utils import Cluster

            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
            for _ in range(NODES - 1):
                cluster.add_node(num_cpus=1)
            os.environ["RAY_ADDRESS"] = cluster.address
        results[launcher] = measure(launcher, out / launcher, options.words)
        if cluster is not None:
            cluster.shutdown()
    expected = rows_of(out / "sequential")
    same = {launcher: rows_of(out / launcher) == expected for launcher in LAUNCHERS}
    print(__doc__.replace('"""', "").split("\n")[0], end="\n\n")
    print(f"    samtune compare {' '.join([*WORDS, *options.words])} launcher=...\n")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, no GPU; {len(expected)} rows of the demo's "
        "nuclei.\n"
    )
    base = results["sequential"]["seconds"]
    print(table(
        ("launcher", "seconds", "to sequential", "same table"),
        [
            (name, f"{row['seconds']:.0f}", f"{row['seconds'] / base:.2f}", str(same[name]).lower())
            for name, row in results.items()
        ],
    ))  # fmt: skip
    sys.exit(not all(same.values()))


if __name__ == "__main__":
    main()
