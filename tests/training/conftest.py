"""The base that trainings share: how one goes does not depend on the number of blocks."""

import pytest
import tiny

from samtune.sam.model import Sam
from samtune.sam.spec import SPECS, SamSpec


@pytest.fixture(scope="session")
def sam() -> Sam:
    """One block of each kind, frozen; as a file and by its name it is the same."""
    return tiny.base(tiny.SHALLOW)


@pytest.fixture
def own_sam() -> Sam:
    """One that a test may change."""
    return tiny.base(tiny.SHALLOW)


@pytest.fixture
def tiny_registered(monkeypatch) -> SamSpec:
    """Makes ``base.name=tiny`` known, for what looks bases up by name."""
    monkeypatch.setitem(SPECS, "tiny", tiny.SHALLOW)
    return tiny.SHALLOW
