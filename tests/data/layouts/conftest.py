import pytest

from samtune.data import DataConfig, splits, with_defaults


@pytest.fixture
def completed():
    """The settings of a folder with what it says of itself: completed(root, masks=...)."""

    def make(root, **given):
        return with_defaults(DataConfig(root=str(root), **given))

    return make


@pytest.fixture
def record_of(completed):
    """One record by name with the completed settings: record_of(root, name, masks=...)."""

    def find(root, name, **given):
        config = completed(root, **given)
        found = {r.name: r for records in splits(config).values() for r in records}
        return found[name], config

    return find
