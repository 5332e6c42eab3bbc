"""Anchors: a usual box of each class at each place of a map, which boxes they stand for, and boxes read off again.

At each place every class has two anchors, one along x and one along y, that stand where its objects usually do. A
network says of each anchor how likely it is an object of each class, by what the object's box differs from it, and
which way the object looks.

Source: PointPillars (Lang et al., CVPR 2019), sections 2.3 and 3; SECOND (Yan et al., Sensors 2018), sections 3.2 and
3.3, with the limit between the two directions at 45 degrees instead of along x, where most traffic would lie on it.

B batch, K classes, A = 2 K anchors a place, H0, W0 rows and columns of the map, M boxes, R anchors. A box is x, y, z of
its middle, length, width, height, yaw, in metres and radians (structures.Boxes3D).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hrnas.arch.architecture import AnchorHead
from hrnas.errors import InputError
from hrnas.geometry.boxes import wrapped
from hrnas.geometry.suppression import suppressed
from hrnas.structures import BoxClass, Boxes3D

YAWS: Final = AnchorHead.YAWS
STRIDE: Final = 2
"""Of the map, in pillars."""
FIELDS: Final = 10
"""Of a target: the anchor's number, its class (IGNORED_ANCHOR: none), 7 residuals, the direction."""
IGNORED_ANCHOR: Final = -1
"""The class of an anchor that is neither an object nor background."""
MOST_ANCHORS: Final = 1 << 24
"""Numbers of anchors are kept in float32, which has the whole numbers up to this one."""

LEAST_SCORE: Final = 0.1
"""A less likely box is none."""
DOUBLE: Final = 0.01
"""Two boxes of a class that overlap by more, as intersection over union seen from above, are one object."""
MOST_BOXES: Final = 100
"""Of a scene."""
_MOST_DECODED: Final = 4096
"""Anchors of a scene whose boxes are compared with each other, the likeliest ones."""
_HALF_TURN: Final = math.pi / 4
"""Yaw from which on, for half a turn, a box has direction 0."""
_LARGEST: Final = 4.0
"""Of a residual of a size; an untrained network's outputs must not become boxes without end."""

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class AnchorGrid:
    """The anchors of a map; their numbers count columns first, then rows, then the A anchors of a place.

    Of the A anchors the first two are those of the first class, along x and along y.

    rows, columns: of the map, y from below and x. step: metres from one place to the next; the map's middle is y = 0,
    its left edge x = 0, and an anchor is in the middle of its place.
    """

    classes: tuple[BoxClass, ...]
    rows: int
    columns: int
    step: float

    @classmethod
    def of(cls, classes: Sequence[BoxClass], input_size: tuple[int, int], cell: float) -> "AnchorGrid":
        """Return the anchors for a grid of pillars, rows x columns, of `cell` metres each."""
        rows, columns = input_size
        return cls(classes=tuple(classes), rows=rows // STRIDE, columns=columns // STRIDE, step=STRIDE * cell)

    def __len__(self) -> int:
        return len(self.classes) * YAWS * self.rows * self.columns

    @cached_property
    def x(self) -> Array:
        """x of the columns, (W0,)."""
        return (np.arange(self.columns, dtype=np.float64) + 0.5) * self.step

    @cached_property
    def y(self) -> Array:
        """y of the rows, (H0,)."""
        return (np.arange(self.rows, dtype=np.float64) + 0.5 - self.rows / 2) * self.step

    def boxes(self, numbers: NDArray[np.int64]) -> Array:
        """Return the anchors of these numbers (R,) as boxes (R, 7)."""
        kinds, rows, columns = np.unravel_index(numbers, (len(self.classes) * YAWS, self.rows, self.columns))
        labels, turns = np.divmod(kinds, YAWS)
        sizes = np.array([known.size for known in self.classes])
        heights = np.array([known.z for known in self.classes])
        return np.column_stack([self.x[columns], self.y[rows], heights[labels], sizes[labels], turns * math.pi / 2])

    def number(self, label: int, turn: int, row: int, column: int) -> int:
        """Return the number of an anchor."""
        return ((label * YAWS + turn) * self.rows + row) * self.columns + column

    def holds(self, boxes: Array) -> NDArray[np.bool_]:
        """Return which boxes (M, 7) have their middle within the map, seen from above."""
        return (
            (boxes[:, 0] >= 0)
            & (boxes[:, 0] < self.columns * self.step)
            & (np.abs(boxes[:, 1]) < self.rows * self.step / 2)
        )

    def overlapping(self, box: Array, label: int) -> tuple[NDArray[np.int64], Array]:
        """Return the numbers, ascending, of the class's anchors that overlap a box (7,), and by how much.

        As intersection over union seen from above, the box turned to the axis it is nearest to. Both rectangles then
        lie along the axes, so what they share is a length of x, which depends on the column, times one of y.
        """
        length, width = self.classes[label].size[:2]
        extent = box[3:5] if not _is_along_y(box[6]) else box[4:2:-1]
        numbers, overlaps = [], []
        for turn, (along_x, along_y) in enumerate(((length, width), (width, length))):
            shared_x, columns = _shared(self.x, along_x, box[0], extent[0])
            shared_y, rows = _shared(self.y, along_y, box[1], extent[1])
            shared = shared_y[:, None] * shared_x
            first = self.number(label, turn, 0, 0)
            numbers.append((first + rows[:, None] * self.columns + columns).ravel())
            overlaps.append((shared / (length * width + extent[0] * extent[1] - shared)).ravel())
        return np.concatenate(numbers), np.concatenate(overlaps)


def thresholds(overlap: float) -> tuple[float, float]:
    """Return the overlap from which on an anchor stands for a box, and below which it is background.

    overlap: of the class, by which its boxes count as found (BoxClass). The paper's are (.6, .45) for .7 and (.5, .35)
    for .5; others lie on the line through these: half the overlap and .25, and .15 less.
    """
    upper = overlap / 2 + 0.25
    return upper, upper - 0.15


def assigned(grid: AnchorGrid, boxes: Boxes3D) -> NDArray[np.float32]:
    """Return the targets of a scene, (R, FIELDS): the anchors that stand for a box and those that are ignored.

    All others are background. An anchor stands for the box of its class that it overlaps most, if by the upper
    threshold at least, and is ignored if by the lower one at least. Each box in the map has the anchor it overlaps most
    in any case (the one of its place where it overlaps none; where boxes want the same, the one of more overlap has it
    and the other the next free one).
    """
    labels = boxes.labels
    near = [grid.overlapping(box, label) for box, label in zip(boxes.boxes, labels.tolist(), strict=True)]
    certain = _certain(grid, boxes, near)
    numbers = np.concatenate([np.zeros(0, np.int64), *(found for found, _ in near)])
    overlaps = np.concatenate([np.zeros(0), *(found for _, found in near)])
    owners = np.repeat(np.arange(len(near)), [len(found) for found, _ in near])

    order = np.lexsort((owners, -overlaps, numbers))
    numbers, first = np.unique(numbers[order], return_index=True)
    overlaps, owners = overlaps[order][first], owners[order][first]
    upper, lower = np.array([thresholds(known.overlap) for known in grid.classes])[labels[owners]].T
    is_free = ~np.isin(numbers, list(certain))
    is_found = is_free & (overlaps >= upper)
    is_ignored = is_free & ~is_found & (overlaps >= lower)

    found = np.concatenate([np.fromiter(certain, np.int64, len(certain)), numbers[is_found]])
    owners = np.concatenate([np.fromiter(certain.values(), np.int64, len(certain)), owners[is_found]])
    targets = np.zeros((len(found) + int(is_ignored.sum()), FIELDS), np.float32)
    targets[: len(found), 0] = found
    targets[: len(found), 1] = labels[owners]
    targets[: len(found), 2:9], targets[: len(found), 9] = encoded(boxes.boxes[owners], grid.boxes(found))
    targets[len(found) :, 0] = numbers[is_ignored]
    targets[len(found) :, 1] = IGNORED_ANCHOR
    return targets


def encoded(boxes: Array, anchors: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return the residuals (R, 7) of boxes (R, 7) from their anchors (R, 7), and the boxes' directions (R,), 0 or 1.

    Offsets of the middle in diagonals of the anchor's base and in its heights; logarithms of the sizes' ratios; the
    difference of yaw to within a quarter of a turn, which half of the circle the direction says.
    """
    diagonals = np.hypot(anchors[:, 3], anchors[:, 4])[:, None]
    offsets = (boxes[:, :3] - anchors[:, :3]) / np.concatenate([diagonals, diagonals, anchors[:, 5:6]], 1)
    turns = wrapped(2 * (boxes[:, 6] - anchors[:, 6])) / 2
    residuals = np.concatenate([offsets, np.log(boxes[:, 3:6] / anchors[:, 3:6]), turns[:, None]], 1)
    # wrapped() is below 0 for the second half turn from the limit on.
    return residuals, (wrapped(boxes[:, 6] - _HALF_TURN) < 0).astype(np.int64)


def decoded(residuals: Tensor, directions: Tensor, anchors: Tensor) -> Tensor:
    """Return the boxes (R, 7) of residuals (R, 7), directions int64 (R,) and anchors (R, 7): `encoded` the other way.

    The yaw is in [-pi, pi]. Sizes are at most e^4 times the anchor's.
    """
    diagonals = torch.hypot(anchors[:, 3:4], anchors[:, 4:5])
    middles = residuals[:, :3] * torch.cat([diagonals, diagonals, anchors[:, 5:6]], 1) + anchors[:, :3]
    sizes = residuals[:, 3:6].clamp(-_LARGEST, _LARGEST).exp() * anchors[:, 3:6]
    # Half turns leave the box where it is: the first one from the limit on, and another for direction 1.
    turned = torch.remainder(residuals[:, 6] + anchors[:, 6] - _HALF_TURN, math.pi) + math.pi * directions.to(residuals)
    yaw = turned + _HALF_TURN
    yaw = torch.where(yaw > math.pi, yaw - 2 * math.pi, yaw)
    return torch.cat([middles, sizes, yaw[:, None]], 1)


def split_outputs(outputs: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a network says of its anchors, from outputs (B, A (K + 9), H0, W0).

    Logits of the classes (B, A, K, H0, W0), residuals (B, A, 7, H0, W0), logits of the directions (B, A, 2, H0, W0).
    """
    parts, anchors = (num_classes, AnchorHead.BOX, AnchorHead.DIRECTIONS), YAWS * num_classes
    logits, residuals, directions = (
        part.unflatten(1, (anchors, -1)) for part in outputs.split([anchors * size for size in parts], 1)
    )
    return logits, residuals, directions


def no_boxes() -> Boxes3D:
    """Return what is found where there is no point: what a network says of an empty map are its biases."""
    return Boxes3D(boxes=np.zeros((0, 7)), labels=np.zeros(0, np.int64), scores=np.zeros(0))


@torch.no_grad()
def found_boxes(outputs: Tensor, grid: AnchorGrid) -> Boxes3D:
    """Return the objects that a network's outputs (A (K + 9), H0, W0) show, likeliest first, at most MOST_BOXES.

    Each anchor's likeliest class; of boxes of a class that overlap the likeliest stays.
    Raises InputError for outputs of another shape.
    """
    shape = (AnchorHead(outputs=len(grid.classes)).channels, grid.rows, grid.columns)
    if tuple(outputs.shape) != shape:
        raise InputError(f"outputs are of shape {tuple(outputs.shape)}; {shape} is needed. Give those of one cloud.")
    logits, residuals, directions = (part[0].float() for part in split_outputs(outputs[None], len(grid.classes)))
    best, labels = (part.flatten() for part in logits.max(1))  # (A * H0 * W0,), in the order of the anchors' numbers
    likely = (best >= math.log(LEAST_SCORE / (1 - LEAST_SCORE))).nonzero()[:, 0]
    likely = likely[best[likely].argsort(descending=True, stable=True)][:_MOST_DECODED]
    scores, labels = best[likely].sigmoid(), labels[likely]

    anchors = torch.from_numpy(grid.boxes(likely.cpu().numpy())).to(residuals)
    kinds, places = likely // (grid.rows * grid.columns), likely % (grid.rows * grid.columns)
    boxes = decoded(residuals.flatten(2)[kinds, :, places], directions.flatten(2)[kinds, :, places].argmax(1), anchors)
    kept = [likely[:0]]
    for label in labels.unique().tolist():
        own = (labels == label).nonzero()[:, 0]
        kept.append(own[suppressed(boxes[own], scores[own], DOUBLE, MOST_BOXES)])
    order = torch.cat(kept)
    order = order[scores[order].argsort(descending=True, stable=True)][:MOST_BOXES]
    return Boxes3D(
        boxes=boxes[order].double().cpu().numpy(),
        labels=labels[order].cpu().numpy(),
        scores=scores[order].double().cpu().numpy(),
    )


def _is_along_y(yaw: float) -> bool:
    return abs(math.sin(yaw)) > abs(math.cos(yaw))


def _shared(middles: Array, length: float, middle: float, other: float) -> tuple[Array, NDArray[np.int64]]:
    """Return what lengths around the middles share with another around `middle`, where that is anything, and where."""
    shared = np.minimum(middles + length / 2, middle + other / 2) - np.maximum(middles - length / 2, middle - other / 2)
    places = np.flatnonzero(shared > 0)
    return shared[places], places


def _certain(grid: AnchorGrid, boxes: Boxes3D, near: Sequence[tuple[NDArray[np.int64], Array]]) -> dict[int, int]:
    """Return the anchors that stand for a box of the map whatever their overlap: the box's index by their numbers.

    near: the numbers and overlaps of the anchors that overlap each box.
    """
    taken: dict[int, int] = {}
    peaks = np.array([overlaps.max(initial=0) for _, overlaps in near])
    for place in np.argsort(-peaks, kind="stable").tolist():
        box, label = boxes.boxes[place], int(boxes.labels[place])
        if not grid.holds(box[None])[0]:
            continue
        numbers, overlaps = near[place]
        wanted = numbers[np.argsort(-overlaps, kind="stable")].tolist()
        if not wanted:
            row, column = int(np.abs(grid.y - box[1]).argmin()), int(np.abs(grid.x - box[0]).argmin())
            wanted = [grid.number(label, int(_is_along_y(box[6])), row, column)]
        number = next((number for number in wanted if number not in taken), None)
        if number is not None:
            taken[number] = place
    return taken
