"""The curves of a run: loss, miou of the evaluations, MACs against the plan with the penalty's weight below."""

import math
from collections.abc import Iterable
from typing import Final

from markupsafe import Markup

from hrnas.arch.budget import format_count
from hrnas.reporting import svg
from hrnas.reporting.panel import Panel
from hrnas.reporting.record import RunRecord
from hrnas.reporting.series import Axis, Point, linear_axis, log_axis, smooth

WIDTH: Final = 470.0
LEFT: Final = 50.0
RIGHT: Final = 14.0
TOP: Final = 34.0
FOOT: Final = 36.0
PLOT_HEIGHT: Final = 154.0
MIN_POINTS_TO_SMOOTH: Final = 40
MAX_TALL_CUTS: Final = 24
"""Up to so many cuts are lines through the plot; more are ticks at its foot, so that the curves stay readable."""
LOG_FROM_RATIO: Final = 8.0
"""An axis is logarithmic when its largest value is this many times its smallest."""


def loss_curve(record: RunRecord) -> Markup | None:
    """Return the training loss over the steps, with its running mean when there are many points; None without any."""
    points: list[Point] = [(point.step, point.loss) for point in record.train]
    values = _finite(y for _, y in points)
    if not values:
        return None
    if min(values) > 0 and max(values) > 4 * LOG_FROM_RATIO * min(values):
        y = log_axis(min(values), max(values))
    else:
        y = linear_axis(min(0.0, *values), max(values))
    panel = _panel(record, y)
    parts = [panel.frame("Training loss", _short)]
    if len(points) >= MIN_POINTS_TO_SMOOTH:
        mean = smooth(points, len(points) // MIN_POINTS_TO_SMOOTH + 4)
        parts += [panel.curve(points, "faint"), panel.curve(mean, "main")]
        parts.append(panel.key([("logged", "faint"), ("running mean", "main")]))
    else:
        parts.append(panel.curve(points, "main"))
    return _picture(panel, parts, f"Training loss from {values[0]:.3g} to {values[-1]:.3g}")


def miou_curve(record: RunRecord) -> Markup | None:
    """Return miou of the evaluations over the steps; None without any."""
    points: list[Point] = [(point.step, point.miou) for point in record.evaluations if point.split == "validation"]
    values = _finite(y for _, y in points)
    if not values:
        return None
    panel = _panel(record, linear_axis(0.0, max(*values, 0.05)))
    parts = [panel.frame("Validation miou", _short), panel.curve(points, "main")]
    best = max((point for point in points if math.isfinite(point[1])), key=lambda point: point[1])
    x, y = panel.at(best)
    parts.append(svg.circle(x, y, 3.5, "mark", svg.element("title", f"best: {best[1]:.4f} at step {best[0]:g}")))
    anchor = "end" if x > LEFT + panel.width / 2 else "start"
    parts.append(svg.text(x, y - 8, f"best {best[1]:.3f}", "note", anchor))
    return _picture(panel, parts, f"Validation miou; best {best[1]:.4f} at step {best[0]:g}")


def macs_curve(record: RunRecord) -> Markup | None:
    """Return MACs of the shrinking network against plan and budget, cuts marked; None for a run without search."""
    now: list[Point] = [(point.step, point.macs) for point in record.train]
    if not record.is_search or not now:
        return None
    if record.start is not None and record.start.step < now[0][0]:
        now.insert(0, (record.start.step, record.start.macs))
    planned: list[Point] = [(p.step, math.nan if p.planned_macs is None else p.planned_macs) for p in record.train]
    budget = record.budget_macs
    values = _finite(y for _, y in (*now, *planned)) + ([float(budget)] if budget else [])
    log = min(values) > 0 and max(values) > LOG_FROM_RATIO * min(values)
    panel = _panel(record, log_axis(min(values), max(values)) if log else linear_axis(0.0, max(values)))
    weights: list[Point] = [(p.step, p.penalty_weight) for p in record.train if p.penalty_weight is not None]
    has_weights = bool(_finite(y for _, y in weights))
    parts = [panel.frame("MACs of the network", format_count, x_labels=not has_weights)]
    parts += _cut_marks(record, panel)
    entries = [("network", "main")]
    if _finite(y for _, y in planned):
        parts.append(panel.curve(planned, "plan"))
        entries.append(("planned", "plan"))
    if record.cuts:
        entries.append(("cut", "cut"))
    parts.append(panel.staircase(now, "main"))
    if budget:
        left, y = panel.at((panel.x.low, budget))
        parts += [
            svg.line(left, y, left + panel.width, y, "curve budget"),
            svg.text(left + 6, y - 6, f"budget {format_count(budget)}", "note warm"),
        ]
    parts.append(panel.key(entries))
    height = panel.top + panel.height + FOOT
    if has_weights:
        below = _weight_panel(record, weights, panel.top + panel.height + 42)
        parts += [below.frame("Weight of the penalty", _short), *_cut_marks(record, below)]
        parts.append(below.curve(weights, "main"))
        height = below.top + below.height + FOOT
    label = f"MACs of the network over {len(record.cuts)} cuts"
    return svg.drawing(WIDTH, height, *parts, label=label, class_="plot")


def _weight_panel(record: RunRecord, weights: list[Point], top: float) -> Panel:
    values = _finite(y for _, y in weights)
    positive = [value for value in values if value > 0]
    if positive and max(positive) > LOG_FROM_RATIO * min(positive):
        y = log_axis(min(positive), max(positive))
    else:
        y = linear_axis(0.0, max(*values, 1e-12), count=3)
    height = 2 * (TOP + PLOT_HEIGHT + FOOT) - FOOT - top
    return Panel(x=_steps(record), y=y, left=LEFT, top=top, width=WIDTH - LEFT - RIGHT, height=height)


def _cut_marks(record: RunRecord, panel: Panel) -> list[Markup]:
    """One upright line a cut, the one to the budget stronger; at most one a pixel column."""
    marks: dict[int, Markup] = {}
    few = len(record.cuts) <= MAX_TALL_CUTS
    for cut in record.cuts:
        x, _ = panel.at((cut.step, panel.y.low))
        what = f"step {cut.step}: {cut.removed:,} units cut ({cut.reason}), {format_count(cut.macs)} MACs left"
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


def _panel(record: RunRecord, y: Axis) -> Panel:
    return Panel(x=_steps(record), y=y, left=LEFT, top=TOP, width=WIDTH - LEFT - RIGHT, height=PLOT_HEIGHT)


def _steps(record: RunRecord) -> Axis:
    return linear_axis(0.0, float(max(record.steps, record.last_step, 1)), count=6, widen=False)


def _picture(panel: Panel, parts: list[Markup], label: str) -> Markup:
    return svg.drawing(WIDTH, panel.top + panel.height + FOOT, *parts, label=label, class_="plot")


def _finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _short(value: float) -> str:
    return f"{value:.3g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.0e}".replace("e-0", "e-")
