"""SIGKILL at every kind of moment: what is left can be resumed, and ends as the run that was never killed."""

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import tiny
from commands.faults import BEFORE_STEP_15, BEFORE_THE_END, CREATION, OFTEN, Fault, die, run_elsewhere, watched
from commands.test_resume import assert_same_run
from commands.tiny import hrnas
from hrnas.engine.checkpoint import list_checkpoints, read_checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")


def assert_at_most_an_interval_is_lost(run: Path) -> None:
    """The last checkpoint must be whole and not further back than the last interval of 5 steps."""
    steps = [line["step"] for line in tiny.lines(run / "metrics.jsonl")]
    kept = [read_checkpoint(path).state["step"] for path in list_checkpoints(run / "checkpoints")]
    assert max(steps) - max(kept) <= 5


def killed_at(operation: str, begin: Callable[[], object], *, after_step: int | None = None) -> None:
    """Begin or resume a run in another process that is killed at an operation, which must occur."""
    fault = Fault(operation, die)

    def run() -> None:
        with watched(fault):
            if after_step is None:
                fault.arm()
                begin()
            else:
                with tiny.at_step(after_step, fault.arm):
                    begin()

    assert run_elsewhere(run) == -9, operation


def test_a_run_killed_at_every_operation_in_turn_ends_as_if_it_had_not(
    reference: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with tiny.at_step(12, lambda: die("")):
        assert run_elsewhere(lambda: tiny.search(data, run, **OFTEN)) == -9
    for operation in (*BEFORE_STEP_15, "rename /step-", *BEFORE_THE_END):
        step = 13 if operation in BEFORE_STEP_15 else None
        killed_at(operation, lambda: hrnas("resume", run), after_step=step)
        assert_at_most_an_interval_is_lost(run)
    outcome = hrnas("resume", run)
    assert outcome.code == 0, outcome.err
    assert_same_run(run, reference)
    assert not list(run.rglob(".*")), "what was half written stayed"


@pytest.mark.parametrize("operation", CREATION)
def test_a_run_killed_while_it_is_made_is_begun_by_the_same_command(
    operation: str, reference: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    killed_at(operation, lambda: tiny.search(data, run, **OFTEN))
    outcome = hrnas("resume", run)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert tiny.search(data, run, **OFTEN).code == 0
    assert_same_run(run, reference)
    assert not list(run.rglob(".*"))


@pytest.mark.parametrize("operation", ["rmdir /checkpoints$", "fsync /.environment.json"])
def test_a_run_killed_while_it_replaces_another_is_begun_by_the_same_command(
    operation: str, reference: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert tiny.search(data, run, steps=2).code == 0
    killed_at(operation, lambda: tiny.search(data, run, "--overwrite", **OFTEN))
    outcome = hrnas("resume", run)
    assert outcome.code == 2
    assert "was stopped while it was made. Give its first command again." in outcome.err
    assert tiny.search(data, run, "--overwrite", **OFTEN).code == 0
    assert_same_run(run, reference)


def test_a_run_killed_again_and_again_at_random_times_ends_as_if_it_had_not(
    reference: Path, data: Path, tmp_path: Path
) -> None:
    run, draw = tmp_path / "run", random.Random(0)
    started = time.monotonic()
    assert tiny.search(data, tmp_path / "timed", **OFTEN).code == 0
    duration = time.monotonic() - started
    kills = 0
    for _ in range(6):
        begun = (run / "config.yaml").exists()
        code = run_elsewhere(
            (lambda: hrnas("resume", run)) if begun else (lambda: tiny.search(data, run, **OFTEN)),
            seconds=draw.uniform(0, 0.3 * duration),
        )
        if code == 0:
            break
        kills += 1
        assert code == -9
    assert kills >= 2
    if not (run / "report.html").exists():
        outcome = hrnas("resume", run) if (run / "config.yaml").exists() else tiny.search(data, run, **OFTEN)
        assert outcome.code == 0, outcome.err
    assert_same_run(run, reference)


def test_a_resume_killed_while_it_heals_the_lines_is_resumed(reference: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    killed_at("fsync /metrics.jsonl$", lambda: tiny.search(data, run, **OFTEN), after_step=13)
    for operation in ("fsync /run/.architecture.json", "rename /.metrics.jsonl", "fsync /.architectures.jsonl"):
        killed_at(operation, lambda: hrnas("resume", run))
    assert hrnas("resume", run).code == 0
    assert_same_run(run, reference)


def test_a_finished_run_killed_before_its_report_gets_it(reference: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    killed_at("rename /.report-", lambda: tiny.search(data, run, **OFTEN))
    assert (run / "result.json").exists()
    outcome = hrnas("resume", run)
    assert outcome.code == 0, outcome.err
    assert f"{run} is finished; only its report was missing." in outcome.out
    assert_same_run(run, reference)
    assert hrnas("resume", run).code == 2
