"""`python -m hrnas` is the command line."""

import sys

from hrnas.cli import main

sys.exit(main())
