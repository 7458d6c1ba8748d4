"""Damaged exports are told in a line for each fault, never by a traceback."""

import json
import random

import pytest
from exports import EXPORTS

from samtune.data import DataConfig, with_defaults
from samtune.data.check import check
from samtune.errors import InputError

ROUNDS = 8
WORSE = [None, "", "x", -1, 0, 1e300, float("nan"), True, [], {}, [[]], "9" * 30, [None, 1]]


def places(tree, at=()):
    """The path of every value of a JSON tree."""
    yield at
    lists = enumerate(tree) if isinstance(tree, list) else ()
    for key, value in tree.items() if isinstance(tree, dict) else lists:
        yield from places(value, (*at, key))


def damaged(tree, dice):
    """The tree with one value replaced, removed or doubled."""
    at = dice.choice(list(places(tree))[1:])
    holder = tree
    for key in at[:-1]:
        holder = holder[key]
    what = dice.randrange(4)
    if what == 0 and isinstance(holder, dict):
        del holder[at[-1]]
    elif what == 1 and isinstance(holder, list):
        holder.insert(at[-1], holder[at[-1]])
    else:
        holder[at[-1]] = dice.choice(WORSE)
    return tree


def damage_text(text, dice):
    start, length = dice.randrange(len(text)), dice.randrange(1, 9)
    return text[:start] + dice.choice(["", "0", "-", "nan", "<", ","]) + text[start + length :]


@pytest.mark.parametrize("export", EXPORTS)
def test_damage(tmp_path, export):
    export(tmp_path / "set")
    files = sorted(p for p in (tmp_path / "set").rglob("*")
                   if p.suffix in (".json", ".xml", ".txt", ".yaml", ".csv"))  # fmt: skip
    for seed in range(ROUNDS):
        dice = random.Random(seed)
        file = dice.choice(files)
        text = file.read_text("utf-8")
        if file.suffix == ".json" and seed % 4:
            file.write_text(json.dumps(damaged(json.loads(text), dice)), "utf-8")
        else:
            file.write_text(damage_text(text, dice), "utf-8")
        try:
            found = check(with_defaults(DataConfig(root=str(tmp_path / "set"))))
            lines = [f"{row.file} {row.what} {row.remedy}" for row in found.problems]
        except InputError as error:
            lines = [str(error)]
        assert not any("\n" in line for line in lines), lines
        file.write_text(text, "utf-8")
