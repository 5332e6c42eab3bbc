"""The evaluation taken apart, by class or by joint, as a table; a long one is ranked, its middle folded away."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hrnas.reporting.panel import finite
from hrnas.reporting.record import RGB, Parts, PartScore, RunRecord

MANY: Final = 50
"""Rows above which a table is ranked."""
ENDS: Final = 20
"""Rows at each end of a ranked table that are not folded away."""


@dataclass(frozen=True, kw_only=True)
class PartRow:
    """One part. values, shares: by split, in the order of the record's scores; None where undefined."""

    name: str
    color: RGB | None
    values: tuple[float | None, ...]
    shares: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class PartGroup:
    """Rows that stand together. title: "" where all rows do; folded: to be shown on demand."""

    title: str
    rows: tuple[PartRow, ...]
    folded: bool = False


@dataclass(frozen=True, kw_only=True)
class PartTable:
    """The table of parts. value, share: headings; share is "" where no row has one. means: of the values, by split."""

    title: str
    value: str
    share: str
    splits: tuple[str, ...]
    means: tuple[float | None, ...]
    groups: tuple[PartGroup, ...]

    @property
    def num_rows(self) -> int:
        """How many parts there are."""
        return sum(len(group.rows) for group in self.groups)

    @property
    def is_ranked(self) -> bool:
        """True for a long table, in the order of the first split's values; else it has the data set's order."""
        return len(self.groups) > 1


def part_table(record: RunRecord) -> PartTable | None:
    """Return the parts of every evaluated split side by side; None where no evaluation was taken apart."""
    by_split = {split: score.parts for split, score in record.scores.items() if score.parts is not None}
    if not by_split:
        return None
    first = next(iter(by_split.values()))
    named = [_by_name(parts) for parts in by_split.values()]
    rows = [
        PartRow(
            name=part.name,
            color=part.color,
            values=tuple(parts[key].value if key in parts else None for parts in named),
            shares=tuple(parts[key].share if key in parts else None for parts in named),
        )
        for key, part in named[0].items()
    ]
    has_shares = bool(finite(share for row in rows for share in row.shares))
    columns = [finite(row.values[index] for row in rows) for index in range(len(by_split))]
    return PartTable(
        title=first.title,
        value=first.value,
        share=first.share if has_shares else "",
        splits=tuple(by_split),
        means=tuple(sum(column) / len(column) if column else None for column in columns),
        groups=_ranked(rows) if len(rows) > MANY else (PartGroup(title="", rows=tuple(rows)),),
    )


def _by_name(parts: Parts) -> dict[tuple[str, int], PartScore]:
    """Return the rows by name and place among those of that name; two of ImageNet's classes are called crane."""
    seen: Counter[str] = Counter()
    found = {}
    for row in parts.rows:
        found[row.name, seen[row.name]] = row
        seen[row.name] += 1
    return found


def _ranked(rows: Sequence[PartRow]) -> tuple[PartGroup, ...]:
    """Return the best and the worst rows of the first split; between them the others, those without a value last."""
    ranked = sorted((row for row in rows if row.values[0] is not None), key=lambda row: -(row.values[0] or 0.0))
    without = [row for row in rows if row.values[0] is None]
    best, rest = ranked[:ENDS], ranked[ENDS:]
    worst, others = rest[-ENDS:], rest[:-ENDS] + without
    groups = (
        PartGroup(title=f"The best {len(best)}", rows=tuple(best)),
        PartGroup(title=f"The other {len(others)}", rows=tuple(others), folded=True),
        PartGroup(title=f"The worst {len(worst)}", rows=tuple(worst)),
    )
    return tuple(group for group in groups if group.rows)
