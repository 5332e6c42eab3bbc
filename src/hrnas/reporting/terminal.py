"""The tables of a run for the terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from hrnas.arch.budget import format_count
from hrnas.reporting.networks import BudgetNetwork, budget_networks
from hrnas.reporting.parts import PartTable, part_table
from hrnas.reporting.record import RunRecord
from hrnas.reporting.sentences import cut_sentence
from hrnas.reporting.tables import (
    MISSING,
    REASONS,
    block_table,
    cut_table,
    format_change,
    format_percent,
    format_score,
    result_groups,
)


def summary_tables(record: RunRecord) -> list[Table]:
    """Return everything the run has to say: its networks, result, its parts, cuts and search blocks."""
    optional = (_cut_table(record), _block_table(record))
    return [*result_tables(record), *score_tables(record)[1:], *(table for table in optional if table is not None)]


def result_tables(record: RunRecord) -> list[Table]:
    """Return the result table, before it that of the networks where there are several."""
    networks = budget_networks(record)
    return [_networks_table(record, networks), _result_table(record)] if networks else [_result_table(record)]


def score_tables(record: RunRecord) -> list[Table]:
    """Return the result table and, when the run was evaluated, that of its parts."""
    parts = part_table(record)
    return [_result_table(record), *([_part_table(parts)] if parts is not None else [])]


def _table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", title_style="bold", header_style="bold")


def _networks_table(record: RunRecord, networks: Sequence[BudgetNetwork]) -> Table:
    table = _table(f"Networks of {record.name}")
    table.add_column("budget", no_wrap=True)
    for column in ("MACs", "of the budget", "parameters", f"validation {record.metric}"):
        table.add_column(column, justify="right")
    any_tested = any(network.test is not None for network in networks)
    if any_tested:
        table.add_column(f"test {record.metric}", justify="right")
    table.add_column("folder")
    table.add_column("state")
    for network in networks:
        cost = network.cost
        macs, params = (format_count(cost.macs), format_count(cost.params)) if cost else (MISSING, MISSING)
        cells = [macs, format_percent(network.share), params, format_score(network.score)]
        if any_tested:
            cells.append(format_score(network.test))
        cells += [network.folder or MISSING, network.state]
        table.add_row(*(Text(cell) for cell in (network.target.text, *cells)), style="" if network.finished else "dim")
    return table


def _cut_table(record: RunRecord) -> Table | None:
    cuts = cut_table(record)
    if cuts is None or not cuts.cuts:
        return None
    table = _table(cut_sentence(cuts))
    table.add_column("step", justify="right")
    table.add_column("reason")
    columns = ["cut", "units left", *["tokens left"] * cuts.has_tokens, "MACs left"]
    columns += [*["parameters left"] * cuts.has_params, "change of output"]
    for column in columns:
        table.add_column(column, justify="right")
    table.add_column("budget met")
    for cut in cuts.cuts:
        cells = [f"{cut.removed:,}", f"{cut.units:,}"]
        if cuts.has_tokens:
            cells.append(MISSING if cut.tokens is None else f"{cut.tokens:,}")
        cells.append(format_count(cut.macs))
        if cuts.has_params:
            cells.append(format_count(cut.params))
        cells += [format_change(cut.output_change), cut.budget or ""]
        table.add_row(*(Text(cell) for cell in (f"{cut.step:,}", REASONS.get(cut.reason, cut.reason), *cells)))
    return table


def _result_table(record: RunRecord) -> Table:
    table = _table(record.name)
    table.add_column("")
    has_supernet = record.supernet_cost is not None
    if has_supernet:
        table.add_column("supernet", justify="right")
    table.add_column("found" if record.is_search else "network", justify="right")
    for group in result_groups(record):
        if group.title:
            table.add_section()
            table.add_row(Text(group.title, style="bold"))
        for row in group.rows:
            cells = [_with_exact(row.found, row.found_exact)]
            if has_supernet:
                cells.insert(0, _with_exact(row.supernet, row.supernet_exact))
            table.add_row(Text(row.label), *cells)
        for name, condition in group.conditions.items():
            table.add_row(Text(name), *([Text()] if has_supernet else []), Text(condition), style="dim")
    return table


def _with_exact(rounded: str, exact: str) -> Text:
    text = Text(rounded)
    if exact and exact != rounded:
        text.append(f"  {exact}", style="dim")
    return text


def _part_table(parts: PartTable) -> Table:
    table = _table(parts.title)
    table.add_column("")
    for split in parts.splits:
        table.add_column(Text(f"{split} {parts.value}"), justify="right")
        if parts.share:
            table.add_column(Text(parts.share), justify="right", style="dim")
    for group in parts.groups:
        if group.folded:
            table.add_section()
            table.add_row(Text(f"{group.title}: see the report"), style="dim")
            table.add_section()
            continue
        for row in group.rows:
            cells = []
            for value, share in zip(row.values, row.shares, strict=True):
                cells += [Text(format_score(value)), *([Text(format_percent(share))] if parts.share else [])]
            table.add_row(_swatch(row.name, row.color), *cells)
    return table


def _swatch(name: str, color: tuple[int, int, int] | None) -> Text:
    if color is None:
        return Text(name)
    return Text.assemble(("■ ", f"rgb({color[0]},{color[1]},{color[2]})"), name)


def _block_table(record: RunRecord) -> Table | None:
    blocks = block_table(record)
    if blocks is None:
        return None
    table = _table("Search blocks: hidden channels left of the supernet's" if record.supernet else "Search blocks")
    table.add_column("block", no_wrap=True)
    table.add_column("in → out", justify="right", no_wrap=True)
    for size in blocks.sizes:
        table.add_column(f"{size}×{size}", justify="right", no_wrap=True)
    if blocks.has_tokens:
        table.add_column("tokens", justify="right", no_wrap=True)
    if blocks.has_squeeze:
        table.add_column("squeeze", justify="right", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    against = record.supernet is not None
    for state in blocks.states:
        cells = [_of(state.widths[size], state.widest[size], against) for size in blocks.sizes]
        if blocks.has_tokens:
            cells.append(_of(state.block.tokens, state.tokens_widest, against and state.tokens_widest > 0))
        if blocks.has_squeeze:
            cells.append(_of(state.block.squeeze, 0, against=False))
        widths = f"{state.block.in_channels} → {state.block.out_channels}"
        style = "dim" if state.is_empty else ""
        table.add_row(Text(state.name), Text(widths), *cells, Text(format_count(state.cost.macs)), style=style)
    return table


def _of(left: int, widest: int, against: bool) -> Text:
    """Return "12/48", or "12" without a supernet; a dash when nothing is left."""
    count = str(left) if left else MISSING
    return Text.assemble(count, (f"/{widest}", "dim")) if against else Text(count)
