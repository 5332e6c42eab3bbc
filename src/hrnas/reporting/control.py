"""The control of a search drawn over its steps: the cost against plan and budget, the penalty's weight, its gain."""

import math
from typing import Final

from markupsafe import Markup

from hrnas.arch.budget import Target, format_count
from hrnas.reporting import svg
from hrnas.reporting.curves import FOOT, LEFT, LOG_FROM_RATIO, PLOT_HEIGHT, RIGHT, TOP, WIDTH, steps_axis
from hrnas.reporting.labels import Box, box_of, first_free
from hrnas.reporting.networks import budget_networks
from hrnas.reporting.panel import Panel, finite, short_label
from hrnas.reporting.record import RunRecord
from hrnas.reporting.series import Axis, Point, linear_axis, log_axis
from hrnas.reporting.tables import format_change

COSTS: Final = {"macs": "MACs", "params": "Parameters"}
BETWEEN: Final = 42.0
"""From the foot of a panel to the top of the next."""
PARAMS_HEIGHT: Final = 130.0
WEIGHT_HEIGHT: Final = 120.0
GAIN_HEIGHT: Final = 80.0
CHANGES_HEIGHT: Final = 80.0
WEIGHT_ALONE_HEIGHT: Final = 182.0
"""Without a gain below it, the weight's panel makes the figure as high as loss and score beside it."""
MAX_TALL_CUTS: Final = 24
"""Up to so many cuts are lines through the plot; more are ticks at its foot, so that the curves stay readable."""


def control_figure(record: RunRecord) -> Markup | None:
    """Return strips below each other, the cuts marked in all of them; None for a run without search.

    MACs; parameters where they are budgeted; the penalty's weight and the gain on it, as far as they were logged.
    """
    if not record.is_search or not record.train:
        return None
    # A weight of zero is no weight: a gap, on an axis that has no zero.
    weights = [(float(p.step), p.penalty_weight if p.penalty_weight else math.nan) for p in record.train]
    gains = [(float(p.step), _or_nan(p.gain)) for p in record.train]
    has_gains = bool(finite(y for _, y in gains))
    strips = [("macs", PLOT_HEIGHT)]
    if any(target.params for target in record.targets) and any(p.params is not None for p in record.train):
        strips.append(("params", PARAMS_HEIGHT))
    if finite(y for _, y in weights):
        strips.append(("weight", WEIGHT_HEIGHT if has_gains else WEIGHT_ALONE_HEIGHT))
    if has_gains:
        strips.append(("gain", GAIN_HEIGHT))
    parts: list[Markup] = []
    top = TOP
    for name, height in strips:
        x_labels = name == strips[-1][0]
        if name in COSTS:
            parts += _cost_strip(record, name, top, height, x_labels=x_labels)
        else:
            title, points = ("Weight of the penalty", weights) if name == "weight" else ("Gain on the weight", gains)
            parts += _control_strip(record, title, points, top, height, x_labels=x_labels)
        top += height + BETWEEN
    label = f"MACs of the network over {len(record.cuts)} cuts"
    return svg.drawing(WIDTH, top - BETWEEN + FOOT, *parts, label=label, class_="plot")


def changes_figure(record: RunRecord) -> Markup | None:
    """Return how much each cut changed the output, as a stem at its step; None where that was not measured."""
    measured = [(cut, cut.output_change) for cut in record.cuts if finite([cut.output_change])]
    if not measured:
        return None
    y = linear_axis(0.0, max(*(change or 0.0 for _, change in measured), 1e-4), count=3)
    panel = _strip(record, y, TOP, CHANGES_HEIGHT)
    parts = [panel.frame("Change of the output by each cut", format_change)]
    for cut, change in measured:
        x, y_end = panel.at((cut.step, change or 0.0))
        kind = " final" if cut.reason == "budget" else ""
        words = f"step {cut.step:,}: {format_change(change)}"
        stem = svg.line(x, panel.top + panel.height, x, y_end, f"stem{kind}")
        head = svg.circle(x, y_end, 2.2, f"head{kind}")
        parts.append(svg.element("g", svg.element("title", words), stem, head))
    label = f"Change of the output by each of {len(measured)} cuts"
    return svg.drawing(WIDTH, panel.top + panel.height + FOOT, *parts, label=label, class_="plot")


def _cost_strip(record: RunRecord, name: str, top: float, height: float, *, x_labels: bool) -> list[Markup]:
    """MACs or parameters of the shrinking network against the plan and the budgets."""
    now: list[Point] = [(p.step, _or_nan(getattr(p, name))) for p in record.train]
    if record.start is not None and record.start.step < now[0][0]:
        now.insert(0, (record.start.step, getattr(record.start, name)))
    planned: list[Point] = [(p.step, _or_nan(getattr(p, f"planned_{name}"))) for p in record.train]
    limits = [(target, getattr(target, name)) for target in record.targets if getattr(target, name)]
    values = finite(y for _, y in (*now, *planned)) + [float(limit) for _, limit in limits]
    several = len(record.targets) > 1
    # The budgets of one run are set apart by ratios, as the plan between them falls.
    y = log_axis(min(values), max(values)) if several and min(values) > 0 else _axis(values, from_zero=True)
    panel = _strip(record, y, top, height)
    parts = [panel.frame(f"{COSTS[name]} of the network", format_count, x_labels=x_labels), *_cut_marks(record, panel)]
    entries = [("network", "main")]
    if finite(y for _, y in planned):
        parts.append(panel.curve(planned, "plan"))
        entries.append(("planned", "plan"))
    if record.cuts:
        entries.append(("cut", "cut"))
    parts.append(panel.staircase(now, "main"))
    parts += _budget_lines(panel, [(_limit_words(target, limit, several), limit) for target, limit in limits])
    parts += _set_aside_marks(record, panel, name)
    if name == "macs":
        parts += _final_shape(record, panel)
    return [*parts, panel.key(entries)]


def _control_strip(
    record: RunRecord, title: str, points: list[Point], top: float, height: float, *, x_labels: bool
) -> list[Markup]:
    """The penalty's weight or its gain, which is at least 1."""
    values = finite(y for _, y in points)
    y = log_axis(min(values), max(values)) if title.startswith("Weight") else _axis([1.0, *values], from_zero=False)
    panel = _strip(record, y, top, height)
    frame = panel.frame(title, short_label, x_labels=x_labels)
    return [frame, *_cut_marks(record, panel), panel.curve(points, "main")]


def _axis(values: list[float], *, from_zero: bool) -> Axis:
    if min(values) > 0 and max(values) > LOG_FROM_RATIO * min(values):
        return log_axis(min(values), max(values))
    return linear_axis(0.0 if from_zero else min(values), max(values), count=5 if from_zero else 3)


def _limit_words(target: Target, limit: int, several: bool) -> str:
    count = format_count(limit)
    return f"budget {target.name} ({count})" if several and count not in target.name else f"budget {count}"


def _budget_lines(panel: Panel, limits: list[tuple[str, int]]) -> list[Markup]:
    """A line at each budget with its name above it or below it; on a line, or beside a name, where they are close."""
    left, right = panel.left, panel.left + panel.width
    heights = [panel.at((panel.x.low, limit))[1] for _, limit in limits]
    parts = [svg.line(left, y, right, y, "curve budget") for y in heights]
    lines: list[Box] = [(left, y - 0.5, right, y + 0.5) for y in heights]
    names: list[Box] = []
    for (words, _), y in zip(limits, heights, strict=True):
        spots = [(x, base) for x in (left + 6, left + 106, left + 206) for base in (y - 6, y + 12)]
        boxes = [box_of(words, x, base) for x, base in spots]
        best = first_free(boxes, [*lines, *names], panel.box)
        if best is None:
            best = first_free(boxes, names, panel.box) or 0
        names.append(boxes[best])
        parts.append(svg.text(*spots[best], words, "note warm"))
    return parts


def _set_aside_marks(record: RunRecord, panel: Panel, name: str) -> list[Markup]:
    """A mark where each of several networks was set aside."""
    marks = []
    for network in budget_networks(record):
        if network.step is not None and network.cost is not None:
            x, y = panel.at((network.step, getattr(network.cost, name)))
            words = f"step {network.step:,}: the network of {network.target.name} is set aside"
            marks.append(svg.circle(x, y, 3.5, "mark", svg.element("title", words)))
    return marks


def _final_shape(record: RunRecord, panel: Panel) -> list[Markup]:
    """A word at the cut after which the network keeps its shape; nothing before there is one."""
    last = record.target.text if record.target is not None else None
    final = [cut for cut in record.cuts if cut.reason == "budget" and cut.budget in (None, last)]
    if not final:
        return []
    x, _ = panel.at((final[-1].step, panel.y.low))
    room = panel.left + panel.width - x
    words = "final shape"
    if room > svg.width_of(words, 11) + 8:
        return [svg.text(x + 5, panel.top + 10, words, "note warm")]
    return [svg.text(x - 5, panel.top + 10, words, "note warm", "end")]


def _cut_marks(record: RunRecord, panel: Panel) -> list[Markup]:
    """One upright line a cut, the one to the budget stronger; at most one a pixel column."""
    marks: dict[int, Markup] = {}
    few = len(record.cuts) <= MAX_TALL_CUTS
    for cut in record.cuts:
        x, _ = panel.at((cut.step, panel.y.low))
        what = f"step {cut.step}: {cut.removed:,} units cut ({cut.reason}), {format_count(cut.macs)} MACs left"
        if cut.output_change is not None:
            what += f", the output changed by {format_change(cut.output_change)}"
        marks[round(x)] = svg.element(
            "line",
            svg.element("title", what),
            x1=x,
            x2=x,
            y1=panel.top if few or cut.reason == "budget" else panel.top + panel.height - 7,
            y2=panel.top + panel.height,
            class_="curve cut" if cut.reason != "budget" else "curve cut final",
        )
    return [marks[x] for x in sorted(marks)]


def _strip(record: RunRecord, y: Axis, top: float, height: float) -> Panel:
    return Panel(x=steps_axis(record), y=y, left=LEFT, top=top, width=WIDTH - LEFT - RIGHT, height=height)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
