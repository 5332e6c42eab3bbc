"""Command lines in several processes of a test."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from commands import tiny
from commands.tiny import Outcome, hrnas
from engine.ranks import run_ranks
from hrnas.engine.distributed import Processes

GIVEN = {"space": "tiny-transformers", "budget": "85%"}


def command(processes: Processes, words: list[object], stop: tuple[int, int] | None) -> list[Any]:
    """Run a command line; the process of rank stop[0] is asked to stop after step stop[1]."""
    is_asked = stop is not None and stop[0] == processes.rank
    with tiny.at_step(stop[1], tiny.ask_to_stop) if is_asked else nullcontext():
        outcome = hrnas(*words)
    return [outcome.code, outcome.out, outcome.err]


def together(*words: object, count: int = 2, stop: tuple[int, int] | None = None) -> list[Outcome]:
    """Run a command line in several processes."""
    return [Outcome(*answer) for answer in run_ranks(count, command, list(words), stop)]


def search(data: Path, run: Path, **more: object) -> list[object]:
    return ["search", data, *tiny.options(run, **(GIVEN | more))]
