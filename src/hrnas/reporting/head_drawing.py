"""The head's part of the drawing of a network: its wires and plain layers, and where its search blocks stand.

x: where the branches arrive from the last stage; rows: the heights of the branches, the head's to begin with.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from markupsafe import Markup

from hrnas.arch.architecture import AnchorHead, ClassHead, DenseHead, Feature, Head
from hrnas.reporting import svg
from hrnas.reporting.blocks import Place
from hrnas.reporting.glyphs import BOX_WIDTH

TITLE: Final = 16.0
"""Height of the column's name."""
PLAIN_WIDTH: Final = 16.0
PLAIN_HEIGHT: Final = 24.0
DEPTH: Final = 32.0
"""Room that the plain layers and the number of outputs take below a row."""
SUM_RADIUS: Final = 3.2

DENSE_WIDTH: Final = 176.0
JOIN: Final = 40.0
"""From x to where the branches of a dense head are concatenated."""
DENSE_BLOCK: Final = 62.0
"""From x to its block."""

ANCHORS_WIDTH: Final = 122.0

CLASSES_WIDTH: Final = 218.0
WIDEN: Final = 14.0
"""From x to the blocks of a head of classes that widen."""
SUMS: Final = WIDEN + BOX_WIDTH + 38.0
"""From x to the column of its sums, with the blocks that carry them down."""
LAYERS: Final = SUMS + BOX_WIDTH / 2 + 5.0
"""From x to its plain layers, clear of the blocks above."""
STEP: Final = PLAIN_WIDTH + 10.0


def head_width(head: Head) -> float:
    """Return how much room the head needs right of x."""
    if isinstance(head, DenseHead):
        return DENSE_WIDTH
    return ANCHORS_WIDTH if isinstance(head, AnchorHead) else CLASSES_WIDTH


def head_middle(place: Place, x: float, rows: Sequence[float]) -> tuple[float, float]:
    """Return the middle of the glyph of one of the head's search blocks."""
    if place.role == "head":
        return x + DENSE_BLOCK + BOX_WIDTH / 2, rows[0]
    if place.role == "widen":
        return x + WIDEN + BOX_WIDTH / 2, rows[place.branch]
    return x + SUMS, (rows[place.source] + rows[place.branch]) / 2


def draw_head(head: Head, features: Sequence[Feature], x: float, rows: Sequence[float], glyph_height: float) -> Markup:
    """Return the head but for its glyphs; `features` are what the branches give to it."""
    if isinstance(head, DenseHead):
        return _dense(head, features, x, rows[: len(features)], glyph_height)
    if isinstance(head, AnchorHead):
        return _anchors(head, features, x, rows[: len(features)])
    return _classes(head, x, rows[: len(features)])


def _dense(
    head: DenseHead, features: Sequence[Feature], x: float, rows: Sequence[float], glyph_height: float
) -> Markup:
    """The branches resized and concatenated, the wire through the glyph, the last convolution."""
    top, join = rows[0], x + JOIN
    block, out = x + DENSE_BLOCK, x + DENSE_BLOCK + BOX_WIDTH
    return Markup().join(
        [
            svg.text(block + BOX_WIDTH / 2, TITLE, "head", "column", "middle"),
            _concatenated(x, block, rows),
            _level(out, out + 48, top),
            _plain(out + 12, top, f"1×1 conv: {head.block.out_channels} → {head.outputs} outputs"),
            svg.text(join - 26, top - glyph_height / 2 - 5, f"{_width(features)} channels", "tick"),
            svg.text(out + 20, top + glyph_height / 2 + 14, f"{head.outputs} outputs", "tick", "middle"),
        ]
    )


def _anchors(head: AnchorHead, features: Sequence[Feature], x: float, rows: Sequence[float]) -> Markup:
    """The branches resized and concatenated, the convolution to scores, boxes and directions."""
    top, layer = rows[0], x + DENSE_BLOCK
    words = (
        f"1×1 conv: {_width(features)} → {head.channels}: {head.anchors} anchors, of each {head.outputs} scores, "
        f"{head.BOX} numbers of a box, {head.DIRECTIONS} of a direction"
    )
    return Markup().join(
        [
            svg.text(layer, TITLE, "head", "column", "middle"),
            _concatenated(x, layer + PLAIN_WIDTH + 20, rows),
            _plain(layer, top, words),
            svg.text(x + JOIN - 26, top - PLAIN_HEIGHT / 2 - 7, f"{_width(features)} channels", "tick"),
            svg.text(layer + PLAIN_WIDTH / 2, top + PLAIN_HEIGHT / 2 + 15, f"{head.anchors} anchors", "tick", "middle"),
        ]
    )


def _concatenated(x: float, end: float, rows: Sequence[float]) -> Markup:
    """The wires of the branches into one at JOIN, and on to `end` along the first row."""
    top, join, n = rows[0], x + JOIN, svg.number
    parts = [_level(x, end, top)]
    for y in rows[1:]:
        turn = f"M{n(x)} {n(y)}H{n(join - 8)}Q{n(join)} {n(y)} {n(join)} {n(y - 8)}V{n(top)}"
        parts.append(svg.path(turn, "wire"))
    return Markup().join([*parts, svg.circle(join, top, SUM_RADIUS, "sum")])


def _width(features: Sequence[Feature]) -> int:
    return sum(feature.channels for feature in features)


def _classes(head: ClassHead, x: float, rows: Sequence[float]) -> Markup:
    """Every branch into its sum, every sum down into the next; the last one's convolution, average and linear layer."""
    sums, bottom, n = x + SUMS, rows[-1], svg.number
    parts = [svg.text(sums - BOX_WIDTH / 2, TITLE, "head", "column", "middle")]
    for y in rows:
        parts += [_level(x, x + WIDEN, y), _level(x + WIDEN + BOX_WIDTH, sums, y)]
    for above, below in pairwise(rows):
        # Behind the glyph: those of one network may differ in height.
        parts.append(svg.path(f"M{n(sums)} {n(above)}V{n(below)}", "wire"))
    conv, average, linear = (x + LAYERS + index * STEP for index in range(3))
    parts.append(_level(sums, linear + PLAIN_WIDTH + 14, bottom))
    parts += [svg.circle(sums, y, SUM_RADIUS, "sum") for y in rows[1:]]
    parts += [
        _plain(conv, bottom, f"1×1 conv: {head.widen[-1].out_channels} → {head.features} features"),
        _average(average, bottom),
        _plain(linear, bottom, f"dropout {head.dropout:g}, linear: {head.features} → {head.outputs} outputs"),
        svg.text(conv, bottom - PLAIN_HEIGHT / 2 - 7, f"{head.features} features", "tick"),
        svg.text(conv, bottom + PLAIN_HEIGHT / 2 + 15, f"{head.outputs} outputs", "tick"),
    ]
    return Markup().join(parts)


def _level(start: float, end: float, y: float) -> Markup:
    """A wire along a row."""
    return svg.path(f"M{svg.number(start)} {svg.number(y)}H{svg.number(end)}", "wire")


def _plain(left: float, y: float, words: str) -> Markup:
    """A layer that is not searched, with its tooltip."""
    box = svg.rectangle(left, y - PLAIN_HEIGHT / 2, PLAIN_WIDTH, PLAIN_HEIGHT, "plain", radius=3)
    return svg.element("g", svg.element("title", words), box)


def _average(left: float, y: float) -> Markup:
    """The global average: what becomes of a whole map is one vector."""
    n, tall, low = svg.number, PLAIN_HEIGHT / 2, PLAIN_HEIGHT / 6
    right = left + PLAIN_WIDTH
    shape = f"M{n(left)} {n(y - tall)}L{n(right)} {n(y - low)}V{n(y + low)}L{n(left)} {n(y + tall)}Z"
    return svg.element("g", svg.element("title", "global average"), svg.path(shape, "plain"))
