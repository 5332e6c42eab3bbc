"""hrnas check: the data doctor's findings as tables and a contact sheet."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from hrnas.data.data_yaml import read_description
from hrnas.data.doctor import Examination, SplitExamination, examine
from hrnas.data.sheet import contact_sheet
from hrnas.errors import InputError


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Examine a data set before a search: label values, void, sizes, class balance, broken and repeated files.

    data: a data.yaml, a folder that holds one, or the name of a built-in set (toycity).
    limit: read only so many pictures of each split; all where left out.
    sheet: where to write the contact sheet, a PNG; 'none' writes none.
    """

    data: str
    limit: int | None = None
    sheet: str = "contact-sheet.png"

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit is {self.limit}; at least 1 is needed.")


def check(options: CheckOptions) -> dict[str, Any]:
    """Examine and show; return what was found. Raises InputError, after showing all, when a search could not start."""
    description = read_description(options.data)
    with Progress(console=rich.get_console(), transient=True, disable=not rich.get_console().is_terminal) as progress:
        bars = {split: progress.add_task(split, total=None) for split in description.split_names}
        examination = examine(
            description,
            options.limit,
            lambda split, done, total: progress.update(bars[split], completed=done, total=total),
        )
    sheet = None
    if options.sheet != "none":
        sheet = str(contact_sheet(description, Path(options.sheet)))
    for table in _tables(examination):
        rich.print(table)
    console = rich.get_console()
    for line in examination.warnings:
        console.print(f"[yellow]warning[/] {escape(line)}", highlight=False, soft_wrap=True)
    for line in examination.problems[:-1]:  # the last ends the command, as its error
        console.print(f"[red]problem[/] {escape(line)}", highlight=False, soft_wrap=True)
    console.print(f"Contact sheet: {sheet}" if sheet else "No contact sheet was written.", markup=False, soft_wrap=True)
    if examination.problems:
        count = len(examination.problems)
        which = (
            "a problem that would stop a search"
            if count == 1
            else f"{count} problems that would stop a search; the last"
        )
        raise InputError(f"{options.data} has {which}: {examination.problems[-1]}")
    return {
        "verb": "check",
        "data": options.data,
        "contact_sheet": sheet,
        "problems": list(examination.problems),
        "warnings": list(examination.warnings),
        "splits": {
            found.split: {
                "pictures": found.num_pictures,
                "sizes": {f"{height}x{width}": count for (height, width), count in found.sizes.items()},
                "ignored_share": found.ignored_share,
                "shares": dict(zip(examination.names, found.shares, strict=True)),
                "counts": dict(zip(examination.names, found.counts, strict=True)),
            }
            for found in examination.splits
            if found.fault is None
        },
    }


def _share(found: SplitExamination, index: int) -> str:
    return f"[dim]{found.counts[index]:,}[/]  {found.shares[index]:6.2%}"


def _tables(examination: Examination) -> Iterator[Table]:
    readable = [found for found in examination.splits if found.fault is None and found.num_read]
    splits = Table(title="Splits", title_justify="left")
    for column in ("split", "pictures", "read", "sizes (H x W)", "void"):
        splits.add_column(column, justify="left" if column in ("split", "sizes (H x W)") else "right")
    for found in readable:
        most = sorted(found.sizes.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{height}x{width} ({count})" for (height, width), count in most[:3])
        more = f", {len(most) - 3} more" if len(most) > 3 else ""
        splits.add_row(
            found.split, str(found.num_pictures), str(found.num_read), shown + more, f"{found.ignored_share:.1%}"
        )
    yield splits
    classes = Table(title=f"{examination.counted.capitalize()} ...", title_justify="left")
    classes.add_column("name")
    for found in readable:
        classes.add_column(found.split, justify="right")
    for index, name in enumerate(examination.names):
        red, green, blue = examination.colors[index]
        mark = f"[rgb({red},{green},{blue})]■[/]"
        classes.add_row(f"{mark} {escape(name)}", *(_share(found, index) for found in readable))
    yield classes
