"""Solids with what they are part of: shapes are given in a thing's own frame and moved to the world all at once."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hrnas.data.toycity.figure import Point
from hrnas.data.toycity.raycast import Solids, make_solids
from hrnas.data.toycity.world import NAMES, Colour, Thing

Rect = tuple[float, float, float, float]
"""Rear, front, right and left edge in a thing's own frame: x ahead, y left, metres from the middle of its footprint."""

DARK: Final = (0.03, 0.03, 0.035)
"""The colour of rubber, leather and what lies in the shade."""


class Material(IntEnum):
    """How the surface of a solid is textured; the meaning of `detail` in parentheses."""

    GROUND = 0
    PLAIN = 1  # (strength of the grain)
    FACADE = 2  # (width of a bay, height of a floor, 1 for a shop on the ground floor)
    FOLIAGE = 3
    PAINT = 4  # glossy
    CABIN = 5  # glass at the sides under a painted roof
    CLOTH = 6  # (strength of the stripes)
    SPOKES = 7  # a tyre around see-through grey


@dataclass(frozen=True, kw_only=True)
class Bodies:
    """The solids of a world and, row by row of their table, what they are part of.

    thing: int64 (P,), row of World.things, -1 for the ground. category: uint8 (P,), index of NAMES; the ground's is of
    no use, its surface decides. material: uint8 (P,). colour, second: float32 (P, 3). detail: float32 (P, 3).
    figure: bool (P,), whether it is part of a human figure, clothes and bag included; a bicycle is not.
    shift: float32 (P,), metres by which a solid's texture is moved so that no two look alike.
    """

    solids: Solids
    thing: NDArray[np.int64]
    category: NDArray[np.uint8]
    material: NDArray[np.uint8]
    colour: NDArray[np.float32]
    second: NDArray[np.float32]
    detail: NDArray[np.float32]
    figure: NDArray[np.bool_]
    shift: NDArray[np.float32]


class Shapes:
    """Collects shapes in the frame of the thing at hand."""

    def __init__(self) -> None:
        # Each shape: its own numbers, and the row that says where it stands and how it is painted.
        self.shapes: tuple[list[tuple[float, ...]], ...] = ([], [], [])
        self.parts: tuple[list[tuple[float, ...]], ...] = ([], [], [])

    def ground(self) -> None:
        # Its edge is so far off that it looks like the horizon.
        self.head: tuple[float, ...] = (0.0, 0.0, 0.0, -1, 0, 0.0, 0)
        self.block((-600, 600, -600, 600), -1.0, (-600, 600, -600, 600), 0.0, Material.GROUND, (0.3, 0.3, 0.3))

    def start(self, row: int, thing: Thing) -> None:
        self.head = (*thing.position, thing.heading, row, NAMES.index(thing.category), thing.seed % 9973 / 10, 0)

    def start_figure(self) -> None:
        """What follows of the thing at hand is its human figure."""
        self.head = (*self.head[:-1], 1)

    def _part(self, which: int, shape: tuple[float, ...], material: Material, paint: tuple[float, ...]) -> None:
        self.shapes[which].append(shape)
        self.parts[which].append((*self.head, material, *paint))

    def block(
        self, bottom: Rect, z0: float, top: Rect, z1: float, material: Material, colour: Colour,
        second: Colour = DARK, detail: Point = (0.2, 0.0, 0.0),
    ) -> None:  # fmt: skip
        """A block between two rectangles, one above the other."""
        self._part(0, (*bottom, z0, *top, z1), material, (*colour, *second, *detail))

    def capsule(
        self, a: Point, b: Point, radius: float, material: Material, colour: Colour, second: Colour = DARK,
        detail: Point = (0.2, 0.0, 0.0),
    ) -> None:  # fmt: skip
        self._part(1, (*a, *b, radius), material, (*colour, *second, *detail))

    def ellipsoid(
        self, centre: Point, radii: Point, material: Material, colour: Colour, second: Colour = DARK,
        turn: float = 0.0, roll: float = 0.0,
    ) -> None:  # fmt: skip
        self._part(2, (*centre, *radii, turn, roll), material, (*colour, *second, 0.2, 0.0, 0.0))

    def _tables(self) -> list[NDArray[np.float64]]:
        return [
            np.array(rows, np.float64).reshape(-1, width) for rows, width in zip(self.shapes, (10, 7, 8), strict=True)
        ]

    def extent(self) -> NDArray[np.float64]:
        """Return the low and the high corner of the box about all shapes so far, in their thing's own frame: (2, 3)."""
        blocks, capsules, ellipsoids = self._tables()
        ends, radius = capsules[:, :6].reshape(-1, 2, 3), capsules[:, 6:]
        # Each column of the map from the unit sphere is half an axis.
        half = np.linalg.inv(make_solids(np.empty(0), np.empty(0), ellipsoids).ellipsoid_frame.astype(np.float64))
        reach = np.linalg.norm(half, axis=2)
        low = [_corners(blocks).min(axis=1), ends.min(axis=1) - radius, ellipsoids[:, :3] - reach]
        high = [_corners(blocks).max(axis=1), ends.max(axis=1) + radius, ellipsoids[:, :3] + reach]
        return np.stack([np.concatenate(low).min(axis=0), np.concatenate(high).max(axis=0)])

    def finish(self) -> Bodies:
        """Move all shapes to the world and build the table."""
        parts = [np.array(rows, np.float64).reshape(-1, 17) for rows in self.parts]
        blocks, capsules, ellipsoids = self._tables()
        corners = _to_world(parts[0], _corners(blocks))
        ends = _to_world(parts[1], capsules[:, :6].reshape(-1, 2, 3)).reshape(-1, 6)
        centres = _to_world(parts[2], ellipsoids[:, None, :3])[:, 0]
        ellipsoids[:, 6] += parts[2][:, 2]
        table = np.concatenate(parts)
        return Bodies(
            solids=make_solids(
                corners,
                np.concatenate([ends, capsules[:, 6:]], axis=1),
                np.concatenate([centres, ellipsoids[:, 3:]], axis=1),
            ),
            thing=table[:, 3].astype(np.int64),
            category=table[:, 4].astype(np.uint8),
            shift=table[:, 5].astype(np.float32),
            figure=table[:, 6].astype(np.bool_),
            material=table[:, 7].astype(np.uint8),
            colour=table[:, 8:11].astype(np.float32),
            second=table[:, 11:14].astype(np.float32),
            detail=table[:, 14:17].astype(np.float32),
        )


def _corners(blocks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners (n, 8, 3) of blocks (n, 10) in their things' frames, as `make_solids` takes them."""
    x = blocks[:, [0, 1, 1, 0, 5, 6, 6, 5]]
    y = blocks[:, [2, 2, 3, 3, 7, 7, 8, 8]]
    z = blocks[:, [4, 4, 4, 4, 9, 9, 9, 9]]
    return np.stack([x, y, z], axis=-1)


def _to_world(parts: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn and move points (n, m, 3) from their things' frames into the world."""
    x, y, heading = parts[:, 0:1], parts[:, 1:2], parts[:, 2:3]
    cos, sin = np.cos(heading), np.sin(heading)
    return np.stack(
        [
            x + cos * points[:, :, 0] - sin * points[:, :, 1],
            y + sin * points[:, :, 0] + cos * points[:, :, 1],
            points[:, :, 2],
        ],
        axis=-1,
    )
