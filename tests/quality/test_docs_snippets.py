"""What the documentation shows, runs: the Python and the samtune commands of every page.

A page's steps run in order in one empty folder and one process. A block that cannot run there
has a comment ``<!-- not run: the reason -->`` on the line before it; its commands must still exist,
with their options.
"""

import json
import math
import os
import re
import shlex
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if page.exists()]

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,})(?P<language>\w*).*$")
NOT_RUN = re.compile(r"^ *<!-- not run: \S.* -->$")
SHELL = ("console", "shell", "sh", "bash")

# Runs the steps of pages, each page in a process of its own that starts with what this one has
# imported. `sys.argv[1]` is a file with
# [{"name": page, "folder": path, "steps": [{"python": code, "line": n} or {"command": [words],
# "line": n}]}]. Writes {page: exit code} to stdout, and what a page says to stderr.
#
# A command is a process of its own too, forked from one that has run nothing of the page.
RUNNER = """
import json, os, runpy, socket, sys, traceback

def forked(call, *args):
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        call(*args)
        code = 0
    except SystemExit as end:
        code = end.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

def code_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def command(words):
    sys.argv = words
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)

def run_commands(asked):
    for line in asked.makefile():
        asked.sendall(b"%d\\n" % code_of(forked(command, json.loads(line))))

def run(page):
    os.chdir(page["folder"])
    os.environ["HOME"] = page["folder"]
    os.dup2(2, 1)
    here, there = socket.socketpair()
    forked(lambda: (here.close(), run_commands(there)))
    there.close()
    names, answers = {"__name__": "__main__"}, here.makefile()
    for step in page["steps"]:
        print(f"{page['name']}:{step['line']}", file=sys.stderr, flush=True)
        if "python" in step:
            exec(compile("\\n" * step["line"] + step["python"], page["name"], "exec"), names)
        else:
            here.sendall(json.dumps(step["command"]).encode() + b"\\n")
            code = int(answers.readline())
            assert code == 0, f"{step['command']} returned non-zero exit status {code}"

with open(sys.argv[1], encoding="utf-8") as file:
    pages = json.load(file)
print(json.dumps({page["name"]: code_of(forked(run, page)) for page in pages}))
"""

# Asks for the help of each subcommand in one interpreter: {subcommand: [exit code, text]}.
HELPER = """
import contextlib, io, json, sys
from samtune.cli.main import main
answers = {}
for verb in sys.argv[1:]:
    sys.argv, said, code = ["samtune", verb, "--help"], io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    answers[verb] = [code, said.getvalue()]
print(json.dumps(answers))
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line of its opening fence, whether it runs."""

    language: str
    text: str
    line: int
    runs: bool


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a Markdown page."""
    found, lines, i = [], text.splitlines(), 0
    while i < len(lines):
        opening = FENCE.match(lines[i])
        if opening:
            start, close = i, re.compile(rf"^ *{opening['ticks']}\s*$")
            i = next((j for j in range(i + 1, len(lines)) if close.match(lines[j])), len(lines))
            body = textwrap.dedent("\n".join(lines[start + 1 : i]))
            marked = start > 0 and bool(NOT_RUN.match(lines[start - 1]))
            found.append(Block(opening["language"], body, start + 1, not marked))
        i += 1
    return found


def commands(block: Block) -> list[tuple[int, list[str]]]:
    """The commands of a shell block with their lines; in a console only what follows ``$``."""
    found, lines = [], iter(enumerate(block.text.splitlines(), block.line + 1))
    for number, first in lines:
        line = first
        while line.endswith("\\"):
            line = line[:-1] + next(lines)[1]
        if block.language == "console":
            line = line.removeprefix("$ ") if line.startswith("$ ") else ""
        if words := shlex.split(line, comments=True):
            found.append((number, words))
    return found


def steps(text: str) -> list[dict]:
    """What of a page is to run, in order."""
    found = []
    for block in blocks(text):
        if block.runs and block.language == "python":
            found.append({"python": block.text, "line": block.line})
        elif block.runs and block.language in SHELL:
            found += [
                {"command": words, "line": line}
                for line, words in commands(block)
                if words[0] == "samtune"
            ]
    return found


def shown_commands(text: str) -> list[list[str]]:
    """All commands that a page shows, run or not."""
    shell = [block for block in blocks(text) if block.language in SHELL]
    return [words for block in shell for _, words in commands(block)]


def write_pages(texts: dict[str, str], folder: Path) -> Path:
    """Writes what of pages is to run for RUNNER, each page in a folder of its own."""
    pages = []
    for name, text in texts.items():
        own = folder / name
        own.mkdir(parents=True)
        pages.append({"name": name, "folder": str(own), "steps": steps(text)})
    (folder / "pages.json").write_text(json.dumps(pages), "utf-8")
    return folder / "pages.json"


def run_pages(texts: dict[str, str], folder: Path, source: Path) -> tuple[dict[str, int], str]:
    """Runs the steps of pages by name with another samtune; exit codes, and what they say."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, write_pages(texts, folder)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def unknown_options(commands: list[list[str]], answers: dict[str, tuple[int, str]]) -> list[str]:
    """The subcommands and long options that the program does not have."""
    found = []
    for words in commands:
        code, said = answers[words[1]]
        if code:
            found.append(f"samtune {words[1]}: no such command")
            continue
        options = {word.split("=")[0] for word in words[2:] if word.startswith("--")}
        known = set(re.findall(r"--[\w-]+", said))
        found += [f"samtune {words[1]}: no option {option}" for option in sorted(options - known)]
    return found


@pytest.mark.slow
def test_what_the_pages_show_runs(tmp_path, forks):
    texts = {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in PAGES}
    texts = {name: text for name, text in texts.items() if steps(text)}
    assert len(texts) > 5
    done = forks.start(RUNNER, write_pages(texts, tmp_path), folder=tmp_path)
    assert done.wait() == 0, done.stderr
    assert json.loads(done.stdout) == dict.fromkeys(texts, 0), done.stderr


@pytest.mark.slow
def test_commands_on_the_pages_exist():
    shown = [words for page in PAGES for words in shown_commands(page.read_text("utf-8"))]
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for words in shown:
        if words[0] == "make":
            wanted = {word for word in words[1:] if "=" not in word}
            assert wanted <= targets, f"the Makefile has no target {wanted - targets}"
    samtune = [words for words in shown if words[0] == "samtune" and len(words) > 1]
    verbs = sorted({words[1] for words in samtune})
    if not verbs:
        return
    run = subprocess.run(
        [sys.executable, "-c", HELPER, *verbs],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert unknown_options(samtune, json.loads(run.stdout)) == []


PAGE = """
# A page

```python
total = 1
```

```console
$ samtune greet --name you \\
    there   # a comment
Hello you there
$ make demo
```

<!-- not run: needs a GPU -->
```python
raise SystemExit("must not run")
```

1. In a list:

   ```python
   import pathlib
   assert total == 1 and pathlib.Path("greeted").exists()
   ```
"""


def fake_samtune(folder: Path) -> Path:
    """A package ``samtune`` whose one command leaves a file behind."""
    (folder / "src" / "samtune").mkdir(parents=True)
    # without it, an installed samtune would go before: namespaces come last
    (folder / "src" / "samtune" / "__init__.py").touch()
    (folder / "src" / "samtune" / "__main__.py").write_text(
        "import pathlib, sys\n"
        "if sys.argv[1] != 'greet': sys.exit(2)\n"
        "pathlib.Path('greeted').write_text(' '.join(sys.argv[1:]))\n"
    )
    return folder / "src"


def test_a_page_runs_in_order_and_in_its_folder(tmp_path):
    texts = {"page.md": PAGE, "another.md": "```python\nassert 'total' not in globals()\n```"}
    codes, said = run_pages(texts, tmp_path, fake_samtune(tmp_path))
    assert codes == {"page.md": 0, "another.md": 0}, said
    assert (tmp_path / "page.md" / "greeted").read_text() == "greet --name you there"
    assert shown_commands(PAGE)[1] == ["make", "demo"]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("total = 1", "total = missing", 'File "page.md", line 5'),
        ("samtune greet", "samtune grete", "returned non-zero exit status 2"),
        ("<!-- not run: needs a GPU -->", "<!-- not run: -->", "must not run"),
    ],
)
def test_what_fails_on_a_page_is_reported(tmp_path, old, new, complaint):
    codes, said = run_pages({"page.md": PAGE.replace(old, new)}, tmp_path, fake_samtune(tmp_path))
    assert codes["page.md"] != 0
    assert complaint in said


def test_unknown_options_are_reported():
    answers = {"train": (0, "--json  --out PATH"), "trian": (2, "No such command")}
    shown = [["samtune", "train", "a=1", "--json", "--outt=x"], ["samtune", "trian"]]
    assert unknown_options(shown, answers) == [
        "samtune train: no option --outt",
        "samtune trian: no such command",
    ]


def test_the_readme_fits_one_screen_and_a_half():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    shown = [line for line in lines if not line.startswith("<!--")]
    assert sum(max(1, math.ceil(len(line) / 80)) for line in shown) <= 75
