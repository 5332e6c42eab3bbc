"""The report: one HTML file from a run directory, with everything it shows inside it."""

import math
import os
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jinja2

from hrnas.arch.budget import format_count
from hrnas.reporting.figures import draw_figures
from hrnas.reporting.networks import OWN_FOLDER, BudgetNetwork, budget_networks
from hrnas.reporting.parts import part_table
from hrnas.reporting.pictures import embed
from hrnas.reporting.record import RunRecord
from hrnas.reporting.run_directory import read_run
from hrnas.reporting.sentences import activation_sentence, cut_sentence, sentence, transformer_sentence
from hrnas.reporting.tables import (
    REASONS,
    block_table,
    cut_table,
    format_change,
    format_duration,
    format_percent,
    format_score,
    result_groups,
)

DATASET_TITLES: Final = {
    "ade20k": "ADE20K",
    "camvid": "CamVid",
    "cityscapes": "Cityscapes",
    "coco": "COCO",
    "imagenet": "ImageNet",
    "toycity": "Toy City",
}
LONG: Final = 8
"""Items above which an option's list is cut short."""
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
    environment.filters |= {
        "score": format_score,
        "percent": format_percent,
        "count": format_count,
        "change": format_change,
    }
    blocks, cuts, networks = block_table(record), cut_table(record), budget_networks(record)
    return environment.get_template("report.html.jinja").render(
        run=record,
        title=DATASET_TITLES.get(record.dataset, record.dataset),
        sentence=sentence(record),
        tiles=_tiles(record),
        networks=networks,
        any_tested=any(network.test is not None for network in networks),
        groups=result_groups(record),
        figures=draw_figures(record, blocks),
        cuts=cuts,
        cut_sentence=cut_sentence(cuts) if cuts is not None and cuts.cuts else "",
        reasons=REASONS,
        transformers=transformer_sentence(record, blocks) if blocks is not None else "",
        activation=activation_sentence(record.architecture) if record.architecture is not None else "",
        blocks=blocks,
        parts=part_table(record),
        pictures=embed(record.predictions),
        options=_options(record),
        environment=_environment(record),
        commands=_commands(record),
    )


def _tiles(record: RunRecord) -> list[tuple[str, str, str]]:
    """The few figures to remember: (name, value, what it is measured against) each."""
    networks = [network for network in budget_networks(record) if network.cost is not None]
    if len(networks) > 1:
        return _tiles_of_several(record, networks)
    tiles = []
    scores = list(record.scores.values())
    found, supernet, target = record.found_cost, record.supernet_cost, record.target
    height, width = record.input_size
    for score in scores:
        tiles.append((f"{score.metric}, {score.split}", format_score(score.score, 3), f"{score.samples:,} samples"))
    if not scores and record.evaluations:
        last = record.evaluations[-1]
        tiles.append((f"{last.metric}, {last.split}", format_score(last.score, 3), f"at step {last.step:,}"))
    if found is not None:
        macs, params = (target.macs, target.params) if target is not None else (None, None)
        share = f"{format_percent(found.macs / macs)} of the budget" if macs else f"{found.macs:,}"
        tiles.append((f"MACs at {height}×{width}", format_count(found.macs), share))
        of = f"of {format_count(supernet.params)} in the supernet" if supernet else f"{found.params:,}"
        if params:
            of = f"{format_percent(found.params / params)} of the budget"
        tiles.append(("parameters", format_count(found.params), of))
    return tiles


def _tiles_of_several(record: RunRecord, networks: Sequence[BudgetNetwork]) -> list[tuple[str, str, str]]:
    """The tiles of a run that has set several networks aside: from the least to the most of them."""
    height, width = record.input_size
    count = len(budget_networks(record))
    finished = sum(network.finished for network in networks)
    state = "all finished" if finished == count else f"{finished} of {count} finished"
    tiles = [("networks", str(len(networks)), state)]
    for split, values in (
        ("validation", [network.score for network in networks]),
        ("test", [network.test for network in networks]),
    ):
        known = [value for value in values if value is not None and math.isfinite(value)]
        if known:
            of = f"of {len(known)} networks" if len(known) > 1 else "of 1 network"
            tiles.append((f"{record.metric}, {split}", _range([format_score(value, 3) for value in sorted(known)]), of))
    costs = [network.cost for network in networks if network.cost is not None]
    shares = [format_percent(network.share) for network in sorted(networks, key=lambda n: n.share or 0.0)]
    macs, params = (sorted(getattr(cost, name) for cost in costs) for name in ("macs", "params"))
    macs_range, params_range = (_range([format_count(count) for count in counts]) for counts in (macs, params))
    tiles.append((f"MACs at {height}×{width}", macs_range, f"{_range(shares)} of the budgets"))
    supernet = record.supernet_cost
    of = f"of {format_count(supernet.params)} in the supernet" if supernet else ""
    return [*tiles, ("parameters", params_range, of)]


def _range(words: Sequence[str]) -> str:
    """Return "500M–2G" of ascending values, or the value that all are."""
    return words[0] if words[0] == words[-1] else f"{words[0]}–{words[-1]}"


def _options(record: RunRecord) -> list[tuple[str, str]]:
    """The run's options as (name, value), nested ones with dots; names and colours are left to the table of parts."""
    left_out = {"data.names", "data.colors"}
    return [(name, value) for name, value in _flat(record.config) if name not in left_out]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        elif value is not None:
            found.append((f"{prefix}{key}", _option(value)))
    return found


def _option(value: object) -> str:
    if not isinstance(value, list):
        return str(value)
    if len(value) == 2 and all(type(side) is int for side in value):
        return " × ".join(map(str, value))
    return str(value) if len(value) <= LONG else f"{', '.join(map(str, value[:LONG]))}, … ({len(value):,} in all)"


def _environment(record: RunRecord) -> list[tuple[str, str]]:
    rows = [("time", format_duration(record.seconds)), ("steps", f"{record.last_step:,} of {record.steps:,}")]
    for name, seconds in (("validations", record.evaluation_seconds), ("waiting for data", record.data_seconds)):
        if seconds is not None and record.loop_seconds:
            share = format_percent(seconds / record.loop_seconds)
            rows.append((name, f"{format_duration(seconds)}, {share} of the loop"))
    return rows + [(key, value) for key, value in record.environment.items() if key != "command"]


def _commands(record: RunRecord) -> list[tuple[str, str]]:
    """Commands to reproduce and to go on, as (what it does, command)."""
    run = shlex.quote(str(record.folder))
    commands = []
    if "command" in record.environment:
        commands.append(("made this run", record.environment["command"]))
    if not record.finished:
        commands.append(("goes on where it stopped", f"hrnas resume {run}"))
    for network in budget_networks(record) if record.finished else ():
        if not network.finished and network.folder not in (None, OWN_FOLDER):
            folder = shlex.quote(str(record.folder / str(network.folder)))
            commands.append((f"finishes the network of {network.target.name}", f"hrnas train {folder}"))
    return [
        *commands,
        ("measures the network again", f"hrnas evaluate {run}"),
        ("predicts your own files", f"hrnas predict {run} FILES"),
        ("shows these tables in the terminal", f"hrnas show {run}"),
        ("writes this page again", f"hrnas report {run}"),
    ]
