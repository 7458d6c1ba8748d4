"""The performance of samtune beside the official formulation and transformers, in one run.

    python -m benchmarks run cpu [--rounds 3] [--size 1024] [--only forward,kept,...]
    python -m benchmarks run gpu [--minutes 9]

Run from the root of the repository. ``segment-anything`` is used as the baseline if it is installed
(``pip install --no-deps segment-anything``), else the same formulation written with torch alone.
The table is printed and, with --out FILE, written. The exit code is 1 if a number that does not
depend on the machine, such as bytes or operations, misses its target.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.performance import cpu, gpu, table
from samtune.errors import InputError
from samtune.sam.spec import SPECS


def main(words: list[str] | None = None) -> int:
    """Measures, and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=("run",))
    parser.add_argument("tier", choices=("cpu", "gpu"))
    bases = ("tiny", *SPECS)
    parser.add_argument("--base", default="vit_b", choices=bases, help="specification of the base")
    parser.add_argument("--size", type=int, default=1024, help="pixels of a side")
    parser.add_argument("--depth", type=int, default=0, help="blocks that are timed; 0: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encoders", default="", help="by name, the baseline first; else all")
    parser.add_argument("--only", default="", help="parts of the table, with commas")
    parser.add_argument("--device", default="", help="in place of the tier's own, to try it")
    parser.add_argument("--minutes", type=float, default=9.0, help="of the gpu tier: its limit")
    parser.add_argument("--out", type=Path, help="a Markdown file to write")
    options = parser.parse_args(words)
    tier = {"cpu": cpu, "gpu": gpu}[options.tier]
    rows = table.Table(echo=True)
    rows.note(*table.machine(options.device or tier.DEVICE))
    try:
        tier.measure(options, rows)
    except InputError as error:
        print(f"python -m benchmarks: {error}", file=sys.stderr)
        return 2
    if options.out is not None:
        options.out.write_text(rows.page(tier.TITLE, tier.COMMAND), encoding="utf-8")
    missed = rows.missed
    if missed:
        print(f"missed, and no matter of the machine: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
