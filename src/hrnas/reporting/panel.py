"""A framed plot: an x axis, mostly of steps, a y axis, lines in it, and a key of what the lines are."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from hrnas.reporting import svg
from hrnas.reporting.labels import Box
from hrnas.reporting.series import Axis, Point, pieces, thin


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Where a plot stands in a drawing (pixels of its view box) and what its axes span."""

    x: Axis
    y: Axis
    left: float
    top: float
    width: float
    height: float

    @property
    def box(self) -> Box:
        """What the plot covers, without its labels."""
        return (self.left, self.top, self.left + self.width, self.top + self.height)

    def at(self, point: Point) -> Point:
        """Return the pixel of a point."""
        return (
            self.left + self.width * self.x.place(point[0]),
            self.top + self.height * (1 - self.y.place(point[1])),
        )

    def frame(
        self,
        name: str,
        format_y: Callable[[float], str],
        *,
        x_name: str = "step",
        format_x: Callable[[float], str] | None = None,
        x_labels: bool = True,
    ) -> Markup:
        """Return the title, the grid with labels on the left, and the x axis, of steps if not said, with its labels."""
        bottom = self.top + self.height
        parts = [svg.text(0, self.top - 12, name, "plot-title")]
        for tick in self.y.ticks:
            _, y = self.at((self.x.low, tick))
            parts += [
                svg.line(self.left, y, self.left + self.width, y, "grid"),
                svg.text(self.left - 7, y + 3.6, format_y(tick), "tick", "end"),
            ]
        parts.append(svg.line(self.left, bottom, self.left + self.width, bottom, "axis"))
        for tick in self.x.ticks:
            x, _ = self.at((tick, self.y.low))
            parts.append(svg.line(x, bottom, x, bottom + 4, "axis"))
            if x_labels:
                parts.append(svg.text(x, bottom + 16, (format_x or step_label)(tick), "tick", "middle"))
        if x_labels:
            parts.append(svg.text(self.left + self.width, bottom + 30, x_name, "tick", "end"))
        return Markup().join(parts)

    def curve(self, points: Sequence[Point], class_: str) -> Markup:
        """Return a line through points in ascending x, broken where y is not finite."""
        if self.y.log:
            points = [(x, y if y > 0 else math.nan) for x, y in points]
        return Markup().join(
            svg.polyline([self.at(point) for point in piece], f"curve {class_}") for piece in pieces(thin(points))
        )

    def staircase(self, points: Sequence[Point], class_: str) -> Markup:
        """Return a line that keeps each value until the next point, as the size of a network does between cuts."""
        corners: list[Point] = []
        for x, y in thin(points):
            if corners and corners[-1][1] != y:
                corners.append((x, corners[-1][1]))
            corners.append((x, y))
        return Markup().join(
            svg.polyline([self.at(point) for point in piece], f"curve {class_}") for piece in pieces(corners)
        )

    def key(self, entries: Sequence[tuple[str, str]]) -> Markup:
        """Return the key, right-aligned above the plot: (what it is, class of its line) each."""
        parts, x = [], self.left + self.width
        for label, class_ in reversed(entries):
            x -= svg.width_of(label, 11)
            parts.append(svg.text(x, self.top - 12, label, "tick"))
            parts.append(svg.line(x - 20, self.top - 15.8, x - 5, self.top - 15.8, f"curve {class_}"))
            x -= 32
        return Markup().join(reversed(parts))


def finite(values: Iterable[float | None]) -> list[float]:
    """Return the values that can be drawn."""
    return [value for value in values if value is not None and math.isfinite(value)]


def short_label(value: float) -> str:
    """Return a value as an axis shows it, in three digits."""
    return f"{value:.3g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.0e}".replace("e-0", "e-")


def step_label(step: float) -> str:
    """Return a step as an axis shows it: whole, with thousands set apart."""
    return f"{step:,.0f}" if step == round(step) else f"{step:g}"
