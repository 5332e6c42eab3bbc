"""SIGINT and SIGTERM: exit code 130, one line, no process left, and a directory that goes on bit for bit."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from commands import tiny
from commands.faults import OFTEN, Fault, run_elsewhere, watched
from commands.test_resume import assert_same_run
from commands.tiny import hrnas
from hrnas.commands.run_directory import read_config
from hrnas.engine.checkpoint import list_checkpoints, read_checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def ask_twice(_path: str) -> None:
    tiny.ask_to_stop()
    tiny.ask_to_stop()


@pytest.mark.parametrize(
    ("moment", "operation"),
    [("mid-save", "save /.step-.*/averages"), ("mid-validation", "mkdir /.best.new$"), ("a line", "fsync /metrics")],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_end_and_saves(
    number: signal.Signals, moment: str, operation: str, reference: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    fault = Fault(operation, lambda path: os.kill(os.getpid(), number))
    with watched(fault), tiny.at_step(13, fault.arm):
        outcome = tiny.search(data, run, **OFTEN)
    step = 14 if moment == "a line" else 15
    assert outcome.code == 130
    assert outcome.err == f"hrnas: Stopped after step {step}; continue with 'hrnas resume {run}'.\n"
    assert list_checkpoints(run / "checkpoints")[-1].name == f"step-{step:08d}"
    assert hrnas("resume", run).code == 0
    assert_same_run(run, reference)


def test_a_second_sigint_stops_at_once_wherever_it_comes(reference: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    operations = (
        "fsync /metrics.jsonl$", "rename /run/.architecture.json", "save /.best.new/model", "rename /.best.new$",
        "save /.step-.*/averages", "rename /.step-[^/]*$", "fsync /checkpoints$",
    )  # fmt: skip
    for index, operation in enumerate(operations):
        fault = Fault(operation, ask_twice)
        with watched(fault), tiny.at_step(13, fault.arm):
            outcome = tiny.search(data, run, **OFTEN) if index == 0 else hrnas("resume", run)
        assert fault.has_happened, operation
        assert (outcome.code, outcome.err) == (130, "hrnas: interrupted\n")
        assert not list(run.rglob(".*")), "what was half written stayed"
        for path in list_checkpoints(run / "checkpoints"):
            read_checkpoint(path)
    assert hrnas("resume", run).code == 0
    assert_same_run(run, reference)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("operation", ["mkdir /run$", "rename /.config.yaml", "rename /.report-"])
def test_a_signal_outside_the_loop_is_answered_at_once(operation: str, number: int, data: Path, tmp_path: Path) -> None:
    fault = Fault(operation, lambda path: os.kill(os.getpid(), number))
    fault.arm()

    def search() -> None:
        with watched(fault):
            outcome = tiny.search(data, tmp_path / "run", steps=1)
        assert outcome.err == "hrnas: interrupted\n"
        sys.exit(outcome.code)

    assert run_elsewhere(search) == 130
    assert not list(tmp_path.rglob(".*")), "what was half written stayed"


def test_signals_have_their_old_meaning_afterwards(data: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert tiny.search(data, tmp_path / "run", steps=1).code == 0
    assert hrnas("show", tmp_path).code == 2
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@contextmanager
def search_of_its_own(data: Path, run: Path) -> Iterator[subprocess.Popen[str]]:
    """An endless search with a data worker, in a session of its own; nothing of it may outlive the block."""
    words = ["search", data, "--run", run, "--budget", "60%", "--steps", "100000", "--batch-size", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hrnas", *map(str, words), "--workers", "1", "--log-every", "1"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HRNAS_CACHE": tiny.cache_folder(), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        yield process
        deadline = time.monotonic() + 8
        while left := processes_of(process.pid):
            assert time.monotonic() < deadline, f"processes {left} were left over"
            time.sleep(0.05)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def processes_of(session: int) -> list[int]:
    """Return the living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            state, _, _, sid = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if state != "Z" and int(sid) == session:
            found.append(int(entry.name))
    return found


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not what() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def answers(process: subprocess.Popen[str], number: int) -> bool:
    """True as soon as the process has a handler for a signal."""
    (caught,) = (line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "SigCgt" in line)
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("seconds", [0.0, 0.7])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_the_start_ends_at_once(number: int, seconds: float, tmp_path: Path) -> None:
    """While modules load: no traceback, and nothing half made."""
    with search_of_its_own(tiny.toycity(tmp_path), tmp_path / "run") as process:
        wait_for(lambda: answers(process, signal.SIGTERM), process)
        time.sleep(seconds)
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err in ("", "hrnas: interrupted\n")
    assert not (tmp_path / "run").exists()


def test_a_signal_at_the_end_changes_no_exit_code(tmp_path: Path) -> None:
    """While the interpreter ends: the code that is due, or that of an interruption; never death by the signal."""
    command = [sys.executable, "-m", "hrnas", "show", str(tmp_path / "missing")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr is not None
        process.stderr.readline()
        time.sleep(0.02)
        process.send_signal(signal.SIGINT)
    assert process.returncode in (2, 130)


def test_a_hasty_user_leaves_no_process_and_a_run_that_goes_on(tmp_path: Path) -> None:
    data, run = tiny.toycity(tmp_path), tmp_path / "run"
    with search_of_its_own(data, run) as process:
        wait_for(lambda: (run / "metrics.jsonl").exists(), process)
        for _ in range(5):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.04)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert err.count("\n") == 1
    assert err.startswith("hrnas: ")
    assert read_config(run)[0] == "search"
    for path in list_checkpoints(run / "checkpoints"):
        read_checkpoint(path)


def test_the_death_of_a_worker_is_one_line(tmp_path: Path) -> None:
    """What the kernel kills when memory runs out may be the process that reads."""
    data, run = tiny.toycity(tmp_path), tmp_path / "run"
    with search_of_its_own(data, run) as process:
        wait_for(lambda: (run / "metrics.jsonl").exists(), process)
        (worker,) = {*processes_of(process.pid)} - {process.pid}
        os.kill(worker, signal.SIGKILL)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert err.count("\n") == 1, err
    assert err.startswith("hrnas: A process that reads data died (DataLoader worker")
    assert f"(pid {worker})" in err or "pid(s)" in err or "broke off while it handed a batch over" in err
    assert "memory" in err
    assert read_config(run)[0] == "search"


def test_workers_end_when_the_main_process_is_killed(tmp_path: Path) -> None:
    data, run = tiny.toycity(tmp_path), tmp_path / "run"
    with search_of_its_own(data, run) as process:
        wait_for(lambda: (run / "metrics.jsonl").exists(), process)
        assert len(processes_of(process.pid)) == 2, "the main process and its worker"
        process.kill()
        _, err = process.communicate(timeout=30)
    assert err == ""
