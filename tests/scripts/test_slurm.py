"""What a job of SLURM starts, first and when it is queued again; torchrun itself is not started."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

submitit = pytest.importorskip("submitit")

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm.py"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """Commands and environments of the processes that were started."""
    found: list[tuple[list[str], dict[str, str]]] = []

    def start(command: list[str], *, env: dict[str, str]) -> Any:
        found.append((command, env))
        return SimpleNamespace(wait=lambda: 0, send_signal=lambda number: None)

    monkeypatch.setattr("subprocess.Popen", start)
    monkeypatch.setattr(submitit, "JobEnvironment", lambda: SimpleNamespace(job_id="123_4", hostnames=["alpha"]))
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    monkeypatch.delenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", raising=False)
    return found


def slurm() -> Any:
    spec = importlib.util.spec_from_file_location("slurm", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words_of(started: list[tuple[list[str], dict[str, str]]]) -> list[str]:
    command, _ = started[-1]
    return command[command.index("hrnas") + 1 :]


def test_only_a_job_that_is_queued_again_resumes(
    started: list[tuple[list[str], dict[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, resumed = ["search", "data.yaml", "--run", str(tmp_path)], ["resume", str(tmp_path)]
    launch = slurm().Launch(first, run=tmp_path, nodes=1, processes=2)
    launch()
    again = launch.checkpoint().function
    again()
    assert words_of(started) == first, "stopped before there was a run"
    (tmp_path / "config.yaml").touch()
    again()
    assert words_of(started) == resumed
    again.checkpoint().function()
    assert words_of(started) == resumed
    launch()
    assert words_of(started) == first, "the run is another's: hrnas refuses it"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    launch()
    assert words_of(started) == resumed


def test_torchrun_waits_for_the_checkpoint_almost_as_long_as_slurm_does(
    started: list[tuple[list[str], dict[str, str]]], tmp_path: Path
) -> None:
    module = slurm()
    module.Launch(["search"], run=tmp_path, nodes=1, processes=2)()
    _, environment = started[-1]
    assert 60 <= int(environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < module.GRACE
