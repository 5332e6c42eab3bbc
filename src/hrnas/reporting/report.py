"""The report: one HTML file from a run directory, with everything it shows inside it."""

import os
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jinja2

from hrnas.arch.budget import format_count
from hrnas.reporting.figures import draw_figures
from hrnas.reporting.pictures import embed
from hrnas.reporting.record import RunRecord
from hrnas.reporting.run_directory import read_run
from hrnas.reporting.tables import (
    block_table,
    class_rows,
    format_duration,
    format_miou,
    format_percent,
    result_rows,
    sentence,
)

DATASET_TITLES: Final = {"toycity": "Toy City", "camvid": "CamVid"}
_TEMPLATES: Final = Path(__file__).parent / "templates"


def write_report(run: Path) -> Path:
    """Write RUN/report.html, whole or not at all, and return its path. Raises InputError as `read_run` does."""
    page = render(read_run(run))
    target = Path(run) / "report.html"
    handle, temporary = tempfile.mkstemp(dir=run, prefix=".report-", suffix=".html")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(page)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    return target


def render(record: RunRecord) -> str:
    """Return the page of a run; the same record gives the same bytes."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"miou": format_miou, "percent": format_percent, "count": format_count}
    blocks = block_table(record)
    return environment.get_template("report.html.jinja").render(
        run=record,
        title=DATASET_TITLES.get(record.dataset, record.dataset),
        sentence=sentence(record),
        tiles=_tiles(record),
        rows=result_rows(record),
        figures=draw_figures(record, blocks),
        blocks=blocks,
        classes=class_rows(record),
        pictures=embed(record.predictions),
        options=_options(record),
        environment=_environment(record),
        commands=_commands(record),
    )


def _tiles(record: RunRecord) -> list[tuple[str, str, str]]:
    """The few figures to remember: (name, value, what it is measured against) each."""
    tiles = []
    scores = list(record.scores.values())
    found, supernet, budget = record.found_cost, record.supernet_cost, record.budget_macs
    height, width = record.input_size
    for score in scores:
        tiles.append((f"miou, {score.split}", format_miou(score.miou, 3), f"{score.samples:,} samples"))
    if not scores and record.evaluations:
        last = record.evaluations[-1]
        tiles.append((f"miou, {last.split}", format_miou(last.miou, 3), f"at step {last.step:,}"))
    if found is not None:
        share = f"{format_percent(found.macs / budget)} of the budget" if budget else f"{found.macs:,}"
        tiles.append((f"MACs at {height}×{width}", format_count(found.macs), share))
        of = f"of {format_count(supernet.params)} in the supernet" if supernet else f"{found.params:,}"
        tiles.append(("parameters", format_count(found.params), of))
    return tiles


def _options(record: RunRecord) -> list[tuple[str, str]]:
    """The run's options as (name, value), nested ones with dots; the data set's class lists are left to the tables."""
    left_out = {"data.names", "data.colors"}
    return [(name, value) for name, value in _flat(record.config) if name not in left_out]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        elif value is not None:
            found.append((f"{prefix}{key}", " × ".join(map(str, value)) if _is_size(value) else str(value)))
    return found


def _is_size(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(side) is int for side in value)


def _environment(record: RunRecord) -> list[tuple[str, str]]:
    rows = [("time", format_duration(record.seconds)), ("steps", f"{record.last_step:,} of {record.steps:,}")]
    return rows + [(key, value) for key, value in record.environment.items() if key != "command"]


def _commands(record: RunRecord) -> list[tuple[str, str]]:
    """Commands to reproduce and to go on, as (what it does, command)."""
    run = shlex.quote(str(record.folder))
    commands = []
    if "command" in record.environment:
        commands.append(("made this run", record.environment["command"]))
    if not record.finished:
        commands.append(("goes on where it stopped", f"hrnas resume {run}"))
    return [
        *commands,
        ("measures the network again", f"hrnas evaluate {run}"),
        ("predicts your own images", f"hrnas predict {run} IMAGES"),
        ("shows these tables in the terminal", f"hrnas show {run}"),
        ("writes this page again", f"hrnas report {run}"),
    ]
