"""The screens in docs/first_screens.md are those that the verbs print."""

import re
import shutil
from pathlib import Path

from samtune.assets import demo_data
from samtune.inference.places import default_out
from samtune.report.terminal import Display
from samtune.runs.first_screen import of_evaluation, of_training
from samtune.runs.plan import plan_training
from samtune.runs.screen_lines import of_answers
from samtune.runs.words import from_words

PAGE = Path(__file__).parents[2] / "docs" / "first_screens.md"


def screens() -> dict[str, list[list[str]]]:
    """The blocks of the page by verb, each as its lines, the command first."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    by_verb: dict[str, list[list[str]]] = {}
    for block in blocks:
        verb = re.search(r"samtune (\w+)", block)[1]
        by_verb.setdefault(verb, []).append(block.splitlines())
    return by_verb


def without_device(lines):
    return [line for line in lines if not line.startswith("device ")]


def test_the_page_shows_what_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo_data(), "nuclei")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal
    known = screens()
    command, *train = known["train"][0]
    plan = plan_training(from_words(command.split()[3:]))
    folder = Path("runs/lora-tuned-nano-nuclei")
    Display().say(of_training(plan, folder))
    printed = capsys.readouterr().out.splitlines()
    assert without_device(train[: len(printed)]) == without_device(printed)

    _, *evaluated = known["eval"][0]
    of_test = plan.lines[0].splitlines()[-1]
    file = str(folder / "best.safetensors")
    Display().say(of_evaluation(plan.model, file, plan.config, of_test, plan.test))
    printed = capsys.readouterr().out.splitlines()
    assert without_device(evaluated[: len(printed)]) == without_device(printed)

    command, *said = known["predict"][0]
    line = of_answers(plan.model, "auto", 8, 1)
    assert said[0].partition("; ")[2] == line.partition("; ")[2] and len(line) <= 80
    where = said[-1].partition(", at strength ")[0]
    assert where == f"the masks of 8 images lie in {default_out(command.split()[4])}"


def test_no_screen_is_wider_than_80_columns():
    for blocks in screens().values():
        for block in blocks:
            own = [line for line in block if not line.startswith("$ ")]
            assert all(len(line) <= 80 for line in own), max(own, key=len)
