"""Damages every file of a run folder in many ways, and looks at what each verb makes of it.

python benchmarks/damage.py WORK [--verbs resume-interrupted,eval] [--cases 100]

A finished run, one that was interrupted after step 5 of 6, and a comparison of two methods are made
once. A case is a copy of one of them with one file damaged in one way, and one verb that meets it.
The verb must either do its work, or end with exit code 2 and one line that names the file, and
change nothing; rows of the log that could still be read must be there afterwards. The cases are
made in a random order and go to ``WORK/cases.jsonl``; a later call makes those that are missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml
from faults import SIDE, load, run_and_exit, write_data
from tables import table

RESULTS = Path(__file__).parent / "results" / "damage.md"
LIMIT = 300.0
"""Seconds that a verb may take."""
MEMORY = 6 << 30
"""Bytes of address space that a verb may take."""
HEAD = """# Damage to the files of a run, and what the verbs make of it

Written by `benchmarks/damage.py`: {made} of {all} cases. Each is a copy of a small run or of a
comparison (base nano, images of {side} x {side} pixels) with one file damaged in one way, and one
verb. "one line" is exit code 2 with a single line that names the file, and nothing changed; "done"
is exit code 0, with the file made anew, left out with a remark, or not needed. Rows of the log that
could still be read were all there afterwards, unless the last column says otherwise.

The damages: {damages}. A verb that took
more than {memory} GiB of memory or {limit:g} seconds would have failed.
"""
VERBS = {
    "resume-interrupted": "`samtune train output=RUN resume=true`, after an interrupt",
    "resume-finished": "`samtune train resume=RUN`, of a finished run",
    "eval": "`samtune eval RUN`",
    "predict": "`samtune predict RUN IMAGES`",
    "compare": "`samtune compare output=COMPARISON` again",
}
SOURCES = {"resume-interrupted": "cut", "compare": "cmp"}
"""The folder that a verb meets; for the others the finished run."""
READ = {
    "eval": ("best.safetensors", "config.yaml", "split.json", "files.json"),
    "predict": ("best.safetensors", "config.yaml"),
}
"""The files that a verb reads; it is not tried on damage to others."""
FIRST = "lora-allshot-seed0"
"""The run of a comparison whose files are damaged."""
Damage = bytes | str


@dataclass(frozen=True)
class Case:
    """One damage to one file, and the verb that meets it."""

    verb: str
    file: str
    how: str

    @property
    def source(self) -> str:
        """The folder that is copied."""
        return SOURCES.get(self.verb, "whole")


def words(verb: str, work: Path) -> list[str]:
    """The command line of a verb, in the folder that holds the copy."""
    data = f"data.root={work / 'data'}"
    shape = ["base.name=nano", f"input.size={SIDE}", "input.tiles=whole", "device=cpu"]
    training = [
        *shape, data, "train.strength=1", "train.keep=none", "data.cache=0", "train.batch_size=1",
        "train.eval_every=2", "train.log_every=1", "train.save_every=0.0001", "data.augment=flips",
    ]  # fmt: skip
    images = str(work / "data/images/test")
    return {
        "whole": ["train", *training, "train.max_steps=4", "output=whole"],
        "cut": ["train", *training, "train.max_steps=6", "output=cut"],
        "resume-interrupted": [
            "train", *training, "train.max_steps=6", "output=cut", "resume=true",
        ],
        "resume-finished": ["train", "resume=whole", "device=cpu"],
        "eval": ["eval", "whole", data, "device=cpu", "output=measured"],
        "predict": ["predict", "whole", images, "--box", "5,5,40,40", "--out", "masks"],
        "compare": [
            "compare", *training, "train.max_steps=2", "methods=lora,decoder", "seeds=1",
            "output=cmp",
        ],
    }[verb]  # fmt: skip


def run(
    verb: str,
    work: Path,
    folder: Path,
    until_step: int | None = None,
    modules: Path | None = None,
) -> tuple[int, str]:
    """Runs a verb in a folder; its exit code, -9 beyond the limit, and what it said on stderr.

    Args:
        verb: As in :func:`words`.
        work: With the data.
        folder: Where it runs.
        until_step: Interrupts it when this step is in the log of ``cut``.
        modules: A file to which the names of all modules that it has loaded go.
    """
    said = folder / "said.txt"
    child = os.fork()
    if not child:
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            os.chdir(folder)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), 2)
            run_and_exit(words(verb, work), modules)
        finally:
            os._exit(70)
    limit, sent = time.monotonic() + LIMIT, False
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), said.read_text("utf-8", "replace")
        if time.monotonic() > limit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -9, said.read_text("utf-8", "replace")
        if until_step is not None and not sent and _steps(folder / "cut/metrics.jsonl", until_step):
            os.kill(child, signal.SIGINT)
            sent = True
        time.sleep(0.005)


def _steps(log: Path, step: int) -> bool:
    return any(f'"step": {step},' in line for line in _lines(log))


def _lines(path: Path) -> list[str]:
    with suppress(OSError):
        if path.is_file():
            return path.read_bytes().decode("utf-8", "replace").split("\n")
    return []


def _rows(folder: Path) -> Counter:
    """The rows that can be read in the logs of a folder, set aside or not."""
    rows = Counter()
    for path in folder.rglob("metrics*.jsonl"):
        for line in _lines(path):
            with suppress(ValueError, RecursionError):
                row = json.loads(line)
                if isinstance(row, dict) and isinstance(row.get("event"), str):
                    rows[line] = 1
    return rows


def damages(path: Path) -> dict[str, Damage | None]:
    """What a file is replaced with, by the name of the damage; None removes it."""
    content = path.read_bytes()
    ways: dict[str, Damage | None] = {
        "emptied": b"",
        "cut in half": content[: len(content) // 2],
        "a byte flipped in the middle": _flip(content, len(content) // 2),
        "a byte flipped near the start": _flip(content, min(40, len(content) - 1)),
        "missing": None,
        "a folder": "folder",
        "a link to itself": "loop",
        "a pipe": "pipe",
        "/dev/zero": "zero",
    }
    if path.suffix not in (".json", ".jsonl", ".yaml"):
        return ways
    text = content.decode("utf-8")
    half = len(text) // 2
    return ways | {
        "values as lists": _twisted(path, as_list=True).encode(),
        "values as null": _twisted(path, as_list=False).encode(),
        "a list at the top": b"[1, 2]\n",
        "UTF-16": text.encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbf" + content,
        "bytes of Latin-1": text[:half].encode() + b"\xe4\xf6" + text[half:].encode(),
        "100,000 brackets": b"[" * 100_000,
    }


def _flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x41]) + content[at + 1 :]


def _twisted(path: Path, as_list: bool) -> str:
    """The file with values of other types."""
    text = path.read_text("utf-8")
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
        return "".join(json.dumps(_other_types(row, as_list)) + "\n" for row in rows)
    tree = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    tree = _other_types(tree, as_list)
    return json.dumps(tree) if path.suffix == ".json" else yaml.safe_dump(tree)


def _other_types(tree: object, as_list: bool) -> object:
    if isinstance(tree, dict):
        return {key: [value] if as_list else None for key, value in tree.items()}
    return {"a": tree}


def apply(path: Path, damage: Damage | None) -> None:
    """Damages a file."""
    if isinstance(damage, bytes):
        path.write_bytes(damage)
        return
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage is not None:
        path.symlink_to(path.name if damage == "loop" else "/dev/zero")


def cases(work: Path) -> Iterator[Case]:
    """All cases; of a comparison those of one run, and of the files that are read again."""
    for verb in VERBS:
        top = work / Case(verb, "", "").source
        for path in sorted(p for p in top.rglob("*") if p.is_file()):
            file = str(path.relative_to(top))
            if verb in READ and file not in READ[verb]:
                continue
            if verb == "compare" and not _is_read_again(file):
                continue
            yield from (Case(verb, file, how) for how in damages(path))


def _is_read_again(file: str) -> bool:
    results = file in ("comparison.json", "comparison.yaml", "report.html")
    return results or (file.startswith(FIRST) and "/last/" not in file and "/samples/" not in file)


def digests(folder: Path) -> dict[str, str]:
    """What lies below a folder."""
    content = {}
    for path in sorted(folder.rglob("*")):
        plain = path.is_file() and not path.is_symlink()
        what = hashlib.sha256(path.read_bytes()).hexdigest() if plain else "no file"
        content[str(path.relative_to(folder))] = what
    return content


def outcome(case: Case, work: Path) -> dict:
    """Makes a case, and says what was wrong with how it ended, if anything was."""
    folder = work / "case"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    top = folder / case.source
    shutil.copytree(work / case.source, top)
    apply(top / case.file, damages(top / case.file)[case.how])
    before, rows, start = digests(top), _rows(top), time.monotonic()
    code, said = run(case.verb, work, folder)
    mine = [line for line in said.splitlines() if line.startswith("samtune: ")]
    wrong = []
    if code not in (0, 2):
        wrong.append(f"exit code {code}")
    if "Traceback" in said:
        wrong.append("a traceback")
    if code == 2 and (len(mine) != 1 or Path(case.file).name not in mine[0]):
        wrong.append("not one line with the file's name")
    if digests(top) != before and (code == 2 or case.verb in ("eval", "predict")):
        wrong.append("files changed")
    if rows - _rows(top):
        wrong.append("rows of the log lost")
    seconds = round(time.monotonic() - start, 1)
    line = (mine or said.splitlines() or [""])[-1].replace(f"{work}/", "")
    return {**vars(case), "code": code, "wrong": wrong, "line": line, "seconds": seconds}


def prepare(work: Path) -> None:
    """The run, the interrupted run and the comparison, made once; and what each verb loads."""
    if not (work / "prepared").exists():
        write_data(work / "data")
        for verb in ("whole", "compare", "cut", "eval", "predict"):
            modules = work / f"{verb}.txt"
            code, said = run(verb, work, work, 5 if verb == "cut" else None, modules)
            if code != (130 if verb == "cut" else 0):
                raise SystemExit(f"{verb} failed: {said}")
            load(modules)
        (work / "prepared").touch()
    for modules in work.glob("*.txt"):
        if modules.name != "said.txt":
            load(modules)


def page(results: list[dict], count: int, ways: list[str]) -> str:
    """The table of all cases that were made."""
    facts = {"side": SIDE, "memory": MEMORY >> 30, "limit": LIMIT, "damages": ", ".join(ways)}
    rows = []
    for verb, meaning in VERBS.items():
        for file in sorted({each["file"] for each in results if each["verb"] == verb}):
            mine = [each for each in results if (each["verb"], each["file"]) == (verb, file)]
            done = sum(each["code"] == 0 and not each["wrong"] for each in mine)
            refused = sum(each["code"] == 2 and not each["wrong"] for each in mine)
            counts = len(mine), done, refused, len(mine) - done - refused
            rows.append((meaning, f"`{file}`", *map(str, counts)))
    columns = ("verb", "file", "damages", "done", "one line", "otherwise")
    parts = [HEAD.format(made=len(results), all=count, **facts), table(columns, rows)]
    bad = [each for each in results if each["wrong"]]
    if bad:
        parts.append("\nOtherwise:\n")
    for each in bad:
        what = f"{each['verb']}, `{each['file']}`, {each['how']}: {', '.join(each['wrong'])}"
        parts.append(f"- {what}; {each['line'][:200] or 'it said nothing'}")
    return "\n".join(parts) + "\n"


def main() -> None:
    """Makes the cases that are missing, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="a folder for the runs")
    parser.add_argument("--verbs", default=",".join(VERBS))
    parser.add_argument("--cases", type=int, default=10**6, help="how many to make at most")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    import samtune.compare.jobs
    import samtune.inference.folder
    import samtune.report.page
    import samtune.runs.jobs  # noqa: F401  # once, for all forks

    os.environ |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    args.work.mkdir(parents=True, exist_ok=True)
    work = args.work.resolve()
    prepare(work)
    log = work / "cases.jsonl"
    results = [json.loads(line) for line in _lines(log) if line]
    made = {(each["verb"], each["file"], each["how"]) for each in results}
    everything = list(cases(work))
    random.Random(0).shuffle(everything)
    missing = [case for case in everything if (case.verb, case.file, case.how) not in made]
    missing = [case for case in missing if case.verb in args.verbs.split(",")]
    ways = list(damages(work / "whole/config.yaml"))
    for case in missing[: args.cases]:
        results.append(outcome(case, work))
        print(json.dumps(results[-1]), flush=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(results[-1]) + "\n")
        args.out.write_text(page(results, len(everything), ways), "utf-8")


if __name__ == "__main__":
    main()
