"""Runs that the tests of this folder share; a test that changes one copies it first."""

from pathlib import Path

import pytest

from commands import tiny
from commands.faults import OFTEN
from commands.together import search, together


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data.yaml of a tiny Toy City."""
    return tiny.toycity(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def search_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search; not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "search"
    outcome = tiny.search(data, run)
    assert outcome.code == 0, outcome.err
    return run


@pytest.fixture(scope="session")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search with the options that the faults are made for; not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "reference"
    outcome = tiny.search(data, run, **OFTEN)
    assert outcome.code == 0, outcome.err
    return run


@pytest.fixture(scope="session")
def train_run(search_run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training of the network that the search found; not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "train"
    outcome = tiny.train(search_run, data, run)
    assert outcome.code == 0, outcome.err
    return run


@pytest.fixture(scope="session")
def shared_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of two processes, with dropout; not to be changed."""
    run = tmp_path_factory.mktemp("shared") / "run"
    first, second = together(*search(data, run))
    assert first.code == second.code == 0, first.err + second.err
    assert f"{run}/best" in first.out
    assert second.out == second.err == ""
    return run
