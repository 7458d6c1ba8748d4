"""Pictures of any size are read, which holds because they are opened at one place."""

from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src" / "samtune"


def test_pillow_opens_files_at_one_place():
    files = {p for p in SOURCES.rglob("*.py") if "Image.open(" in p.read_text("utf-8")}
    programs = SOURCES / "exports/programs"  # they run in other tools, whose pictures they get
    assert {p.name for p in files if programs not in p.parents} == {"quiet.py"}
