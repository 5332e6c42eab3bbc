"""The curves of learning: the training loss, and the metric of the evaluations."""

import math
from typing import Final

from markupsafe import Markup

from hrnas.reporting import svg
from hrnas.reporting.panel import Panel, finite, short_label
from hrnas.reporting.record import RunRecord
from hrnas.reporting.series import Axis, Point, linear_axis, log_axis, smooth

WIDTH: Final = 470.0
LEFT: Final = 50.0
RIGHT: Final = 14.0
TOP: Final = 34.0
FOOT: Final = 36.0
PLOT_HEIGHT: Final = 154.0
MIN_POINTS_TO_SMOOTH: Final = 40
LOG_FROM_RATIO: Final = 8.0
"""An axis is logarithmic when its largest value is this many times its smallest."""


def loss_curve(record: RunRecord) -> Markup | None:
    """Return the training loss over the steps, with its running mean when there are many points; None without any."""
    points: list[Point] = [(point.step, point.loss) for point in record.train]
    values = finite(y for _, y in points)
    if not values:
        return None
    if min(values) > 0 and max(values) > 4 * LOG_FROM_RATIO * min(values):
        y = log_axis(min(values), max(values))
    else:
        y = linear_axis(min(0.0, *values), max(values))
    panel = _panel(record, y)
    parts = [panel.frame("Training loss", short_label)]
    if len(points) >= MIN_POINTS_TO_SMOOTH:
        mean = smooth(points, len(points) // MIN_POINTS_TO_SMOOTH + 4)
        parts += [panel.curve(points, "faint"), panel.curve(mean, "main")]
        parts.append(panel.key([("logged", "faint"), ("running mean", "main")]))
    else:
        parts.append(panel.curve(points, "main"))
    return _picture(panel, parts, f"Training loss from {values[0]:.3g} to {values[-1]:.3g}")


def metric_curve(record: RunRecord) -> Markup | None:
    """Return the metric of the validations over the steps; None without any."""
    points: list[Point] = [(point.step, point.score) for point in record.evaluations if point.split == "validation"]
    values = finite(y for _, y in points)
    if not values:
        return None
    panel = _panel(record, linear_axis(0.0, max(*values, 0.05)))
    parts = [panel.frame(f"Validation {record.metric}", short_label), panel.curve(points, "main")]
    best = max((point for point in points if math.isfinite(point[1])), key=lambda point: point[1])
    x, y = panel.at(best)
    parts.append(svg.circle(x, y, 3.5, "mark", svg.element("title", f"best: {best[1]:.4f} at step {best[0]:g}")))
    anchor = "end" if x > LEFT + panel.width / 2 else "start"
    parts.append(svg.text(x, y - 8, f"best {best[1]:.3f}", "note", anchor))
    return _picture(panel, parts, f"Validation {record.metric}; best {best[1]:.4f} at step {best[0]:g}")


def _panel(record: RunRecord, y: Axis) -> Panel:
    return Panel(x=steps_axis(record), y=y, left=LEFT, top=TOP, width=WIDTH - LEFT - RIGHT, height=PLOT_HEIGHT)


def steps_axis(record: RunRecord) -> Axis:
    """Return the axis of a run's steps."""
    return linear_axis(0.0, float(max(record.steps, record.last_step, 1)), count=6, widen=False)


def _picture(panel: Panel, parts: list[Markup], label: str) -> Markup:
    return svg.drawing(WIDTH, panel.top + panel.height + FOOT, *parts, label=label, class_="plot")
