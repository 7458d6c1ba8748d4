import io
import re

import pytest

from samtune.report.terminal import Display

SUMMARY = {
    "title": "lora on cells", "prompt": "box", "images": 12, "seconds": 3.4,
    "trainable_parameters": 42000, "peak_memory_bytes": 5e8,
    "zero_shot": {"iou": 0.25, "dice": 0.4}, "tuned": {"iou": 0.75, "dice": 0.857},
    "checkpoint": "run/best.safetensors", "report": "run/report.html",
}  # fmt: skip


def test_results(capsys):
    groups = {
        "by_prompt": {
            "box": {"zero_shot": {"iou": 0.1}, "tuned": {"iou": 0.9}},
            "none": {"zero_shot": {"iou": 0.2}},
        },
        "by_class": {
            "cell": {
                "zero_shot": {"iou": 0.3}, "tuned": {"iou": 0.8},
                "guesses": {"filled box": {"iou": 0.671}},
            },
        },
    }  # fmt: skip
    Display().results({**SUMMARY, **groups})
    said = capsys.readouterr()
    for shown in ("lora on cells", "0.250", "0.750", "+0.500", "12 images", "cell", "none", "42",
                  "filled box, no model", "0.671"):  # fmt: skip
        assert shown in said.out
    end = "report: run/report.html\nwhat the numbers mean: run/report.html#contract"
    assert said.out.rstrip().endswith(end) and said.err == ""
    point = {"zero_shot": {"iou": 0.4, "dice": 0.5}, "tuned": {"iou": 0.6, "dice": 0.7}}
    groups["by_prompt"]["point"] = {**point, "trained": True}
    Display().results({**SUMMARY, **groups})
    first = capsys.readouterr().out.partition("By prompt")[0].partition("IoU by prompt")[0]
    assert "lora on cells, asked with point" in first and "+0.200" in first and "0.750" not in first


def test_every_table_says_how_sure_it_is_within_80_columns(capsys, monkeypatch):
    ends = {
        "zero_shot": {"iou": [0.2, 0.3], "dice": [0.3, 0.5]},
        "tuned": {"iou": [0.711, 0.789], "dice": [0.8, 0.9]},
        "difference": {"iou": [0.455, 0.544], "dice": [-0.1, 0.2]},
        "guesses": {"inscribed ellipse": {"iou": [0.123, 0.234], "dice": [0.2, 0.3]}},
    }
    sides = {key: SUMMARY[key] for key in ("zero_shot", "tuned")}
    guesses = {"inscribed ellipse": {"iou": 0.2, "dice": 0.25}}
    entry = {**sides, "intervals": ends, "guesses": guesses, "trained": True}
    named = {
        "iou": {"zero_shot": 0.25, "tuned": 0.75},
        "hd95": {
            "zero_shot": 30.0, "tuned": 20.0,
            "intervals": {"tuned": [12.5, 27.5], "difference": [-15.0, -5.0]},
        },
    }  # fmt: skip
    more = {
        "intervals": ends, "interval": {"level": 0.95}, "guesses": guesses, "metrics": named,
        "by_prompt": {"box": entry, "3_points": entry}, "by_class": {"cell": entry},
    }  # fmt: skip
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    Display().results({**SUMMARY, **more})
    said = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    drawn = [line for line in said.splitlines() if line[:1] in "┏┃┡│└"]
    assert len(drawn) > 30 and max(map(len, drawn)) <= 80
    assert not any("\N{HORIZONTAL ELLIPSIS}" in line for line in drawn)
    for shown in (
        "0.711\N{EN DASH}0.789",
        "+0.455 to +0.544",
        "0.123\N{EN DASH}0.234",
        "12.500\N{EN DASH}27.500",
    ):
        assert shown in said
    assert "95 % interval" in said
    # one image has none: no empty columns
    Display().results({**SUMMARY, "intervals": {"tuned": {"iou": None, "dice": None}}})
    assert "interval" not in capsys.readouterr().out


@pytest.mark.parametrize("missing", [{"tuned": None}, {"tuned": {"iou": None, "dice": None}}])
def test_results_without_numbers(capsys, missing):
    Display().results({**SUMMARY, **missing})
    said = capsys.readouterr().out
    assert "│ gain" not in said and "0.250" in said


def test_metrics_beside_several_prompts_say_whose_they_are(capsys):
    Display().results({**SUMMARY, "metrics": {"hd95": {"zero_shot": 1.0, "tuned": 2.0}}})
    assert "hd95" in (said := capsys.readouterr().out) and said.count("prompt box") == 1
    both = {"box": {"zero_shot": {"iou": 0.1}}, "none": {"zero_shot": {"iou": 0.2}}}
    Display().results({**SUMMARY, "by_prompt": both, "metrics": {"hd95": {"zero_shot": 1.0}}})
    assert capsys.readouterr().out.count("prompt box") == 2


def test_quiet_shows_what_came_out_and_what_is_wrong(capsys):
    display = Display(quiet=True)
    display.say("of no interest")
    display.event({"event": "val", "step": 3, "iou": 0.5, "dice": 0.6})
    display.warn("watch out")
    display.results(SUMMARY)
    said = capsys.readouterr()
    assert said.err == "watch out\n" and "of no interest" not in said.out
    assert "0.750" in said.out and said.out.endswith("report: run/report.html\n")


def test_json_keeps_stdout_free(capsys):
    with Display(json=True) as display:
        display.say("hello [bold]you[/bold]")
        display.results(SUMMARY)
        display.table(("name",), [("x",)])
    said = capsys.readouterr()
    assert said.out == "" and "hello [bold]you[/bold]" in said.err


def test_a_list_has_a_line_each_and_is_cut_only_on_a_terminal(capsys, monkeypatch):
    rows = [("a_method_of_a_long_name", "words " * 30)] * 3
    Display().listing(("name", "text"), rows)
    assert capsys.readouterr().out.count("words") == 90
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    display = Display()
    assert display.narrow
    display.listing(("name", "text"), rows)
    said = capsys.readouterr().out
    assert said.count("a_method_of_a_long_name") == 3 and said.count("\N{HORIZONTAL ELLIPSIS}") == 3


def test_long_lines_are_broken_between_words_and_only_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    text = "note: " + "word " * 30
    Display().say(text)
    assert capsys.readouterr().out.count("\n") == 1
    monkeypatch.setenv("FORCE_COLOR", "1")
    Display().say(text)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 3 and max(map(len, lines)) <= 40 and lines[1].startswith("  word")


def test_tables_in_a_pipe_heed_columns_if_they_are_set(capsys, monkeypatch):
    rows = [("name", "words " * 30)]
    Display().table(("name", "text"), rows, whole=True)
    assert max(map(len, capsys.readouterr().out.splitlines())) > 180
    monkeypatch.setenv("COLUMNS", "60")
    Display().table(("name", "text"), rows, whole=True)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only pass when they are told to."""
    now = [0.0]
    monkeypatch.setattr("samtune.report.terminal.time.monotonic", lambda: now[0])

    def passed(seconds):
        now[0] += seconds

    return passed


def test_plain_progress_speaks_seldom(capsys, clock):
    display = Display()
    for done in range(1, 9):
        display.progress("test", done, 8)
        clock(4)
    assert capsys.readouterr().err.splitlines() == [
        "test: 4/8 0.250 images/s, 16.0 s left",
        "test: 7/8 0.250 images/s, 4.0 s left",
    ]


def test_quick_work_says_nothing(capsys):
    display = Display()
    for done in (1, 2):
        display.progress("test", done, 2)
    assert capsys.readouterr().err == ""


def test_a_training_says_how_long_it_will_take_once_it_is_known(capsys, clock):
    display = Display()
    for step in range(1, 11):
        clock(20 if step == 5 else 4)  # a validation lay between two steps
        row = {"event": "train", "step": step, "total": 10, "loss": 0.5, "lr": 1e-3}
        display.event(row)
        display.step(step, 10, images=8, memory=2_500_000_000)
    display.event({"event": "val", "step": 10, "iou": 0.5, "dice": 0.6})
    said = capsys.readouterr()
    assert said.out == (
        "speed     2.00 images per second in training, about 24.0 s to go; memory 2.5 GB so far\n"
    )
    assert said.err.splitlines() == [
        "train: 4/10 loss 0.5000  2.00 images/s, 24.0 s left",
        "train: 5/10 loss 0.5000  2.00 images/s, 40.0 s left",
        "train: 8/10 loss 0.5000  2.00 images/s, 12.6 s left",
        "step 10: validation IoU 0.500, Dice 0.600",
    ]


def test_the_bar_leaves_nothing_behind(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal)
    with pytest.raises(KeyboardInterrupt), Display(json=True) as display:
        display.progress("train", 1, 3, "loss 1")
        display.progress("test", 3, 3)
        raise KeyboardInterrupt
    said = terminal.getvalue()
    assert "train" in said and said.rstrip("\n").endswith("\x1b[2K")  # the bar's lines are cleared
