"""The command line with the tiny search spaces, for processes that a test starts: `python -m commands.tiny_process`.

TINY_SIGNAL="RANK STEP dies" makes the process of that rank kill itself after that step, "RANK STEP stops" ask
torchrun to stop; unless torchrun has restarted it.
"""

import os
import signal
import sys
import time
from contextlib import nullcontext

from commands import tiny
from hrnas.cli import main


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def ask_torchrun_to_stop() -> None:
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(3)  # in which torchrun tells all processes


if __name__ == "__main__":
    rank, step, what = os.environ.get("TINY_SIGNAL", "-1 0 dies").split()
    is_meant = os.environ.get("RANK") == rank and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    action = {"dies": die, "stops": ask_torchrun_to_stop}[what]
    with tiny.tiny_world(), tiny.at_step(int(step), action) if is_meant else nullcontext():
        sys.exit(main())
