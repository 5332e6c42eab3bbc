"""Runs started by torchrun itself: a worker killed, a group restarted or stopped, two machines; on one host."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from commands import tiny
from commands.test_resume import assert_same_run
from commands.tiny import hrnas
from commands.together import search, together

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="torchrun's agents are tested on Linux")

TESTS = Path(__file__).parents[1]


def torchrun(*options: object, words: list[object], event: str | None = None) -> "subprocess.Popen[str]":
    """Start torchrun on a command line; event: what happens to it, as `commands.tiny_process` says."""
    paths = [str(TESTS.parent / "src"), str(TESTS), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1",
        "HRNAS_CACHE": tiny.cache_folder(), **({"TINY_SIGNAL": event} if event else {}),
    }  # fmt: skip
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", *map(str, options), "-m", "--", "commands.tiny_process",
            *map(str, words),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def said(errors: str) -> list[str]:
    """Return what hrnas itself said on the error stream; torchrun says more."""
    assert "hrnas/commands" not in errors, f"a traceback of ours: {errors}"
    return [line for line in errors.splitlines() if line.startswith("hrnas: ")]


def test_when_a_worker_is_killed_the_other_stops_and_the_run_can_be_resumed(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    started = time.monotonic()
    process = torchrun("--standalone", "--nproc-per-node", 2, words=search(data, run), event="0 12 dies")
    _, errors = process.communicate(timeout=100)
    assert time.monotonic() - started < 60
    assert process.returncode == 1
    (line,) = said(errors)
    assert line.startswith("hrnas: Process 1 of 0..1 lost another (")
    assert line.endswith(f"). Continue with 'hrnas resume {run}'.")
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000005", "step-00000010"]
    outcome = hrnas("resume", run)
    assert outcome.code == 0, outcome.err
    assert (run / "result.json").is_file()


def test_a_group_that_torchrun_restarts_goes_on_with_the_run(data: Path, shared_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--standalone", "--nproc-per-node", 2, "--max-restarts", 1)
    process = torchrun(*options, words=search(data, run), event="1 12 dies")
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert "Process 0 of 0..1 lost another (" in "".join(said(errors))
    assert_same_run(run, shared_run)


def test_when_torchrun_is_told_to_stop_all_stop_with_a_checkpoint(data: Path, shared_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = torchrun("--standalone", "--nproc-per-node", 2, words=search(data, run), event="1 9 stops")
    _, errors = process.communicate(timeout=100)
    assert said(errors) == [f"hrnas: Stopped after step 9; continue with 'hrnas resume {run}'."]
    assert (run / "checkpoints" / "step-00000009").is_dir()
    assert [outcome.code for outcome in together("resume", run)] == [0, 0]
    assert_same_run(run, shared_run)


def test_two_machines_are_two_processes(data: Path, shared_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = (
        "--nnodes", 2, "--nproc-per-node", 1, "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}",
        "--rdzv-id", "tiny", "--local-addr", "127.0.0.1",
    )  # fmt: skip
    agents = [torchrun(*options, words=search(data, run)) for _ in range(2)]
    outputs = [agent.communicate(timeout=100) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], outputs
    assert sum("Network: " in out for out, _ in outputs) == 1, "rank zero alone prints"
    assert_same_run(run, shared_run)
