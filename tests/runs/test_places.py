"""A checkpoint does not tell where things lie on a machine; the folder of its run does."""

from samtune.files import write_whole
from samtune.runs.config import RunConfig, resolve
from samtune.runs.places import with_places, without_places


def settings(tmp_path):
    weights = tmp_path / "private" / "weights.pth"
    weights.parent.mkdir()
    weights.touch()
    tree = {"data": {"root": str(tmp_path / "private"), "outside": True},
            "output": str(tmp_path / "run"),
            "base": {"name": "vit_b", "weights": str(weights)}}  # fmt: skip
    return resolve([tree]).tree()


def test_no_place_is_left_and_names_are(tmp_path):
    tree = without_places(settings(tmp_path))
    assert "private" not in str(tree) and str(tmp_path) not in str(tree)
    assert tree["base"]["weights"] == "weights.pth"
    assert tree["data"]["outside"] is False  # which was of that place
    hub = {**RunConfig().tree(), "base": {"weights": "facebook/sam-vit-base"}}
    assert without_places(hub)["base"]["weights"] == "facebook/sam-vit-base"


def test_the_runs_folder_gives_them_back(tmp_path):
    import yaml

    whole = settings(tmp_path)
    header, file = without_places(whole), tmp_path / "run" / "best.safetensors"
    assert with_places(header, file) == header
    write_whole(file.parent / "config.yaml", yaml.safe_dump(whole))
    assert with_places(header, file) == {**whole, "output": None}
    other = {**whole, "adapter": {**whole["adapter"], "rank": 9}}
    write_whole(file.parent / "config.yaml", yaml.safe_dump(other))
    assert with_places(header, file) == header
    assert with_places(whole, file) == whole
