"""hrnas report: the page that shows how a run got to its result."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich

from hrnas.reporting.report import write_report


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write RUN/report.html, one self-contained page, from the files of the run.

    run: the run directory.
    """

    run: str


def report(options: ReportOptions) -> dict[str, Any]:
    """Write the page and return its path. Raises InputError when the folder is no run."""
    path = write_report(Path(options.run))
    rich.get_console().print(f"Report: {path}", markup=False, highlight=False, soft_wrap=True)
    return {"verb": "report", "run": options.run, "report": str(path)}
