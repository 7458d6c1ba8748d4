"""Pictures of any size are read, which holds because they are opened at one place."""

from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src" / "samtune"


def test_pillow_opens_files_at_one_place():
    places = {p.name for p in SOURCES.rglob("*.py") if "Image.open(" in p.read_text("utf-8")}
    assert places == {"quiet.py"}
