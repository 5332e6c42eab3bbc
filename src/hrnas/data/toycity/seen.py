"""What of a world's things the camera sees: their pixels, their boxes, their joints.

H height, W width in pixels. A box is left, top, width and height in pixels of the picture.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hrnas.data.coco_joints import COCO_SKELETON
from hrnas.data.toycity.camera import project
from hrnas.data.toycity.figure import joints
from hrnas.data.toycity.raycast import cast
from hrnas.data.toycity.render import Picture
from hrnas.data.toycity.world import Thing, World

Box = tuple[int, int, int, int]

_DEEP: Final = {
    "nose": 0.03, "eye": 0.03, "ear": 0.045, "shoulder": 0.05, "elbow": 0.05, "wrist": 0.05, "hip": 0.12, "knee": 0.07,
    "ankle": 0.06,
}  # fmt: skip
"""How far below the surface of its own figure a joint may lie and still count as seen, as a share of the figure's
height: what the limb and its clothes are thick, and less than the way through a head, a trunk or the other leg."""
DEPTHS: Final = np.array([_DEEP[name.split("_")[-1]] for name in COCO_SKELETON.names])


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One thing's pixels. row: of World.things. box: tight about the pixels. pixels: bool (H, W)."""

    row: int
    box: Box
    pixels: NDArray[np.bool_]

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(self.pixels.sum())


def seen_things(picture: Picture) -> list[Seen]:
    """Find every thing that has a pixel in the picture, in the order of World.things."""
    owner = np.where(picture.solid >= 0, picture.bodies.thing[picture.solid], -1)
    return [_seen(row, owner == row) for row in np.unique(owner[owner >= 0]).tolist()]


def seen_figures(picture: Picture) -> list[Seen]:
    """Find every human figure that has a pixel in the picture, a cyclist's bicycle not counted."""
    is_figure = (picture.solid >= 0) & picture.bodies.figure[picture.solid]
    owner = np.where(is_figure, picture.bodies.thing[picture.solid], -1)
    return [_seen(row, owner == row) for row in np.unique(owner[owner >= 0]).tolist()]


def _seen(row: int, pixels: NDArray[np.bool_]) -> Seen:
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return Seen(row=row, box=(left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top), pixels=pixels)


def joints_in_world(thing: Thing) -> NDArray[np.float64]:
    """Return the 17 joints of a person's or cyclist's figure, in metres in the world's frame: (17, 3)."""
    assert thing.pose is not None
    found = joints(thing.pose)
    x, y, z = np.array([found[name] for name in COCO_SKELETON.names]).T
    cos, sin = math.cos(thing.heading), math.sin(thing.heading)
    return np.stack([thing.position[0] + cos * x - sin * y, thing.position[1] + sin * x + cos * y, z], axis=1)


def seen_joints(world: World, picture: Picture, figures: list[Seen]) -> NDArray[np.float32]:
    """Return the joints of n figures as in COCO: (n, 17, 3), column, row and visibility; zeros where not labelled.

    2, visible: what the ray toward the joint meets first is the joint's own figure, not deeper below its surface than
    the limb there is thick. 1, hidden: by another thing, or by another part of the figure. 0, not labelled: outside the
    picture, or hidden and outside the box of what is seen of the figure, so that nobody could say where it is.
    """
    height, width = picture.mask.shape
    things = [world.things[figure.row] for figure in figures]
    found = np.zeros((len(figures), len(DEPTHS), 3), np.float32)
    if not figures:
        return found
    points = np.stack([joints_in_world(thing) for thing in things])  # (n, 17, 3)
    place = project(world.view, points, height, width)
    eye = np.array(world.view.position)
    rays = (points - eye).reshape(-1, 3)
    far = np.linalg.norm(rays, axis=1)
    hits = cast(picture.bodies.solids, eye, rays / far[:, None])
    bodies = picture.bodies
    rows = np.repeat([figure.row for figure in figures], len(DEPTHS))
    own = (hits.solid >= 0) & bodies.figure[hits.solid] & (bodies.thing[hits.solid] == rows)
    deep = np.outer([thing.pose.height for thing in things if thing.pose], DEPTHS).reshape(-1)
    visible = (own & (far - hits.distance <= deep)).reshape(len(figures), -1)
    column, row, ahead = np.moveaxis(place, -1, 0)
    inside = (ahead > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    left, top, wide, high = np.array([figure.box for figure in figures]).T[:, :, None]
    boxed = (column >= left) & (column < left + wide) & (row >= top) & (row < top + high)
    labelled = inside & (visible | boxed)
    found[..., :2] = np.where(labelled[..., None], place[..., :2], 0)
    found[..., 2] = np.where(labelled, np.where(visible, 2, 1), 0)
    return found
