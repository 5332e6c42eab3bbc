"""The command line with the tiny search spaces, for processes that a test starts: `python -m commands.tiny_process`."""

import sys

from commands.tiny import tiny_world
from hrnas.cli import main

if __name__ == "__main__":
    with tiny_world():
        sys.exit(main())
