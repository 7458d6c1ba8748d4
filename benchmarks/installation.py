"""Installs what is built of the project into empty environments, and uses it in another folder.

    python benchmarks/installation.py WORK [--constraints FILE]

WORK is an empty folder. From the root of the repository a wheel and an sdist are built there. The
wheel is installed with its dependencies and the extra ``instances``, which the demo needs, and with
the plug-in package of the tests; the sdist with its dependencies into a second environment. Then
``samtune demo`` runs, ``samtune methods`` has to list the plug-in, and the package of the sdist has
to find the data that it ships. Packages come from where pip is set up to find them; constraints, as
``constraints.txt``, say in which versions.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = "tests/support/plugin_package"
SHIPPED = (
    "from samtune.assets import demo_data; import samtune; "
    "print(samtune.__file__, len(list(demo_data().rglob('*.png'))))"
)


def run(*words: str | Path, folder: Path) -> str:
    """The output of a command, whose failure ends the script with its output."""
    done = subprocess.run(
        [str(word) for word in words], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def environment(folder: Path, constraints: Path | None, *packages: str | Path) -> Path:
    """The scripts of a new environment with some packages; nothing else is in it."""
    run(sys.executable, "-m", "venv", folder, folder=folder.parent)
    scripts = folder / ("Scripts" if sys.platform == "win32" else "bin")
    limits = () if constraints is None else ("-c", constraints.resolve())
    pip = (scripts / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, *limits, *packages, folder=folder.parent)
    return scripts


def main(words: list[str] | None = None) -> None:
    """Builds, installs and runs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--constraints", type=Path)
    args = parser.parse_args(words)
    work = args.work.resolve()
    elsewhere = work / "elsewhere"
    elsewhere.mkdir(parents=True)
    source = work / "source"
    run("git", "clone", "--quiet", ROOT, source, folder=work)
    builder = environment(work / "builder", args.constraints, "build")
    run(builder / "python", "-m", "build", "--outdir", work / "dist", source, folder=work)
    (wheel,), (sdist,) = (work / "dist").glob("*.whl"), (work / "dist").glob("*.tar.gz")
    start = time.perf_counter()
    scripts = environment(work / "wheel", args.constraints, f"{wheel}[instances]", source / PLUGIN)
    print(f"{wheel.name} and its dependencies: {time.perf_counter() - start:.0f} s", flush=True)
    methods = run(scripts / "samtune", "methods", folder=elsewhere)
    assert "gain" in methods, methods
    print(run(scripts / "samtune", "demo", folder=elsewhere), flush=True)
    scripts = environment(work / "sdist", args.constraints, sdist)
    print(sdist.name, run(scripts / "python", "-c", SHIPPED, folder=elsewhere).strip())


if __name__ == "__main__":
    main()
