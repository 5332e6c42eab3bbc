"""The tables of a run for the terminal."""

from rich.table import Table
from rich.text import Text

from hrnas.arch.budget import format_count
from hrnas.reporting.record import RunRecord
from hrnas.reporting.tables import (
    MISSING,
    block_table,
    class_rows,
    format_miou,
    format_percent,
    result_rows,
)


def summary_tables(record: RunRecord) -> list[Table]:
    """Return the result table, the class table when the run was evaluated, and the table of every search block."""
    tables = [_result_table(record)]
    if record.scores:
        tables.append(_class_table(record))
    if (blocks := _block_table(record)) is not None:
        tables.append(blocks)
    return tables


def _table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", title_style="bold", header_style="bold")


def _result_table(record: RunRecord) -> Table:
    table = _table(record.name)
    table.add_column("")
    has_supernet = record.supernet_cost is not None
    if has_supernet:
        table.add_column("supernet", justify="right")
    table.add_column("found" if record.is_search else "network", justify="right")
    for row in result_rows(record):
        cells = [_with_exact(row.found, row.found_exact)]
        if has_supernet:
            cells.insert(0, _with_exact(row.supernet, row.supernet_exact))
        table.add_row(Text(row.label), *cells)
    return table


def _with_exact(rounded: str, exact: str) -> Text:
    text = Text(rounded)
    if exact and exact != rounded:
        text.append(f"  {exact}", style="dim")
    return text


def _class_table(record: RunRecord) -> Table:
    table = _table("IoU of the classes")
    table.add_column("class")
    for split in record.scores:
        table.add_column(Text(f"{split} IoU"), justify="right")
        table.add_column("of pixels", justify="right", style="dim")
    for row in class_rows(record):
        cells = []
        for iou, share in zip(row.ious, row.shares, strict=True):
            cells += [Text(format_miou(iou)), Text(format_percent(share))]
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
    table.add_column("MACs", justify="right", no_wrap=True)
    against = record.supernet is not None
    for state in blocks.states:
        cells = [_of(state.widths[size], state.widest[size], against) for size in blocks.sizes]
        if blocks.has_tokens:
            cells.append(_of(state.block.tokens, state.tokens_widest, against))
        widths = f"{state.block.in_channels} → {state.block.out_channels}"
        style = "dim" if state.is_empty else ""
        table.add_row(Text(state.name), Text(widths), *cells, Text(format_count(state.cost.macs)), style=style)
    return table


def _of(left: int, widest: int, against: bool) -> Text:
    """Return "12/48", or "12" without a supernet; a dash when nothing is left."""
    count = str(left) if left else MISSING
    return Text.assemble(count, (f"/{widest}", "dim")) if against else Text(count)
