import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from commands import settings

from samtune.cli.main import app

NUMBERS = {"iou", "dice"}
HELP = {"demo", "train", "eval", "predict", "methods", "recipes"}


def check_contract(answer, tuned=True):
    summary = answer.json
    assert answer.code == 0, answer.err
    assert summary["zero_shot"].keys() >= NUMBERS
    assert all(0 <= summary["zero_shot"][key] <= 1 for key in NUMBERS)
    if tuned:
        assert summary["tuned"].keys() >= NUMBERS
        assert isinstance(summary["checkpoint"], str) and Path(summary["checkpoint"]).is_file()
    else:
        assert summary["tuned"] is None and summary["checkpoint"] is None
    for key in ("images", "trainable_parameters", "peak_memory_bytes"):
        assert type(summary[key]) is int, key
    assert type(summary["seconds"]) is float and summary["seconds"] > 0
    assert summary["peak_memory_bytes"] > 10**7
    assert isinstance(summary["prompt"], str)
    assert Path(summary["report"]).is_file()
    return summary


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_train_eval_predict(samtune, pairs, tiny_weights, here):
    words = settings(pairs, tiny_weights)
    summary = check_contract(samtune("train", *words, "--json"))
    assert summary["trainable_parameters"] > 0 and summary["images"] == 1
    assert summary["prompt"] == "box" and summary["steps"] == 2
    answer = samtune("eval", summary["checkpoint"], "prompts.eval=box,none", "--json")
    measured = check_contract(answer)
    assert measured["zero_shot"] == summary["zero_shot"]
    assert measured["tuned"] == summary["tuned"]
    assert list(measured["by_prompt"]) == ["box", "none"]
    assert measured["by_prompt"]["box"]["tuned"].keys() >= NUMBERS
    answer = samtune("predict", summary["checkpoint"], pairs / "images", "--out", "masks", "--json")
    assert answer.code == 0
    assert answer.json == {"images": 8, "failed": [], "out": "masks", "left_out": [], "remarks": []}


@pytest.mark.slow
def test_eval_of_a_base_is_zero_shot_only(samtune, trained, here):
    words = [f"base.weights={trained.base}", f"data.root={trained.root}", "prompts.eval=box"]
    summary = check_contract(samtune("eval", "tiny", *words, "--json"), tuned=False)
    assert summary["trainable_parameters"] == 0
    assert summary["zero_shot"] == pytest.approx(trained.summary["zero_shot"], abs=1e-6)
    whole = samtune("eval", "tiny", *words, "data.split=all", "--json").json
    assert whole["images"] == 8


@pytest.mark.slow
def test_the_last_line_of_stdout_is_all_of_stdout(samtune, trained, here):
    base = f"base.weights={trained.base}"
    commands = [
        ["eval", trained.checkpoint],
        ["predict", trained.checkpoint, trained.root / "images", "--out", "o", "--box=1,1,9,9"],
        ["methods"],
        ["methods", "lora"],
        ["recipes"],
        ["train", *settings(trained.root, trained.base, 1)],
        ["eval", "tiny", base, f"data.root={trained.root}"],
    ]
    for words in commands:
        answer = samtune(*words, "--json")
        assert answer.code == 0, answer.err
        assert answer.out.count("\n") == 1, answer.out
        json.loads(answer.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.slow
def test_methods_list_what_the_contract_names(samtune):
    rows = samtune("methods", "--json").json
    for row in rows:
        assert row.keys() >= {"name", "paper", "trainable_parameters", "decoders", "backbones"}
    assert {row["name"] for row in rows} >= {"lora", "adaptformer", "none"}
    said = samtune("methods", "lora").out
    assert "rank" in said and "arXiv:2106.09685" in said
    listed = samtune("methods").out
    assert "Hu et al. 2021, arXiv:2106.09685" in listed and "prompt_free" in listed
    assert len(listed.splitlines()) < len(rows) + 20  # a line each
    said = samtune("methods", "hq").out
    assert "combine" in said and "arXiv:2306.01567" in said and "1,071,104" in said
    assert samtune("methods", "hq", "--json").json["kind"] == "decoder"


def test_recipes(samtune):
    assert "demo" in {row["name"] for row in samtune("recipes", "--json").json}


def test_a_recipe_as_a_file_to_start_from(samtune, here):
    from samtune.runs.words import from_words

    answer = samtune("recipes", "demo", "--yaml")
    assert answer.code == 0 and "samtune train demo.yaml data.root=FOLDER" in answer.out
    assert from_words(["demo.yaml"]) == from_words(["demo"])
    assert Path("demo.yaml").read_text().startswith("# name: demo\n# about: ")
    assert (
        "is there already; choose another, as --out demo-2.yaml"
        in samtune("recipes", "demo", "--yaml").line
    )
    assert "give the name of one" in samtune("recipes", "lora", "--yaml").line


def test_without_json_stdout_speaks_to_a_person(samtune, trained, here):
    words = settings(trained.root, trained.base, 1)
    out = samtune("train", *words, "train.lr=0.00025").out
    assert "zero-shot" in out and "tuned" in out and "report: runs/" in out
    assert "train.lr=0.00025" in out and "adapter.name" not in out  # what is not the default
    assert "method    lora, decoder tuned" in out
    assert len(out.splitlines()) < 40
    assert "None" not in out and "{" not in out


def test_a_recipe_a_file_and_overrides(samtune, trained, here):
    Path("mine.yaml").write_text("train: {lr: 2.0e-4, clip: 0.5}\nprompts: {eval: none}\n")
    words = ["demo", "mine.yaml", *settings(trained.root, trained.base, 1), "train.clip=0.25"]
    answer = samtune("train", *words, "output=run", "--json")
    assert answer.code == 0, answer.err
    tree = yaml.safe_load(Path("run/config.yaml").read_text())
    assert (tree["train"]["lr"], tree["train"]["clip"]) == (2e-4, 0.25)
    assert tree["adapter"]["rank"] == 8 and tree["prompts"] == {**tree["prompts"], "eval": "none"}
    assert answer.json["prompt"] == "none"


@pytest.mark.slow
def test_demo_can_be_run_again(samtune, trained, here):
    words = ["base.name=tiny", f"base.weights={trained.base}", "train.max_steps=1"]
    words += ["input.size=64", "data.augment=none", "train.strength=none", "train.average=none"]
    for folder in ("runs/demo", "runs/demo-2"):
        summary = check_contract(samtune("demo", *words, "--json"))
        assert Path(summary["report"]).parent == Path(folder)


def test_resume(samtune, trained, here):
    words = [*settings(trained.root, trained.base), "train.eval_every=2"]
    assert samtune("train", *words, "output=run", "--json").code == 0
    answer = samtune("train", "resume=run", "train.max_steps=4", "--json")
    summary = check_contract(answer)
    assert summary["steps"] == 4 and summary["checkpoint"] == "run/best.safetensors"
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [(r["event"], r["step"]) for r in rows] == [
        ("zero_shot", 0), ("train", 2), ("val", 2), ("train", 4), ("val", 4),
        ("strength", 4), ("strength", 4),
    ]  # fmt: skip
    line = samtune("train", "resume=run", "train.lr=5").line
    assert "train.lr=5.0" in line and "leave it out" in line
    assert Path("run/report.html").is_file()


@pytest.mark.slow
def test_an_interrupt_is_told_with_how_to_go_on(samtune, trained, here, monkeypatch):
    from samtune.report.terminal import Display

    def pressed(self, event):
        if event["event"] == "val":
            raise KeyboardInterrupt

    words = [*settings(trained.root, trained.base, 4), "train.eval_every=2", "output=run"]
    with monkeypatch.context() as patch:
        patch.setattr(Display, "event", pressed)
        answer = samtune("train", *words)
    assert answer.code == 130
    assert answer.err.splitlines()[-1] == (
        "samtune: interrupted; go on with: samtune train resume=run"
    )
    assert Path("run/last/state.json").is_file() and not Path("run/report.html").exists()
    resumed = check_contract(samtune("train", "resume=run", "--json"))
    assert resumed["steps"] == 4
    whole = samtune("train", *words[:-1], "output=whole", "--json").json
    assert resumed["tuned"] == whole["tuned"]
    rows = [Path(name, "metrics.jsonl").read_text() for name in ("run", "whole")]
    assert rows[0] == rows[1]
    assert Path("run/best.safetensors").stat().st_size > 0


def test_an_interrupt_before_the_first_step_leaves_nothing(samtune, trained, here, monkeypatch):
    def pressed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("samtune.runs.plan.measure_objects", pressed)
    answer = samtune("train", *settings(trained.root, trained.base))
    assert answer.code == 130 and answer.err.splitlines()[-1] == "samtune: interrupted"
    assert os.listdir() == []


@pytest.mark.slow
def test_ctrl_c(trained, here, forks):
    """A real signal to a real process."""
    code = (
        # a job started in the background inherits that Ctrl-C is ignored
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import tiny; from samtune.sam.model import SPECS; SPECS['tiny'] = tiny.TINY\n"
        "from samtune.cli.main import main; main()"
    )
    words = [*settings(trained.root, trained.base, 100_000), "output=run", "train.log_every=1"]
    process = forks.start(code, "train", *words)
    rows = Path("run/metrics.jsonl")
    try:
        while not rows.is_file() or '"train"' not in rows.read_text():
            assert process.poll(0.05) is None, process.stderr
        process.send_signal(signal.SIGINT)
        process.wait()
    finally:
        process.kill()
    said = process.stderr
    assert process.returncode == 130, said
    assert said.splitlines()[-1].endswith("go on with: samtune train resume=run")
    assert "Traceback" not in said
    assert json.loads(Path("run/last/state.json").read_text())["step"] > 0


@pytest.mark.parametrize("verb", ["", *sorted(HELP)])
def test_help(samtune, monkeypatch, verb):
    monkeypatch.setenv("COLUMNS", "100")
    answer = samtune(*([verb] if verb else []), "--help")
    assert answer.code == 0
    assert "--json" in answer.out if verb else HELP <= set(answer.out.split())


def test_no_words_show_five_things_to_do(samtune):
    answer = samtune()
    assert answer.code == 0 and answer.err == ""
    lines = answer.out.splitlines()
    assert sum(line.startswith("  samtune ") for line in lines) == 5
    assert max(map(len, lines)) <= 80
    assert "Usage" in samtune("data").out


def test_every_verb_and_option_says_what_it_is():
    from typer.main import get_command

    for name, command in get_command(app).commands.items():
        assert command.help, name
        for option in command.params:
            assert option.name == "help" or option.help, (name, option.name)


@pytest.mark.slow
def test_help_costs_no_torch():
    code = (
        "import sys; from samtune.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'PIL', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_version_is_that_of_the_package(samtune):
    import importlib.metadata

    import samtune as package

    answer = samtune("--version")
    assert answer.code == 0
    assert answer.out == f"samtune {importlib.metadata.version('samtune')}\n"
    assert package.__version__ == answer.out.split()[1]


def test_a_version_costs_nothing_before_it_is_asked_for():
    code = "import sys, samtune; assert 'importlib.metadata' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
