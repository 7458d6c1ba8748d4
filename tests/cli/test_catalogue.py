"""What the documentation and the command line list comes from the registry."""

import importlib.util
from pathlib import Path

import pytest

from samtune.adapters import ADAPTERS
from samtune.adapters.base import lacking
from samtune.adapters.gsam import GSAM
from samtune.adapters.lora import LoRA
from samtune.cli.catalogue import (
    describe_method,
    facts,
    list_decoders,
    list_methods,
    method_rows,
    option_rows,
    options,
)
from samtune.decoders import DECODERS
from samtune.errors import InputError
from samtune.sam.spec import SPECS
from samtune.training.engine import FitConfig

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_method_is_listed_with_paper_and_size():
    rows = {row["name"]: row for row in list_methods()}
    assert set(rows) == set(ADAPTERS)
    for row in rows.values():
        assert row["paper"] and row["sits"] and row["summary"]
        assert row["decoders"]
        method = ADAPTERS[row["name"]]
        assert row["backbones"] == [b for b, spec in SPECS.items() if not lacking(method, spec)]
    assert rows["none"]["trainable_parameters"] == 0
    # rank 4 on queries and values: 12 blocks x 2 pairs x 2 matrices of 4 x 768
    assert rows["lora"]["trainable_parameters"] == 12 * 2 * 2 * 4 * 768


def test_every_option_of_every_method_has_a_meaning():
    for name in ADAPTERS:
        for option in describe_method(name)["options"]:
            assert option["help"], (name, option["name"])
    assert all(option["help"] for option in options(FitConfig))


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="did you mean 'lora'"):
        describe_method("lorra")


@pytest.mark.slow
def test_generated_tables_are_up_to_date(generate):
    made = generate.tables()
    for path in DOCS.rglob("*.md"):
        text = path.read_text("utf-8")
        assert generate.filled(text, made) == text, f"{path.name}: run python docs/generate.py"


def test_a_stale_table_is_found(generate):
    page = "<!-- generated: methods -->\nold\n<!-- end -->"
    assert "lora" in generate.filled(page, {"methods": "| lora |\n"})


@pytest.mark.slow
def test_the_terminal_gets_a_line_of_each_and_all_of_one():
    columns, *listed = method_rows(list_methods())
    rows = {row[0]: dict(zip(columns, row, strict=True)) for row in listed}
    assert set(rows) == set(ADAPTERS)
    row = rows["ts_sam"]
    assert row["adapter alone,\nvit_b"] == "10,121,472" and row["where it sits"].startswith(
        "beside"
    )
    assert "feeds it back" in row["what it is"] and "2408.01835" in row["paper"]
    assert row["decoders"] == "fusion" and row["bases"] == "all but vit_t"
    assert rows["lora"]["decoders"] == "all but fusion; hq not on vit_t"
    assert rows["lora"]["bases"] == "all" and rows["vpt"]["decoders"] == "all but fusion"
    assert rows["batch_norm"]["decoders"] == "all but fusion, hq"  # it fits vit_t alone
    short = {row[0]: row[-1] for row in method_rows(list_methods(), brief=True)}
    assert short["lora"] == rows["lora"]["where it sits"]  # the last column of a narrow terminal
    text = facts(describe_method("ts_sam"))
    for words in ("feeds it back", "sits: beside", "decoders: fusion", "2408.01835"):
        assert words in text
    assert "trained: 10,121,472 parameters, adapter alone, vit_b\n" in text
    assert "bases: vit_b, vit_l, vit_h, nano\n" in text  # and not TinyViT
    assert text.endswith("other forms: fft (adapter.fft=true), zero_init (adapter.zero_init=true)")
    assert describe_method("vpt")["forms"] == {"shallow": {"depth": "shallow"}}
    assert "vit_t" in facts(describe_method("lora"))
    both = describe_method("lora+adaptformer")
    parts = [describe_method(name)["trainable_parameters"] for name in ("lora", "adaptformer")]
    assert both["trainable_parameters"] == sum(parts) and "vit_t" in both["backbones"]
    assert {option["name"] for option in both["options"]} >= {"lora.rank", "adaptformer.hidden"}
    assert describe_method("lora+batch_norm")["backbones"] == ["vit_t"]
    assert "trained: 0 parameters, adapter alone, vit_t" in facts(describe_method("batch_norm"))
    with pytest.raises(InputError, match=r"a form of vpt.*samtune methods vpt"):
        describe_method("vpt:shallow")
    with pytest.raises(InputError, match=r"set adapter.name=vpt adapter.depth=shallow"):
        ADAPTERS["vpt:shallow"]
    assert "changes the embedding" in facts(describe_method("lora+gsam"))
    ssf = facts(describe_method("ssf"))  # it says that it starts as an identity
    assert "exception to the identity at the start: with std above 0" in ssf
    assert "changes the embedding" not in ssf
    assert "changes SAM's masks from the start: its token" in facts(describe_method("hq"))
    assert "forms" not in facts(describe_method("samus"))


def test_decoders_are_told_as_adapters_are():
    rows = {row["name"]: row for row in list_decoders()}
    assert set(rows) == set(DECODERS)
    for row in rows.values():
        assert row["paper"] and row["sits"] and row["summary"] and row["kind"] == "decoder"
        assert all(option["help"] for option in row["options"]), row["name"]
    assert rows["fusion"]["adapters"] == ["ts_sam", "ts_sam_detached"]
    assert "vit_t" not in rows["fusion"]["backbones"] and "vit_t" in rows["tuned"]["backbones"]
    assert "adapters: all but batch_norm, ts_sam, ts_sam_detached\n" in facts(rows["hq"])
    assert "trained: 1,071,104 parameters, decoder alone, vit_b" in facts(rows["hq"])
    assert [option["name"] for option in rows["hq"]["options"]] == ["combine"]


def test_defaults_are_as_in_yaml_and_meanings_are_plain_text():
    rows = {name: (default, text) for name, default, text in option_rows(options(LoRA.Config))}
    gsam = {row[0]: row[1] for row in option_rows(options(GSAM.Config))}
    assert gsam["train_peg"] == "false"
    assert (rows["alpha"][0], rows["rank"][0], rows["target"][0]) == ("null", "4", "q+v")
    assert not any("``" in text or "\n" in text for _, text in rows.values())
