"""The duplicate-code check of ``make lint`` is pylint's; here is the proof that it bites."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def duplicates(folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs pylint on ``folder`` with the project's own settings."""
    return subprocess.run(
        [sys.executable, "-m", "pylint", "--rcfile", ROOT / "pyproject.toml", folder],
        capture_output=True,
        text=True,
        check=False,
    )


def package(folder: Path, lines: int) -> Path:
    """Two modules that share ``lines`` statements, and imports and docstrings that do not count."""
    package = folder / "copied"
    package.mkdir()
    head = (
        '"""The same\nlong\ndocstring\nin\nboth\nof\nthe\nfiles."""\n\nimport json\nimport math\n\n'
    )
    shared = "".join(f"    total += math.sqrt(x + {i})\n" for i in range(lines - 1))
    for name in ("one", "two"):
        own = f"    total = len({name!r}) + x\n"
        (package / f"{name}.py").write_text(
            f"{head}def {name}(x):\n{own}{shared}    return json.dumps(total)\n"
        )
    (package / "__init__.py").touch()
    return package


@pytest.mark.parametrize(("lines", "code"), [(10, 8), (7, 0)])
def test_copies_of_eight_lines_fail(tmp_path, lines, code):
    run = duplicates(package(tmp_path, lines))
    assert run.returncode == code, run.stdout + run.stderr
    assert ("R0801" in run.stdout) == bool(code)


def test_make_lint_runs_it_on_the_sources():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lint = makefile.split("\nlint:")[1].split("\n\n")[0]
    assert "pylint" in lint
    assert "src/samtune" in lint
