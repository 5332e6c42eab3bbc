"""What of a world's things the camera sees: their pixels, their boxes, their joints.

H height, W width in pixels. A box is left, top, width and height in pixels of the picture.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hrnas.data.coco_joints import COCO_SKELETON
from hrnas.data.toycity.camera import project, rays_through
from hrnas.data.toycity.figure import joints
from hrnas.data.toycity.raycast import cast, part_of
from hrnas.data.toycity.render import Picture
from hrnas.data.toycity.shapes import Bodies
from hrnas.data.toycity.world import Thing, World

Box = tuple[int, int, int, int]

_DEEP: Final = {
    "nose": 0.03, "eye": 0.03, "ear": 0.045, "shoulder": 0.05, "elbow": 0.05, "wrist": 0.05, "hip": 0.12, "knee": 0.07,
    "ankle": 0.06,
}  # fmt: skip
"""How far below its thing's surface a joint may lie and still count as seen, as a share of the figure's height: what
the limb and its clothes are thick, and less than the way through a head, a trunk or the other leg."""
_DEPTHS: Final = np.array([_DEEP[name.split("_")[-1]] for name in COCO_SKELETON.names])
_GRID: Final = 20
"""Rays across and down the box of a thing of which the hidden share is asked."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The pixels of one thing. row: of World.things. box: tight about the pixels. area: their number."""

    row: int
    box: Box
    area: int


def owners(picture: Picture, *, only_figures: bool = False) -> NDArray[np.int64]:
    """Return the row of World.things of each pixel, (H, W); -1 for ground and sky, and for all but human figures."""
    bodies = picture.bodies
    counts = (picture.solid >= 0) & (bodies.figure[picture.solid] | (not only_figures))
    return np.where(counts, bodies.thing[picture.solid], -1)


def seen_things(owner: NDArray[np.int64]) -> list[Seen]:
    """Find everything that owns a pixel, in the order of World.things. owner: (H, W), from `owners`."""
    at = np.flatnonzero(owner >= 0)
    if not len(at):
        return []
    flat = owner.reshape(-1)
    at = at[np.argsort(flat[at], kind="stable")]
    rows, first, area = np.unique(flat[at], return_index=True, return_counts=True)
    y, x = np.divmod(at, owner.shape[1])
    left, top = np.minimum.reduceat(x, first), np.minimum.reduceat(y, first)
    wide, high = np.maximum.reduceat(x, first) + 1 - left, np.maximum.reduceat(y, first) + 1 - top
    table = np.stack([rows, left, top, wide, high, area], axis=1).tolist()
    return [Seen(row=row, box=(x0, y0, w, h), area=pixels) for row, x0, y0, w, h, pixels in table]


def hidden_share(
    world: World, bodies: Bodies, row: int, box: tuple[float, float, float, float], height: int, width: int
) -> float:
    """Return the share 0..1 of a thing's outline that others hide from the camera; 1 where nothing of it is in the box.

    row: of World.things. box: left, top, right and bottom, in a picture of the height and width; rays go through a grid
    of places in it.
    """
    left, top, right, bottom = box
    share = (np.arange(_GRID) + 0.5) / _GRID
    rays = rays_through(world.view, left + share * (right - left), top + share * (bottom - top), height, width)
    rays = rays.reshape(-1, 3)
    eye = np.array(world.view.position)
    rays = rays[cast(part_of(bodies.solids, bodies.thing == row), eye, rays).solid >= 0]
    if not len(rays):
        return 1.0
    met = cast(bodies.solids, eye, rays).solid  # they all meet something: the thing itself, or what is before it
    return float((bodies.thing[met] != row).mean())


def joints_in_world(thing: Thing) -> NDArray[np.float64]:
    """Return the 17 joints of a person's or cyclist's figure, in metres in the world's frame: (17, 3)."""
    assert thing.pose is not None
    found = joints(thing.pose)
    x, y, z = np.array([found[name] for name in COCO_SKELETON.names]).T
    cos, sin = math.cos(thing.heading), math.sin(thing.heading)
    return np.stack([thing.position[0] + cos * x - sin * y, thing.position[1] + sin * x + cos * y, z], axis=1)


def seen_joints(world: World, picture: Picture, figures: list[Seen]) -> NDArray[np.float32]:
    """Return the joints of n figures as in COCO: (n, 17, 3), x, y and visibility; zeros where not labelled.

    x and y count from the middle of the first pixel, unlike boxes, which count from its corner.
    2, visible: what the ray toward the joint meets first is the joint's own thing (the grip that sticks out of a
    cyclist's hand, too), and the joint not deeper below that surface than the limb there is thick. 1, hidden: by
    another thing, or by another part of its own. 0, not labelled: outside the picture, or hidden and
    outside the box of what is seen of the figure, so that nobody could say where it is.
    """
    height, width = picture.mask.shape
    things = [world.things[figure.row] for figure in figures]
    found = np.zeros((len(figures), len(_DEPTHS), 3), np.float32)
    if not figures:
        return found
    points = np.stack([joints_in_world(thing) for thing in things])  # (n, 17, 3)
    place = project(world.view, points, height, width)
    eye = np.array(world.view.position)
    rays = (points - eye).reshape(-1, 3)
    far = np.linalg.norm(rays, axis=1)
    hits = cast(picture.bodies.solids, eye, rays / far[:, None])
    rows = np.repeat([figure.row for figure in figures], len(_DEPTHS))
    own = (hits.solid >= 0) & (picture.bodies.thing[hits.solid] == rows)
    deep = np.outer([thing.pose.height for thing in things if thing.pose], _DEPTHS).reshape(-1)
    visible = (own & (far - hits.distance <= deep)).reshape(len(figures), -1)
    column, row, ahead = np.moveaxis(place, -1, 0)
    inside = (ahead > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    left, top, wide, high = np.array([figure.box for figure in figures]).T[:, :, None]
    boxed = (column >= left) & (column < left + wide) & (row >= top) & (row < top + high)
    labelled = inside & (visible | boxed)
    found[..., :2] = np.where(labelled[..., None], place[..., :2] - 0.5, 0)
    found[..., 2] = np.where(labelled, np.where(visible, 2, 1), 0)
    return found
