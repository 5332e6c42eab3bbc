"""Faults at a chosen operation on the disk, and processes that end as SIGKILL ends them."""

import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from hrnas.commands import run_directory
from hrnas.engine import checkpoint

OFTEN: Final = {"evaluations": 4}
"""Options of a run that writes best/ before step 15 and validates again at its end."""

CREATION: Final = ("mkdir /run$", "fsync /.environment.json", "rename /.environment.json", "fsync /.config.yaml")
"""Operations of a run before there is anything to resume: what is done, and a pattern of the path."""

BEFORE_STEP_15: Final = (
    "fsync /metrics.jsonl$",
    "fsync /architectures.jsonl$",
    "fsync /run/.architecture.json",
    "save /.best.new/model",
    "rename /.best.new$",
    "fsync /.evaluation.json",
    "mkdir /.step-",
    "save /.step-.*/model",
    "fsync /.step-.*/architecture.json$",
    "fsync /.state.json",
    "rename /.step-[^/]*$",
    "fsync /checkpoints$",
)
"""Operations of tiny's run between its checkpoints of steps 10 and 15, which the last one is the end of."""

BEFORE_THE_END: Final = ("fsync /.result.json", "rename /.result.json")
"""Operations between the checkpoint of step 15 and the end of the run."""


class Fault:
    """Calls `what` once, with the path, at the first operation of its kind after it was armed."""

    def __init__(self, operation: str, what: Callable[[str], None]) -> None:
        self.kind, pattern = operation.split(" ")
        self.pattern, self.what = re.compile(pattern.replace(".", r"\.").replace(r"\.*", ".*")), what
        self.is_armed = self.has_happened = False

    def arm(self) -> None:
        self.is_armed = True

    def meet(self, kind: str, path: str) -> None:
        if self.is_armed and not self.has_happened and kind == self.kind and self.pattern.search(path):
            self.has_happened = True
            self.what(path)


@contextmanager
def watched(fault: Fault) -> Iterator[None]:
    """Let every operation on the disk meet the fault before it is done."""

    def before(kind: str, function: Callable[..., Any], path_of: Callable[..., str]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            fault.meet(kind, path_of(*given))
            return function(*given, **named)

        return call

    def first(path: Any, *_: Any) -> str:
        return str(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "mkdir", before("mkdir", os.mkdir, first))
        patch.setattr(os, "rmdir", before("rmdir", os.rmdir, first))
        patch.setattr(os, "rename", before("rename", os.rename, first))
        patch.setattr(os, "replace", before("rename", os.replace, first))
        patch.setattr(os, "fsync", before("fsync", os.fsync, lambda handle: os.readlink(f"/proc/self/fd/{handle}")))
        for module in (checkpoint, run_directory):
            patch.setattr(module, "save_file", before("save", module.save_file, lambda tensors, path: str(path)))
        yield


def die(path: str) -> None:
    """End this process as the kernel or an operator ends it; a file that was to be saved is half there."""
    if path.endswith(".safetensors"):
        Path(path).write_bytes(b"half a fi")
    os.kill(os.getpid(), signal.SIGKILL)


def run_elsewhere(what: Callable[[], Any], *, seconds: float | None = None) -> int | None:
    """Do something in a copy of this process, kill it after some seconds; return its exit code, -9 when killed."""
    process = multiprocessing.get_context("fork").Process(target=what)
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode
