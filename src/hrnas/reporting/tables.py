"""The numbers of a run as rows of text: what the page and the terminal show alike."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from hrnas.arch.architecture import Pillars
from hrnas.arch.budget import format_count
from hrnas.costing.analytic import Cost, pillar_cost
from hrnas.reporting.blocks import BlockState, block_states
from hrnas.reporting.record import Cut, EvaluationPoint, RunRecord

MISSING = "–"
REASONS: Final = {"dead": "dead units", "budget": "to the budget"}
"""What the reasons of cuts are called; any other is shown as it stands."""


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """A quantity of the result table. exact: the whole number behind a rounded one, or ""."""

    label: str
    supernet: str = ""
    supernet_exact: str = ""
    found: str
    found_exact: str = ""


@dataclass(frozen=True, kw_only=True)
class ResultGroup:
    """Rows of the result table. title: what the figures were measured on, "" for the cost; conditions: by name."""

    title: str = ""
    conditions: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[ResultRow, ...]


@dataclass(frozen=True, kw_only=True)
class BlockTable:
    """The block table: the kernel sizes that head its columns, which others it has, and the blocks."""

    sizes: tuple[int, ...]
    has_tokens: bool
    has_squeeze: bool
    states: tuple[BlockState, ...]

    @property
    def tokens(self) -> "TokenCount":
        """Transformers and tokens that are left."""
        left = [state.block.tokens for state in self.states]
        return TokenCount(transformers=sum(map(bool, left)), tokens=sum(left))

    @property
    def tokens_widest(self) -> "TokenCount":
        """Transformers and tokens of the supernet."""
        widest = [state.tokens_widest for state in self.states]
        return TokenCount(transformers=sum(map(bool, widest)), tokens=sum(widest))

    @property
    def transformer_macs(self) -> int:
        """MACs of all transformers that are left."""
        return sum(state.transformer_macs for state in self.states)


@dataclass(frozen=True, kw_only=True)
class TokenCount:
    """How many transformers a network has, and how many tokens they have together."""

    transformers: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class CutTable:
    """Every cut of a search, and which columns it has anything to say in.

    largest: the cut that changed the output most; None where no change was measured.
    """

    cuts: tuple[Cut, ...]
    has_tokens: bool
    has_params: bool
    largest: Cut | None


def format_score(value: float | None, decimals: int = 4) -> str:
    """Return a figure of an evaluation; a dash where there is none."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:.{decimals}f}"


def format_percent(share: float | None) -> str:
    """Return a share as per cent: 862 %, 99.4 %, 0.052 %; a dash where there is none."""
    if share is None or not math.isfinite(share):
        return MISSING
    per_cent = 100 * share
    if per_cent >= 99.95:
        text = f"{per_cent:.0f}"
    else:
        text = f"{per_cent:.1f}" if per_cent >= 0.1 or not per_cent else f"{per_cent:.2g}"
    return f"{text}\N{NO-BREAK SPACE}%"


def format_change(share: float | None) -> str:
    """Return a small relative change as per cent with two digits: 0.63 %, 12 %; a dash where there is none."""
    if share is None or not math.isfinite(share):
        return MISSING
    per_cent = 100 * share
    if 0 < per_cent < 1e-4:
        text = "< 0.0001"
    else:
        text = f"{per_cent:.0f}" if per_cent >= 9.95 else f"{float(f'{per_cent:.2g}'):.6f}".rstrip("0").rstrip(".")
    return f"{text} %".replace(" ", "\N{NO-BREAK SPACE}")


def format_duration(seconds: float | None) -> str:
    """Return a time as people say it: 48 s, 2 min 30 s, 12 min, 1 h 05 min."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    whole = round(seconds)
    if whole < 60:
        text = f"{whole} s"
    elif whole < 3600:
        text = f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 and whole < 600 else "")
    else:
        text = f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def result_groups(record: RunRecord) -> list[ResultGroup]:
    """Return the result table: cost of supernet and found network, then the figures of each evaluated split."""
    groups = [ResultGroup(rows=tuple(_cost_rows(record)))]
    for score in record.scores.values():
        title = f"{score.split}, {score.samples:,} samples"
        rows = _figure_rows(score.figures, _last_of_supernet(record, score.split))
        groups.append(ResultGroup(title=title, conditions=score.conditions, rows=rows))
    if not record.scores and record.evaluations:
        last = record.evaluations[-1]
        title = f"{last.split}, during the run, step {last.step:,}"
        groups.append(ResultGroup(title=title, rows=_figure_rows(last.figures, None)))
    return groups


def _figure_rows(figures: Mapping[str, float], whole: EvaluationPoint | None) -> tuple[ResultRow, ...]:
    """Return a row a figure, beside it the supernet's where it was evaluated whole."""

    def supernet(name: str) -> str:
        return f"{format_score(whole.figures.get(name))} at step {whole.step:,}" if whole is not None else ""

    return tuple(
        ResultRow(label=name, supernet=supernet(name), found=format_score(value)) for name, value in figures.items()
    )


def _cost_rows(record: RunRecord) -> list[ResultRow]:
    found, supernet, target = record.found_cost, record.supernet_cost, record.target
    height, width = record.input_size
    rows = []
    for label, name in ((f"MACs at {height}×{width}", "macs"), ("Parameters", "params")):
        rows.append(_count_row(label, name, supernet, found))
    rows += _token_rows(record)
    if record.architecture is not None and record.architecture.pillars is not None:
        words = pillar_words(record.architecture.pillars)
        rows.append(ResultRow(label="Pillars, counted apart", supernet="", found=words))
    for what, name in (("MACs", "macs"), ("parameters", "params")):
        limit = getattr(target, name) if target is not None else None
        if limit and found is not None:
            rows.append(
                ResultRow(
                    label=f"Share of the budget of {format_count(limit)} {what}",
                    supernet=format_percent(getattr(supernet, name) / limit) if supernet else "",
                    found=format_percent(getattr(found, name) / limit),
                )
            )
    if supernet is not None and found is not None and supernet.macs:
        share = format_percent(found.macs / supernet.macs)
        rows.append(ResultRow(label="Share of the supernet's MACs", supernet="100 %", found=share))
    return rows


def pillar_words(pillars: Pillars) -> str:
    """Return what a network's pillars cost, in words."""
    apart = pillar_cost(pillars)
    return f"{format_count(apart.params)} parameters, {format_count(apart.macs)} MACs a point"


def _token_rows(record: RunRecord) -> list[ResultRow]:
    """The transformers and their tokens; nothing for a network that never had any."""
    blocks = block_table(record)
    if blocks is None or not blocks.has_tokens:
        return []
    left, widest = blocks.tokens, blocks.tokens_widest
    return [
        ResultRow(label=label, supernet=f"{full:,}" if record.supernet else "", found=f"{now:,}")
        for label, full, now in (
            ("Transformers", widest.transformers, left.transformers),
            ("Tokens of the transformers", widest.tokens, left.tokens),
        )
    ]


def _last_of_supernet(record: RunRecord, split: str) -> EvaluationPoint | None:
    """Return the last evaluation of the uncut supernet: half trained, and said to be so by its step."""
    if record.supernet_cost is None:
        return None
    whole = [point for point in record.evaluations if point.split == split and point.macs == record.supernet_cost.macs]
    return whole[-1] if whole else None


def _count_row(label: str, name: str, supernet: Cost | None, found: Cost | None) -> ResultRow:
    def count(cost: Cost | None) -> tuple[str, str]:
        return (MISSING, "") if cost is None else (format_count(getattr(cost, name)), f"{getattr(cost, name):,}")

    (wide, wide_exact), (left, left_exact) = count(supernet), count(found)
    return ResultRow(label=label, supernet=wide, supernet_exact=wide_exact, found=left, found_exact=left_exact)


def block_table(record: RunRecord) -> BlockTable | None:
    """Return every search block against the supernet's; None when the run holds no architecture."""
    if record.architecture is None:
        return None
    states = block_states(record.architecture, record.supernet, record.input_size)
    return BlockTable(
        sizes=tuple(states[0].widest) if states else (),
        has_tokens=any(state.tokens_widest for state in states),
        has_squeeze=any(state.block.squeeze for state in states),
        states=tuple(states),
    )


def cut_table(record: RunRecord) -> CutTable | None:
    """Return every cut; None where nothing is known of them beyond what the curve of the cost shows."""
    cuts = record.cuts
    if all((cut.output_change, cut.tokens, cut.budget) == (None, None, None) for cut in cuts):
        return None
    measured = [cut for cut in cuts if cut.output_change is not None and math.isfinite(cut.output_change)]
    return CutTable(
        cuts=cuts,
        has_tokens=any(cut.tokens for cut in (record.start, *cuts) if cut is not None),
        has_params=record.target is not None and record.target.params is not None,
        largest=max(measured, key=lambda cut: cut.output_change or 0.0, default=None),
    )
