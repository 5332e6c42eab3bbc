"""The networks of several budgets as points: score against cost."""

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from hrnas.arch.budget import format_count
from hrnas.reporting import svg
from hrnas.reporting.curves import FOOT, LEFT, LOG_FROM_RATIO, RIGHT, TOP, WIDTH
from hrnas.reporting.labels import Box, box_of, first_free
from hrnas.reporting.networks import BudgetNetwork
from hrnas.reporting.panel import Panel, finite, short_label
from hrnas.reporting.series import Axis, Point, linear_axis, log_axis

HEIGHT: Final = 230.0
RADIUS: Final = 4.0


def pareto_figure(networks: Sequence[BudgetNetwork], metric: str, cost: str, title: str) -> Markup | None:
    """Return the metric on validation against `cost`, macs or params; None before any network has a score.

    A network that is not finished is hollow; its score is the last there is.
    """
    points = [(network, _point(network, cost)) for network in networks]
    placed = [(network, point) for network, point in points if point is not None]
    if not placed:
        return None
    xs, ys = [point[0] for _, point in placed], [point[1] for _, point in placed]
    panel = Panel(x=_x_axis(xs), y=_y_axis(ys), left=LEFT, top=TOP, width=WIDTH - LEFT - RIGHT, height=HEIGHT)
    parts = [panel.frame(f"Validation {metric}", short_label, x_name=title, format_x=format_count)]
    finished = [point for network, point in placed if network.finished]
    if len(finished) > 1:
        parts.append(panel.curve(sorted(finished), "faint"))
    centres = [panel.at(point) for _, point in placed]
    taken: list[Box] = [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in centres]
    for (network, point), (x, y) in zip(placed, centres, strict=True):
        words = f"{network.target.text}: {metric} {point[1]:.4f} at {point[0]:,.0f} {title}"
        if not network.finished:
            words += f"; {network.state}"
        parts.append(svg.circle(x, y, RADIUS, "point" if network.finished else "mark", svg.element("title", words)))
        parts.append(_label(network.target.name, panel, (x, y), taken))
    label = f"Validation {metric} of {len(placed)} networks against {title}"
    return svg.drawing(WIDTH, panel.top + panel.height + FOOT, *parts, label=label, class_="plot")


def _point(network: BudgetNetwork, cost: str) -> Point | None:
    if network.cost is None or not finite([network.score]):
        return None
    return (getattr(network.cost, cost), network.score or 0.0)


def _x_axis(values: list[float]) -> Axis:
    if max(values) > LOG_FROM_RATIO * min(values):
        return log_axis(min(values), max(values))
    return linear_axis(0.0, 1.06 * max(values))


def _y_axis(values: list[float]) -> Axis:
    """An axis around the scores, not from zero: networks of one run lie close together."""
    room = max(0.15 * (max(values) - min(values)), 0.01)
    return linear_axis(max(min(values) - room, 0.0), max(values) + room)


def _label(name: str, panel: Panel, at: Point, taken: list[Box]) -> Markup:
    """Write a name beside a point, at the first side where it covers neither a point nor another name."""
    gap = RADIUS + 4
    x, y = at
    sides = [
        (x + gap, y + 14.0, "start"),
        (x - gap, y - 7.0, "end"),
        (x + gap, y - 7.0, "start"),
        (x - gap, y + 14.0, "end"),
        (x + gap, y + 27.0, "start"),
        (x - gap, y - 20.0, "end"),
    ]
    boxes = [box_of(name, *side) for side in sides]
    best = first_free(boxes, taken, panel.box) or 0
    taken.append(boxes[best])
    left, base, anchor = sides[best]
    return svg.text(left, base, name, "note", None if anchor == "start" else anchor)
