"""What an evaluation makes of the run beside a checkpoint."""

import shutil

import pytest

from samtune.runs.source import Source


@pytest.fixture
def run(trained, tiny_registered, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(trained.folder, tmp_path / "run")


def beside(run, *words):
    source = Source.of(str(run))
    return source.run_beside(source.configure(words))


def test_the_run_beside_a_checkpoint_is_known_by_its_data(run, trained):
    assert beside(run, f"base.weights={trained.base}") == (run, [])
    words = [f"base.weights={trained.base}", f"data.root={trained.root}"]
    assert beside(run, *words) == (run, [])
    assert beside(run, *words, "data.split_seed=3") == (None, [])
    assert beside(run, words[0], f"data.root={run}") == (None, [])


@pytest.mark.parametrize(
    ("file", "what"), [("config.yaml", "not readable as YAML"), ("files.json", "is damaged")]
)
def test_a_run_with_damaged_settings_is_no_checkpoint_alone(run, trained, refused, file, what):
    words = [f"base.weights={trained.base}", f"data.root={trained.root}"]
    (run / file).write_text('{"data": [')
    refused([str(run / file), what], beside, run, *words)
    refused([str(run / file), what], Source.of(str(run)).refuse_damaged_run, words[:1])
    Source.of(str(run)).refuse_damaged_run(words)  # other data may be measured


@pytest.mark.parametrize("file", ["config.yaml", "split.json"])
def test_a_run_that_lacks_a_file_is_remarked(run, trained, file):
    (run / file).unlink()
    folder, (line,) = beside(run, f"base.weights={trained.base}", f"data.root={trained.root}")
    assert folder is None and line.startswith(f"{run / file}: is missing")
