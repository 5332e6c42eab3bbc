"""The picture of step time against MACs, both as shares of the supernet's, as an SVG that stands alone."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from hrnas.reporting import svg
from hrnas.reporting.panel import Panel
from hrnas.reporting.series import linear_axis

WIDTH, HEIGHT = 470.0, 330.0
STYLE = """
svg { color-scheme: light dark; background: #fff; --ink: #1b1f24; --muted: #67707b; --rule: #e2e5e9; --main: #12708f; }
@media (prefers-color-scheme: dark) {
  svg { background: #14181b; --ink: #e4e8eb; --muted: #96a0aa; --rule: #2b3238; --main: #5cb8d6; }
}
text { fill: var(--ink); font: 12px system-ui, sans-serif; }
.plot-title { font-size: 13px; font-weight: 640; }
.tick { font-size: 11px; fill: var(--muted); }
.grid { stroke: var(--rule); } .axis { stroke: var(--muted); }
.curve { fill: none; stroke: var(--main); stroke-width: 1.8; stroke-linejoin: round; }
.curve.plan { stroke: var(--muted); stroke-width: 1.2; stroke-dasharray: 5 4; }
.curve.second { stroke: #c08a2e; } .curve.third { stroke: #c2452d; }
.point { fill: var(--main); } .point.second { fill: #c08a2e; } .point.third { fill: #c2452d; }
"""
CLASSES = ("main", "second", "third")
Measured = tuple[float, float, float, float]
"""Share of the MACs; lower quartile, median and upper quartile of the share of the time."""


def draw_steps(points: Mapping[str, Sequence[Measured]]) -> Markup:
    """Return the picture; points: of every variant, the supernet's included."""
    axis = linear_axis(0.0, 1.0)
    highest = max(high for measured in points.values() for *_, high in measured)
    panel = Panel(x=axis, y=linear_axis(0.0, max(1.0, highest)), left=50, top=44, width=WIDTH - 66, height=HEIGHT - 90)
    parts = [
        panel.frame("Time of a step, of the supernet's", _percent, x_name="MACs, of the supernet's", format_x=_percent),
        panel.curve([(0.0, 0.0), (1.0, 1.0)], "plan"),
    ]
    entries = [("as the MACs", "plan")]
    for class_, (name, measured) in zip(CLASSES, points.items(), strict=False):
        ordered = sorted(measured)
        parts.append(panel.curve([(share, middle) for share, _, middle, _ in ordered], class_))
        for share, low, middle, high in ordered:
            parts.append(svg.line(*panel.at((share, low)), *panel.at((share, high)), f"curve {class_}"))
            words = svg.element("title", f"{name}: {middle:.1%} of the time at {share:.1%} of the MACs")
            parts.append(svg.circle(*panel.at((share, middle)), 3.2, f"point {class_}", words))
        entries.append((name, class_))
    label = "Time of a training step against MACs, both relative to the supernet"
    return svg.drawing(WIDTH, HEIGHT, svg.element("style", Markup(STYLE)), *parts, panel.key(entries), label=label)


def _percent(value: float) -> str:
    return f"{value:.0%}"
