"""hrnas show: a run as tables on the terminal."""

from dataclasses import dataclass
from typing import Any

import rich

from hrnas.reporting.run_directory import read_run
from hrnas.reporting.terminal import summary_tables


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """Show a run: its result, its classes, its network block by block.

    run: the run directory.
    """

    run: str


def show(options: ShowOptions) -> dict[str, Any]:
    """Print the tables of a run, finished or not. Raises InputError when the folder is no run."""
    record = read_run(options.run)
    for table in summary_tables(record):
        rich.print(table)
    return {"verb": "show", "run": options.run}
