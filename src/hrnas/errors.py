"""The exception tree. Every message says what was got, what is needed and how to mend it, in one line.

HrnasError                 exit code 2
├── InputError             bad data, option, file or run directory (also a ValueError)
│   └── CheckpointError    a checkpoint or weights file that cannot be used
│       └── DamagedError   a checkpoint that is not as it was written
├── BudgetError            exit code 3: the budget cannot be met; carries the reachable range
├── NonFiniteError         exit code 1: a loss term became nan or infinite
├── LostProcessError       exit code 1: another process of the run is gone; the only error not alike on all processes
└── Interrupted            exit code 130: stopped by SIGINT or SIGTERM after writing a checkpoint
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class HrnasError(Exception):
    """Base of every error a user may see; the command line prints its message and exits with `exit_code`."""

    exit_code: ClassVar[int] = 2


class InputError(HrnasError, ValueError):
    """The user's data, option, file or run directory cannot be used as it is."""


class CheckpointError(InputError):
    """A checkpoint or weights file is corrupt, foreign or belongs to another architecture."""


class DamagedError(CheckpointError):
    """A checkpoint lacks a file or has one that is not what was written. fact: which, without the remedy."""

    def __init__(self, fact: str) -> None:
        super().__init__(f"{fact} Remove this checkpoint to use the one before it.")
        self.fact = fact


class BudgetError(HrnasError, ValueError):
    """The budget lies outside the range of costs the space can reach."""

    exit_code = 3


class NonFiniteError(HrnasError, ArithmeticError):
    """A loss term became nan or infinite; raised before the optimizer step."""

    exit_code = 1


class LostProcessError(HrnasError):
    """Another process of the run died or does not answer.

    reason: what was seen.
    """

    exit_code = 1

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}. {remedy}")
        self.reason = reason


class Interrupted(HrnasError):  # noqa: N818 - not a fault
    """The run was asked to stop; its checkpoint is written and `hrnas resume` goes on from it."""

    exit_code = 130


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `"Did you mean 'x'? Known: a, b, x."`, without the question when no known word is near."""
    names = sorted(known)
    near = get_close_matches(word, names, n=1, cutoff=0.6)
    question = f"Did you mean '{near[0]}'? " if near else ""
    return f"{question}Known: {', '.join(names)}."
