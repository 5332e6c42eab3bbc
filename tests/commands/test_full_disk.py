"""A full disk, at every write of a run: one clear line, the checkpoints before it whole, and resume goes on."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from commands import tiny
from commands.faults import BEFORE_STEP_15, BEFORE_THE_END, CREATION, OFTEN, Fault, watched
from commands.test_resume import assert_same_run
from commands.tiny import Outcome, hrnas
from hrnas.engine.checkpoint import list_checkpoints, read_checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def refuse(path: str) -> None:
    """Fail as a full disk does; safetensors has an error of its own for it."""
    if path.endswith(".safetensors") and not Path(path).exists():
        Path(path).write_bytes(b"half a fi")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def refused_at(operation: str, begin: Callable[[], Outcome], *, after_step: int | None = None) -> Outcome:
    """Begin or resume a run on a disk that is full at one operation, which must occur."""
    fault = Fault(operation, refuse)
    with watched(fault):
        if after_step is None:
            fault.arm()
            outcome = begin()
        else:
            with tiny.at_step(after_step, fault.arm):
                outcome = begin()
    assert fault.has_happened, operation
    return outcome


def assert_clear(outcome: Outcome, run: Path, *words: str) -> None:
    """The line must name run and cause, and say how to go on."""
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1, outcome.err
    for word in ("hrnas: ", str(run), *words):
        assert word in outcome.err, outcome.err


def test_every_write_that_a_full_disk_refuses_is_one_line_and_loses_nothing(
    reference: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with tiny.at_step(12, tiny.ask_to_stop):
        assert tiny.search(data, run, **OFTEN).code == 130
    for operation in (*BEFORE_STEP_15, *BEFORE_THE_END):
        outcome = refused_at(
            operation, lambda: hrnas("resume", run), after_step=13 if operation in BEFORE_STEP_15 else None
        )
        assert_clear(outcome, run, "No space left on device", "Free disk space")
        assert not list(run.rglob(".*")), "what could not be written stayed"
        for path in list_checkpoints(run / "checkpoints"):
            read_checkpoint(path)
    outcome = hrnas("resume", run)
    assert outcome.code == 0, outcome.err
    assert_same_run(run, reference)


@pytest.mark.parametrize("operation", CREATION)
def test_a_run_that_cannot_be_made_is_made_by_the_same_command(operation: str, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert_clear(refused_at(operation, lambda: tiny.search(data, run, steps=1)), run, "No space left", "--run")
    assert tiny.search(data, run, steps=1).code == 0


def test_a_report_that_cannot_be_written_is_written_by_resume(reference: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    outcome = refused_at("rename /.report-", lambda: tiny.search(data, run, **OFTEN))
    assert_clear(outcome, run, "No space left", "is finished", f"hrnas report {run}")
    assert hrnas("resume", run).code == 0
    assert_same_run(run, reference)


def test_files_the_kernel_refuses_are_reported(reference: Path, data: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: what writes meet is real, safetensors' own included."""
    run = tmp_path / "run"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    smallest = min(file.stat().st_size for file in reference.glob("checkpoints/*/model.safetensors"))
    try:
        with tiny.at_step(12, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (smallest // 2, before[1]))):
            outcome = tiny.search(data, run, **OFTEN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_clear(outcome, run, "File too large")
    assert [path.name for path in list_checkpoints(run / "checkpoints")] == ["step-00000005", "step-00000010"]
    assert hrnas("resume", run).code == 0
    assert_same_run(run, reference)


def test_a_disk_that_is_really_full(reference: Path, data: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        run = disk / "run"

        def fill() -> None:
            with pytest.raises(OSError, match="No space left"):
                (disk / "others").write_bytes(bytes(8 << 20))

        with tiny.at_step(12, fill):
            outcome = tiny.search(data, run, **OFTEN)
        assert_clear(outcome, run, "No space left on device")
        assert_clear(hrnas("resume", run), run, "No space left on device")
        (disk / "others").unlink()
        outcome = hrnas("resume", run)
        assert outcome.code == 0, outcome.err
        assert_same_run(run, reference)
    finally:
        subprocess.run(["umount", disk], check=True)
