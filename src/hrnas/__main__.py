"""`python -m hrnas`, and `hrnas`, are the command line."""

import os
import signal
import sys
from types import FrameType


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once: while modules load nothing is begun, and an exception amid their code would end as a traceback."""
    os.write(2, b"hrnas: interrupted\n")
    os._exit(130)


for _number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(_number, _leave)

from hrnas.cli import main  # noqa: E402 - loading it takes a while

if __name__ == "__main__":
    sys.exit(main())
