"""Writing SVG: elements with escaped text and attributes. Colours and fonts come from the page's style by class."""

import math
from typing import Final

from markupsafe import Markup, escape

CHARACTER_WIDTH: Final = 0.56
"""Width of an average character of the page's font, in font sizes: to place text without a font at hand."""


def number(value: float) -> str:
    """Return a coordinate with at most two decimals; it must be finite."""
    assert math.isfinite(value), "a coordinate is not finite"
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("", "-0") else text


def element(tag: str, *children: str, **attributes: str | float | None) -> Markup:
    """Return one element.

    children: text, which is escaped, or Markup from here, which is not.
    attributes: `class_` gives class, `text_anchor` gives text-anchor; None leaves the attribute out.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value if isinstance(value, str) else number(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    inner = "".join(escape(child) for child in children)
    return Markup(f"<{tag}{written}>{inner}</{tag}>" if inner else f"<{tag}{written}/>")


def drawing(width: float, height: float, *children: str, label: str, class_: str | None = None) -> Markup:
    """Return a whole picture that scales with the page; `label` is what a screen reader says of it."""
    view = f"0 0 {number(width)} {number(height)}"
    namespace = "http://www.w3.org/2000/svg"
    return element("svg", *children, xmlns=namespace, viewBox=view, class_=class_, role="img", aria_label=label)


def text(x: float, y: float, content: str, class_: str | None = None, anchor: str | None = None) -> Markup:
    """Return a line of text; `anchor` is start (the default), middle or end."""
    return element("text", content, x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def rectangle(x: float, y: float, width: float, height: float, class_: str, radius: float = 0) -> Markup:
    """Return a rectangle."""
    return element("rect", x=x, y=y, width=width, height=height, rx=radius or None, class_=class_)


def circle(x: float, y: float, radius: float, class_: str, *children: str) -> Markup:
    """Return a circle."""
    return element("circle", *children, cx=x, cy=y, r=radius, class_=class_)


def path(description: str, class_: str, *children: str) -> Markup:
    """Return a path from its `d` attribute."""
    return element("path", *children, d=description, class_=class_)


def polyline(points: list[tuple[float, float]], class_: str) -> Markup:
    """Return a path through points; a single point is drawn as a dot."""
    if len(points) == 1:
        return circle(*points[0], 2.5, f"{class_} dot")
    return path("M" + "L".join(f"{number(x)} {number(y)}" for x, y in points), class_)


def width_of(content: str, font_size: float) -> float:
    """Return about how wide a text is."""
    return len(content) * CHARACTER_WIDTH * font_size
