"""hrnas show: a run, or an architecture file, as tables on the terminal."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich
from rich.table import Table

from hrnas.arch.architecture import Architecture
from hrnas.arch.description import describe
from hrnas.arch.file import fingerprint, read_architecture
from hrnas.arch.published import PUBLISHED, published_network
from hrnas.reporting.run_directory import read_run
from hrnas.reporting.terminal import summary_tables


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """Show a run: networks, result, its parts, cuts and every search block. Or the blocks of an architecture file.

    run: the run directory, or an architecture.json.
    """

    run: str


def show(options: ShowOptions) -> dict[str, Any]:
    """Print the tables of a run, finished or not, or of an architecture. Raises InputError when it is neither."""
    if options.run in PUBLISHED:
        rich.print(_block_table(published_network(options.run)))
    elif Path(options.run).is_file():
        rich.print(_block_table(read_architecture(options.run)))
    else:
        for table in summary_tables(read_run(options.run)):
            rich.print(table)
    return {"verb": "show", "run": options.run}


def _block_table(architecture: Architecture) -> Table:
    rows = describe(architecture)
    sizes = list(rows[0].widths) if rows else []
    features = ", ".join(f"{feature.channels} at 1/{feature.stride}" for feature in architecture.features)
    activation = "" if architecture.activation == "relu" else f", {architecture.activation}"
    name = f"{architecture.name} {fingerprint(architecture)}"
    table = Table(
        title=f"{name}, {len(rows)} search blocks, branches {features}{activation}",
        title_justify="left",
    )
    has_tokens, has_gates = any(row.tokens for row in rows), any(row.squeeze for row in rows)
    columns = ["block", "channels", "stride", *(f"{size}x{size}" for size in sizes)]
    for column in [*columns, *["squeeze"] * has_gates, *["tokens"] * has_tokens]:
        table.add_column(column, justify="left" if column == "block" else "right")
    for row in rows:
        widths = (str(width) if width else "-" for width in row.widths.values())
        channels = f"{row.in_channels} -> {row.out_channels}"
        tokens = [str(row.tokens) if row.tokens else "-"] if has_tokens else []
        gates = [str(row.squeeze) if row.squeeze else "-"] if has_gates else []
        table.add_row(row.name, channels, str(row.stride), *widths, *gates, *tokens)
    return table
