"""Placing labels in a drawing so that they cover neither each other nor what they stand beside."""

from collections.abc import Sequence
from typing import Final

from hrnas.reporting import svg

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

LABEL_SIZE: Final = 11.0
ASCENT: Final = 9.0
DESCENT: Final = 2.5


def box_of(label: str, x: float, base: float, anchor: str = "start") -> Box:
    """Return about what a label of the note's size covers, written at (x, base)."""
    width = svg.width_of(label, LABEL_SIZE)
    left = x if anchor == "start" else x - width
    return (left, base - ASCENT, left + width, base + DESCENT)


def first_free(boxes: Sequence[Box], taken: Sequence[Box], room: Box) -> int | None:
    """Return the index of the first box inside `room` that covers nothing taken, or None."""
    for index, box in enumerate(boxes):
        inside = box[0] >= room[0] and box[1] >= room[1] and box[2] <= room[2] and box[3] <= room[3]
        if inside and not any(_overlap(box, other) for other in taken):
            return index
    return None


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
