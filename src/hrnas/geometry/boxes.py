"""Boxes in space as numbers: their corners, the points inside them, angles.

M boxes, P points. A box is x, y, z of its middle, length, width, height, yaw (the angle of the length from +x towards
+y), in metres and radians; z points up.
"""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

EDGES: Final = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
"""Places in `corners` of both ends of a box's edges: around its bottom, around its top, between the two."""

_AHEAD: Final = np.array([1.0, -1.0, -1.0, 1.0])
_LEFT: Final = np.array([1.0, 1.0, -1.0, -1.0])


def bev_corners(boxes: Array) -> Array:
    """Return the corners (M, 4, 2) of boxes (M, 7) seen from above: front left, rear left, rear right, front right.

    That is counter-clockwise; the front is where the length points.
    """
    along = boxes[:, 3:4] / 2 * _AHEAD  # (M, 4)
    across = boxes[:, 4:5] / 2 * _LEFT
    cosine, sine = np.cos(boxes[:, 6:7]), np.sin(boxes[:, 6:7])
    x = boxes[:, 0:1] + along * cosine - across * sine
    y = boxes[:, 1:2] + along * sine + across * cosine
    return np.stack([x, y], axis=2)


def corners(boxes: Array) -> Array:
    """Return the corners (M, 8, 3) of boxes (M, 7): four of the bottom as bev_corners, then four above them."""
    flat = np.tile(bev_corners(boxes), (1, 2, 1))  # (M, 8, 2)
    z = boxes[:, 2:3] + boxes[:, 5:6] / 2 * np.repeat([-1.0, 1.0], 4)  # (M, 8)
    return np.concatenate([flat, z[:, :, None]], axis=2)


def points_in_boxes(points: NDArray[Any], boxes: Array) -> NDArray[np.bool_]:
    """Return which points (P, 3 or more: x, y, z, ...) lie in which boxes (M, 7): (M, P). Faces belong to a box."""
    inside = np.zeros((len(boxes), len(points)), np.bool_)
    x, y = np.ascontiguousarray(points[:, :2].T)
    for row, (box_x, box_y, box_z, length, width, height, yaw) in zip(inside, boxes.tolist(), strict=True):
        # Few points are near a box, and cheap comparisons find them; the margin is for what rounding takes off.
        reach = 1.001 * math.hypot(length, width) / 2 + 1e-3
        near = np.flatnonzero((np.abs(x - box_x) <= reach) & (np.abs(y - box_y) <= reach))
        offsets = points[near, :3].astype(np.float64) - (box_x, box_y, box_z)
        along = math.cos(yaw) * offsets[:, 0] + math.sin(yaw) * offsets[:, 1]
        across = math.cos(yaw) * offsets[:, 1] - math.sin(yaw) * offsets[:, 0]
        row[near] = (
            (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2) & (np.abs(offsets[:, 2]) <= height / 2)
        )
    return inside


def wrapped(angle: ArrayLike) -> Array:
    """Return angles in radians, of any shape, as the same directions in [-pi, pi)."""
    turned = np.mod(np.asarray(angle, np.float64) + math.pi, 2 * math.pi) - math.pi
    # The remainder of a tiny negative number rounds to the whole turn itself.
    return np.asarray(np.where(turned >= math.pi, -math.pi, turned))
