"""Where the MACs are: bars by stage and by branch, outlined at the supernet's and filled by the found network's."""

from collections.abc import Mapping
from typing import Final

from markupsafe import Markup

from hrnas.arch.budget import format_count
from hrnas.reporting import svg

WIDTH: Final = 470.0
LEFT: Final = 70.0
RIGHT: Final = 118.0
ROW: Final = 24.0
THICKNESS: Final = 13.0
HEADER: Final = 34.0


def macs_bars(
    name: str, found: Mapping[str, int], supernet: Mapping[str, int] | None, transformers: Mapping[str, int]
) -> Markup:
    """Return one bar for each entry of `found`.

    supernet: has the same keys, or is None. transformers: the part of `found` that transformers have, where they do.
    """
    largest = max([*found.values(), *(supernet or {}).values(), 1])
    scale = (WIDTH - LEFT - RIGHT) / largest
    parts = [svg.text(0, 18, name, "plot-title")]
    for index, (place, macs) in enumerate(found.items()):
        top = HEADER + index * ROW
        base = top + THICKNESS - 2.5
        widest = None if supernet is None else supernet.get(place)
        part = transformers.get(place, 0)
        words = f"{place}: {macs:,} MACs" + (f" of {widest:,}" if widest else "")
        if part:
            words += f"; {part:,} of them in transformers"
        bars = [svg.element("title", words)]
        if widest:
            bars.append(svg.rectangle(LEFT, top, max(widest * scale, 1.0), THICKNESS, "full", radius=2))
        if macs:
            bars.append(svg.rectangle(LEFT, top, max(macs * scale, 1.0), THICKNESS, "left k1", radius=2))
        if part:
            width = max(part * scale, 1.0)
            start = LEFT + max(macs * scale - width, 0.0)
            bars.append(svg.rectangle(start, top, width, THICKNESS, "left tokens", radius=2))
        end = LEFT + max(macs, widest or 0) * scale + 8
        numbers = svg.element(
            "text",
            svg.element("tspan", format_count(macs), class_="strong"),
            f" of {format_count(widest)}" if widest else "",
            x=end,
            y=base,
            class_="tick",
        )
        parts += [svg.text(LEFT - 9, base, place, "tick", "end"), svg.element("g", *bars), numbers]
    height = HEADER + len(found) * ROW + 4
    return svg.drawing(WIDTH, height, *parts, label=name, class_="plot")
