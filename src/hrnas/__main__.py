"""`python -m hrnas`, and `hrnas`, are the command line."""

import atexit
import os
import signal
import sys
from types import FrameType


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once, without a word: before a verb begins there is nothing to clean up, and after it nothing to say.

    An exception amid the code of modules that load, or of an interpreter that ends, would come out as a traceback.
    """
    os._exit(130)


def _ignore_signals() -> None:
    """Let the interpreter end with the exit code it has; its last act gives our handlers back to the system."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


for _number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(_number, _leave)
atexit.register(_ignore_signals)  # the first that registers is the last that is called

from hrnas.cli import main  # noqa: E402 - loading it takes a while

if __name__ == "__main__":
    sys.exit(main())
