"""Run directories that the tests of this folder share; a test that changes one makes its own."""

from pathlib import Path

import pytest

from hrnas.reporting.record import RunRecord
from hrnas.reporting.run_directory import read_run
from reporting.run_directories import write_family, write_run
from reporting.scorings import CLASSIFICATION, POSE


@pytest.fixture(scope="session")
def search_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of hr-small; not to be changed."""
    return write_run(tmp_path_factory.mktemp("runs") / "search")


@pytest.fixture(scope="session")
def search_record(search_run: Path) -> RunRecord:
    return read_run(search_run)


@pytest.fixture(scope="session")
def train_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training; not to be changed."""
    return write_run(tmp_path_factory.mktemp("runs") / "train", verb="train")


@pytest.fixture(scope="session")
def pose_record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A finished training whose parts have no shares, with conditions and a figure that does not exist."""
    return read_run(write_run(tmp_path_factory.mktemp("runs") / "pose", verb="train", scoring=POSE))


@pytest.fixture(scope="session")
def classification_record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A finished training of 150 classes: its network has a head of classes."""
    return read_run(write_run(tmp_path_factory.mktemp("runs") / "classes", verb="train", scoring=CLASSIFICATION))


@pytest.fixture(scope="session")
def squeezed_record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A finished search of networks with a head of classes, swish and squeeze-excitation."""
    folder = tmp_path_factory.mktemp("runs") / "squeezed"
    return read_run(write_run(folder, scoring=CLASSIFICATION, activation="swish", squeeze_ratio=0.5))


@pytest.fixture(scope="session")
def family_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search for three networks with transformers, the middle one not finished; not to be changed."""
    return write_family(tmp_path_factory.mktemp("runs") / "family", finished=(True, False, True))


@pytest.fixture(scope="session")
def family_record(family_run: Path) -> RunRecord:
    return read_run(family_run)
