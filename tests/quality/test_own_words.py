"""What is published names data sets and commands, never places on somebody's machine."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Written with the slash as a class, so that this file does not name what it forbids. A slash after
# a word or a dollar belongs to an address or a variable, not to the root of a file system.
EVERYWHERE = re.compile(rb"(?<![\w.~})-])[/](?:work|root|home)[/]|[.][.][/]shared\b")
OUTSIDE_TESTS = re.compile(rb"(?<![\w.~})-])[/]tmp[/]")


def published(root: Path) -> list[Path]:
    """The files that git holds or would add; in an unpacked archive all files but hidden ones."""
    command = [
        "git",
        "-C",
        str(root),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    run = subprocess.run(command, capture_output=True, check=False)
    if run.returncode == 0:
        files = [root / name for name in run.stdout.decode().split("\0") if name]
    else:
        files = [p for p in root.rglob("*") if p.relative_to(root).parts[0][0] != "."]
    return [path for path in files if path.is_file()]


def places(root: Path) -> list[str]:
    """Every mention of a machine's path in the published files under ``root``."""
    found = []
    for path in published(root):
        name, content = path.relative_to(root).as_posix(), path.read_bytes()
        patterns = [EVERYWHERE] if name.startswith("tests/") else [EVERYWHERE, OUTSIDE_TESTS]
        for hit in (match for pattern in patterns for match in pattern.finditer(content)):
            line = content.count(b"\n", 0, hit.start()) + 1
            found.append(f"{name}:{line}: {hit[0].decode()}")
    return found


def test_no_file_names_a_place_of_a_machine():
    assert len(published(ROOT)) > 10
    assert places(ROOT) == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("README.md", "see /" + "work/x", 1),
        ("src/a.py", 'open("/' + 'tmp/x")', 1),
        ("tests/test_a.py", 'Path("/' + 'tmp/x")', 0),
        ("tests/test_a.py", "cd /" + "root/x", 1),
        ("docs/a.md", "data.root=.." + "/shared/data/kvasir", 1),
        ("docs/a.md", "https://example.org/" + "work/ and $HOME/" + "tmp/ and ~/" + "work/", 0),
    ],
)
def test_places_are_reported(tmp_path, name, text, expected):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(f"first line\n{text}\n")
    assert len(places(tmp_path)) == expected
