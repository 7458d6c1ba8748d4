"""Fixtures that all tests may use; ``tiny`` holds what they are made of."""

import gc
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from unittest import mock

import pytest
import tiny
import torch
import typer.main
from commands import Answer, Trained, exit_code, train_once
from forks import Forks

from samtune.errors import InputError
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS, SamSpec

# Cycles are rare here, and to look for them among all that torch and the collected tests hold took
# a tenth of the suite's time: what lives to the end is set aside, the rest looked at less often.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item) -> None:
    """Models of full size, which tests that take long build, do not wait for that."""
    if item.get_closest_marker("slow"):
        gc.collect(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.default_generator.manual_seed(0)  # for an idle GPU torch would note the stack each time
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(0)


@pytest.fixture(autouse=True)
def without_a_width(monkeypatch) -> None:
    """No test depends on the width of the terminal that the suite was started in."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session", autouse=True)
def without_waiting_for_the_disk() -> Iterator[None]:
    """Files of tests need not outlive a power cut."""
    with mock.patch("os.fsync"):
        yield


@pytest.fixture(scope="session", autouse=True)
def parser_built_once() -> Iterator[None]:
    """The parser of the command line, built once as a process of its own does."""
    with mock.patch("typer.main.get_command", cache(typer.main.get_command)):
        yield


@pytest.fixture(scope="session")
def spec() -> SamSpec:
    return tiny.TINY


@pytest.fixture(scope="session")
def sam() -> Sam:
    """The tiny base, frozen, shared by all tests: they must leave it as it is."""
    return tiny.base()


@pytest.fixture
def own_sam() -> Sam:
    """An own tiny base, for tests that change it."""
    return tiny.base()


@pytest.fixture
def tiny_registered(monkeypatch) -> SamSpec:
    """Makes ``base.name=tiny`` known, for what looks bases up by name."""
    monkeypatch.setitem(SPECS, "tiny", tiny.TINY)
    return tiny.TINY


@pytest.fixture
def tiny_weights(tiny_registered, sam, tmp_path) -> Path:
    """The tiny base as a file, and known by its name."""
    from safetensors.torch import save_file

    path = tmp_path / "tiny_base.safetensors"
    save_file({key: t.clone() for key, t in sam.state_dict().items()}, path)
    return path


@pytest.fixture
def pairs(tmp_path) -> Path:
    """A data set of eight image and mask pairs."""
    return tiny.write_pairs(tmp_path / "pairs")


@pytest.fixture
def refused():
    """Asserts that a call raises InputError with one line that holds the given words."""

    def check(words, call, *args, **kwargs) -> str:
        with pytest.raises(InputError) as caught:
            call(*args, **kwargs)
        message = str(caught.value)
        assert "\n" not in message
        for word in words if isinstance(words, list) else [words]:
            assert str(word) in message, message
        return message

    return check


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
    """A finished run of the command line on eight pairs, for tests that only read it."""
    return train_once(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def forks(tmp_path_factory) -> Iterator[Forks]:
    """Starts processes that need not import torch."""
    starts = Forks(tmp_path_factory.mktemp("forks"))
    yield starts
    starts.close()


@pytest.fixture
def quick_inductor() -> Iterator[None]:
    """Kernels without vector instructions, compiled one after the other and not optimised much.

    To try which instructions there are takes longer than to compile a tiny model, and so does the
    start of processes that compile, or a header that is compiled before for the use of one file.
    """
    from torch._inductor import config

    package = {"precompile_headers": False, "compile_wrapper_opt_level": "O0"}
    changes = {f"aot_inductor.{name}": value for name, value in package.items()}
    with config.patch({"cpp.vec_isa_ok": False, "compile_threads": 1, **changes}):
        yield


@pytest.fixture
def samtune(capsys, tiny_registered):
    """Runs the command line in this process: ``samtune(words) -> Answer``."""

    def run(*words: object) -> Answer:
        capsys.readouterr()
        code = exit_code(words)
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return run
