"""From things to solids: the shapes a thing is made of, and how each is painted."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hrnas.data.toycity.figure import SADDLE_HEIGHT, Point, joints
from hrnas.data.toycity.raycast import Solids, make_solids
from hrnas.data.toycity.world import NAMES, Colour, Thing, World

Rect = tuple[float, float, float, float]
"""Rear, front, right and left edge in a thing's own frame: x ahead, y left, metres from the middle of its footprint."""

_DARK: Final = (0.03, 0.03, 0.035)
_GLASS: Final = (0.07, 0.09, 0.1)


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
    shift: float32 (P,), metres by which a solid's texture is moved so that no two look alike.
    """

    solids: Solids
    thing: NDArray[np.int64]
    category: NDArray[np.uint8]
    material: NDArray[np.uint8]
    colour: NDArray[np.float32]
    second: NDArray[np.float32]
    detail: NDArray[np.float32]
    shift: NDArray[np.float32]


def make_bodies(world: World) -> Bodies:
    """Give every thing of the world its shape, and the ground below them all."""
    shapes = _Shapes()
    shapes.ground()
    for row, thing in enumerate(world.things):
        shapes.start(row, thing)
        _MAKERS[thing.category](shapes, thing)
    return shapes.finish()


class _Shapes:
    """Collects shapes in the frame of the thing at hand."""

    def __init__(self) -> None:
        # Each shape: its own numbers, and the row that says where it stands and how it is painted.
        self.shapes: tuple[list[tuple[float, ...]], ...] = ([], [], [])
        self.parts: tuple[list[tuple[float, ...]], ...] = ([], [], [])

    def ground(self) -> None:
        # Its edge is so far off that it looks like the horizon.
        self.head: tuple[float, ...] = (0.0, 0.0, 0.0, -1, 0, 0.0)
        self.block((-600, 600, -600, 600), -1.0, (-600, 600, -600, 600), 0.0, Material.GROUND, (0.3, 0.3, 0.3))

    def start(self, row: int, thing: Thing) -> None:
        self.head = (*thing.position, thing.heading, row, NAMES.index(thing.category), thing.seed % 9973 / 10)

    def _part(self, which: int, shape: tuple[float, ...], material: Material, paint: tuple[float, ...]) -> None:
        self.shapes[which].append(shape)
        self.parts[which].append((*self.head, material, *paint))

    def block(
        self, bottom: Rect, z0: float, top: Rect, z1: float, material: Material, colour: Colour,
        second: Colour = _DARK, detail: Point = (0.2, 0.0, 0.0),
    ) -> None:  # fmt: skip
        """A block between two rectangles, one above the other."""
        self._part(0, (*bottom, z0, *top, z1), material, (*colour, *second, *detail))

    def capsule(
        self, a: Point, b: Point, radius: float, material: Material, colour: Colour, second: Colour = _DARK,
        detail: Point = (0.2, 0.0, 0.0),
    ) -> None:  # fmt: skip
        self._part(1, (*a, *b, radius), material, (*colour, *second, *detail))

    def ellipsoid(
        self, centre: Point, radii: Point, material: Material, colour: Colour, second: Colour = _DARK,
        turn: float = 0.0, roll: float = 0.0,
    ) -> None:  # fmt: skip
        self._part(2, (*centre, *radii, turn, roll), material, (*colour, *second, 0.2, 0.0, 0.0))

    def finish(self) -> Bodies:
        """Move all shapes to the world and build the table."""
        parts = [np.array(rows, np.float64).reshape(-1, 16) for rows in self.parts]
        blocks, capsules, ellipsoids = (
            np.array(rows, np.float64).reshape(-1, width) for rows, width in zip(self.shapes, (10, 7, 8), strict=True)
        )
        x = blocks[:, [0, 1, 1, 0, 5, 6, 6, 5]]
        y = blocks[:, [2, 2, 3, 3, 7, 7, 8, 8]]
        z = blocks[:, [4, 4, 4, 4, 9, 9, 9, 9]]
        corners = _to_world(parts[0], np.stack([x, y, z], axis=-1))  # (Ph, 8, 3)
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
            material=table[:, 6].astype(np.uint8),
            colour=table[:, 7:10].astype(np.float32),
            second=table[:, 10:13].astype(np.float32),
            detail=table[:, 13:16].astype(np.float32),
        )


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


def _inset(rect: Rect, by: float) -> Rect:
    return rect[0] + by, rect[1] - by, rect[2] + by, rect[3] - by


def _building(shapes: _Shapes, thing: Thing) -> None:
    length, width, height = thing.size
    random = Random(thing.seed)
    base = (-length / 2, length / 2, -width / 2, width / 2)
    if thing.kind == "wall":
        shapes.block(base, 0.0, base, height, Material.PLAIN, thing.colours[0], detail=(0.5, 0.0, 0.0))
        return
    wall, glass, roof = thing.colours
    bays = (random.uniform(1.8, 4.0), random.uniform(2.7, 3.4), float(thing.kind == "shop"))
    shapes.block(base, 0.0, base, height, Material.FACADE, wall, glass, bays)
    if thing.kind == "gable":
        eaves = _inset(base, -0.35)
        if random.random() < 0.6:
            ridge = (eaves[0], eaves[1], -0.05, 0.05)
        else:
            ridge = (-0.05, 0.05, eaves[2], eaves[3])
        top = height + random.uniform(0.25, 0.45) * min(length, width)
        shapes.block(eaves, height, ridge, top, Material.PLAIN, roof, detail=(0.5, 0.0, 0.0))
        if random.random() < 0.6:
            x = random.uniform(-0.3, 0.3) * length
            stack = (x - 0.35, x + 0.35, -0.35, 0.35)
            shapes.block(stack, height, stack, top + 0.6, Material.PLAIN, wall)
    else:
        cornice = _inset(base, -0.15)
        shapes.block(cornice, height - 0.3, cornice, height + 0.25, Material.PLAIN, roof)
        if random.random() < 0.4:
            hut = (-length * 0.2, length * 0.1, -width * 0.2, width * 0.2)
            shapes.block(hut, height, hut, height + random.uniform(1.5, 3), Material.PLAIN, wall)
    if thing.kind == "shop":
        x = random.uniform(-0.2, 0.0) * length
        awning = (x, x + random.uniform(0.3, 0.5) * length, width / 2, width / 2 + 1.3)
        cloth = (random.random() * 0.7, random.random() * 0.5, random.random() * 0.5)
        under = (awning[0], awning[1], width / 2 - 0.1, width / 2 + 0.05)
        shapes.block(awning, 2.5, under, 3.1, Material.CLOTH, cloth, (0.7, 0.7, 0.65), (1.0, 0.0, 0.0))


def _tree(shapes: _Shapes, thing: Thing) -> None:
    length, width, height = thing.size
    random = Random(thing.seed)
    leaves = thing.colours[0]
    if thing.kind == "hedge":
        base = (-length / 2, length / 2, -width / 2, width / 2)
        shapes.block(base, 0.0, _inset(base, 0.08), height, Material.FOLIAGE, leaves)
        return
    if thing.kind == "conifer":
        shapes.capsule((0, 0, 0), (0, 0, 0.5 * height), 0.16, Material.PLAIN, thing.colours[1])
        layers = 6
        for i in range(layers):
            z = height * (0.2 + 0.74 * i / (layers - 1))
            reach = width / 2 * (1.05 - 0.85 * i / (layers - 1))
            offset = (random.gauss(0, 0.06) * width, random.gauss(0, 0.06) * width, z)
            shapes.ellipsoid(offset, (reach, reach * 0.9, height * 0.14), Material.FOLIAGE, leaves)
        return
    low = 0.0
    if thing.kind == "round":
        low = height * random.uniform(0.3, 0.42)
        lean = (random.gauss(0, 0.15), random.gauss(0, 0.15))
        thick = 0.05 + 0.018 * height
        shapes.capsule(
            (0, 0, 0), (*lean, low + 0.15 * height), thick, Material.PLAIN, thing.colours[1], detail=(0.5, 0, 0)
        )
        for _ in range(2):
            tip = (random.uniform(-0.25, 0.25) * width, random.uniform(-0.25, 0.25) * width, low + 0.3 * height)
            shapes.capsule((*lean, low), tip, thick * 0.5, Material.PLAIN, thing.colours[1])
    tall = height - low
    for _ in range(13 if thing.kind == "round" else 6):
        angle, share = random.uniform(0, 2 * math.pi), random.random()
        level = random.uniform(0.12, 0.9)
        # The crown is widest at its middle.
        ring = 0.36 * width * math.sqrt(share) * math.sqrt(max(0.05, 1 - (2 * level - 1) ** 2))
        radius = width * random.uniform(0.13, 0.26)
        centre = (ring * math.cos(angle), ring * math.sin(angle), low + level * tall)
        radii = (radius * random.uniform(0.8, 1.2), radius, min(radius, 0.3 * tall) * random.uniform(0.7, 1.0))
        shapes.ellipsoid(centre, radii, Material.FOLIAGE, leaves, turn=random.uniform(0, 3), roll=random.gauss(0, 0.3))


def _pole(shapes: _Shapes, thing: Thing) -> None:
    height = thing.size[2]
    metal, paint = thing.colours
    if thing.kind == "bollard":
        shapes.capsule((0, 0, 0), (0, 0, height - 0.08), 0.08, Material.PLAIN, metal)
        shapes.capsule((0, 0, 0.7 * height), (0, 0, 0.75 * height), 0.085, Material.PLAIN, paint)
        return
    radius = {"lamp": 0.085, "mast": 0.13, "signal": 0.075, "sign": 0.045}[thing.kind]
    shapes.capsule((0, 0, 0), (0, 0, height), radius, Material.PLAIN, metal)
    if thing.kind == "lamp":
        shapes.capsule((0, 0, height), (1.5, 0, height + 0.25), 0.05, Material.PLAIN, metal)
        shapes.ellipsoid((1.7, 0, height + 0.22), (0.42, 0.15, 0.1), Material.PLAIN, metal)
    elif thing.kind == "mast":
        for z in (height - 0.3, height - 0.9):
            shapes.capsule((0, -1.0, z), (0, 1.0, z), 0.06, Material.PLAIN, metal)
    elif thing.kind == "signal":
        z = height - 0.5
        shapes.block((-0.15, 0.15, -0.16, 0.16), z - 0.45, (-0.15, 0.15, -0.16, 0.16), z + 0.45, Material.PLAIN, _DARK)
        lit = thing.seed % 3
        for i, lamp in enumerate(((0.1, 0.9, 0.4), (0.9, 0.6, 0.1), (0.95, 0.1, 0.08))):
            colour = lamp if i == lit else (lamp[0] / 6, lamp[1] / 6, lamp[2] / 6)
            for y in (-0.14, 0.14):  # it faces both ways along the street
                shapes.ellipsoid((0, y, z - 0.28 + 0.28 * i), (0.09, 0.06, 0.09), Material.PLAIN, colour)
    elif thing.seed % 2:
        shapes.ellipsoid((0, -0.05, height - 0.3), (0.32, 0.02, 0.32), Material.PLAIN, paint)
        shapes.ellipsoid((0, -0.06, height - 0.3), (0.2, 0.025, 0.2), Material.PLAIN, (0.75, 0.75, 0.75))
    else:
        board = (-0.35, 0.35, -0.06, 0.0)
        shapes.block(board, height - 0.6, board, height, Material.PLAIN, paint)


def _car(shapes: _Shapes, thing: Thing) -> None:
    length, width, height = thing.size
    paint, second = thing.colours
    rear, front, half = -length / 2, length / 2, width / 2
    wheel = 0.34 if length < 6 else 0.45
    if thing.kind == "bus":
        base = (rear, front, -half, half)
        shapes.block(base, 0.35, base, 0.4 * height, Material.PAINT, paint)
        shapes.block(_inset(base, 0.03), 0.4 * height, _inset(base, 0.05), 0.78 * height, Material.CABIN, _GLASS, paint)
        shapes.block(base, 0.78 * height, _inset(base, 0.1), height, Material.PAINT, paint)
    elif thing.kind == "lorry":
        cab = 0.62 * front
        load = (rear, cab - 0.3, -half, half)
        shapes.block(load, 0.8, load, height, Material.PAINT, second)
        shapes.block((rear + 0.2, cab, -0.4, 0.4), 0.45, (rear + 0.2, cab, -0.4, 0.4), 0.85, Material.PLAIN, _DARK)
        lower = (cab - 0.1, front, -half + 0.08, half - 0.08)
        shapes.block(lower, 0.4, lower, 0.45 * height, Material.PAINT, paint)
        shapes.block(
            lower,
            0.45 * height,
            (cab - 0.1, front - 0.35, -half + 0.15, half - 0.15),
            0.8 * height,
            Material.CABIN,
            _GLASS,
            paint,
        )
    elif thing.kind == "van":
        back = (rear, 0.25 * front, -half, half)
        shapes.block(back, 0.28, _inset(back, 0.06), height, Material.PAINT, paint)
        nose = (0.24 * front, front, -half, half)
        shapes.block(
            nose, 0.28, (0.24 * front, front - 0.15, -half + 0.05, half - 0.05), 0.52 * height, Material.PAINT, paint
        )
        screen = (0.24 * front, 0.85 * front, -half + 0.06, half - 0.06)
        shapes.block(
            screen,
            0.52 * height,
            (0.24 * front, 0.45 * front, -half + 0.15, half - 0.15),
            0.97 * height,
            Material.CABIN,
            _GLASS,
            paint,
        )
    else:
        belt = 0.58 * height if thing.kind != "suv" else 0.6 * height
        base = (rear, front, -half, half)
        shapes.block(_inset(base, 0.03), 0.24, _inset(base, 0.08), belt, Material.PAINT, paint)
        start, stop = {"saloon": (0.66, 0.5), "hatchback": (0.93, 0.42), "suv": (0.95, 0.45)}[thing.kind]
        lower = (start * rear, stop * front, -half + 0.1, half - 0.1)
        slope = 0.55 if thing.kind == "saloon" else 0.25
        upper = (start * rear + slope, stop * front - 0.75, -half + 0.28, half - 0.28)
        shapes.block(lower, belt - 0.01, upper, height, Material.CABIN, _GLASS, paint)
    for x in (0.6 * rear, 0.62 * front):
        for y in (-half + 0.1, half - 0.1):
            shapes.ellipsoid((x, y, wheel), (wheel, 0.14, wheel), Material.SPOKES, (0.35, 0.35, 0.36))
    for y in (-half + 0.3, half - 0.3):
        shapes.ellipsoid(
            (front - 0.06, y, 0.42 * min(height, 1.7)), (0.08, 0.17, 0.09), Material.PLAIN, (0.8, 0.8, 0.75)
        )
        shapes.ellipsoid((rear + 0.06, y, 0.5 * min(height, 1.7)), (0.08, 0.15, 0.1), Material.PLAIN, (0.5, 0.03, 0.03))


def _person(shapes: _Shapes, thing: Thing) -> None:
    assert thing.pose is not None
    height = thing.pose.height
    top, legs, skin, hair, extra = thing.colours
    joint = joints(thing.pose)
    cloth = {"second": extra, "detail": (thing.seed % 3 / 2.5, 0.0, 0.0)}
    for side in ("left", "right"):
        hip, knee, ankle = (joint[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
        shoulder, elbow, wrist = (joint[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist"))
        shapes.capsule(hip, knee, 0.047 * height, Material.CLOTH, legs)
        shapes.capsule(knee, ankle, 0.034 * height, Material.CLOTH, legs if thing.seed % 4 else skin)
        toe = (ankle[0] + 0.085 * height, ankle[1], ankle[2] - 0.012 * height)
        shapes.capsule(ankle, toe, 0.026 * height, Material.PLAIN, _DARK if thing.seed % 5 else extra)
        shapes.capsule(shoulder, elbow, 0.03 * height, Material.CLOTH, top)
        shapes.capsule(elbow, wrist, 0.025 * height, Material.CLOTH, top if thing.seed % 7 > 2 else skin)
        shapes.ellipsoid(wrist, (0.03 * height,) * 3, Material.PLAIN, skin)
        # The trunk is two slanted capsules: broad at the shoulders, narrow at the waist.
        chest = (shoulder[0], shoulder[1] * 0.62, shoulder[2] - 0.04 * height)
        shapes.capsule((hip[0], hip[1] * 0.7, hip[2]), chest, 0.064 * height, Material.CLOTH, top, **cloth)
    x, _, z = joint["head"]
    neck = joint["left_shoulder"]
    shapes.capsule((neck[0], 0.0, neck[2]), (x, 0.0, z), 0.03 * height, Material.PLAIN, skin)
    shapes.ellipsoid((x, 0.0, z), (0.055 * height, 0.045 * height, 0.066 * height), Material.PLAIN, skin)
    crown = (0.06 * height, 0.052 * height, 0.056 * height)
    shapes.ellipsoid((x - 0.014 * height, 0.0, z + 0.016 * height), crown, Material.PLAIN, hair)
    if thing.kind == "hat":
        shapes.ellipsoid(
            (x, 0.0, z + 0.035 * height), (0.075 * height, 0.068 * height, 0.035 * height), Material.PLAIN, extra
        )
    elif thing.kind == "bag":
        shapes.ellipsoid(
            (-0.1 * height, 0.0, 0.72 * height), (0.07 * height, 0.09 * height, 0.13 * height), Material.CLOTH, extra
        )
    elif thing.kind == "coat":
        hem, waist = 0.12 * height, 0.085 * height
        low = thing.pose.hip_height - 0.2 * height
        shapes.block(
            (-0.1 * height, 0.1 * height, -hem, hem),
            low,
            (-0.06 * height, 0.06 * height, -waist, waist),
            low + 0.3 * height,
            Material.CLOTH,
            top,
            **cloth,
        )


def _cyclist(shapes: _Shapes, thing: Thing) -> None:
    frame = thing.colours[4]
    for x in (-0.32, 0.7):
        shapes.ellipsoid((x, 0.0, 0.35), (0.35, 0.035, 0.35), Material.SPOKES, (0.3, 0.3, 0.3))
    crank, seat, head = (0.2, 0.0, 0.38), (-0.02, 0.0, SADDLE_HEIGHT - 0.1), (0.56, 0.0, 0.85)
    rear, front, bar = (-0.32, 0.0, 0.35), (0.7, 0.0, 0.35), (0.6, 0.0, 1.02)
    for a, b in ((rear, crank), (crank, seat), (crank, head), (seat, head), (head, front), (rear, seat), (head, bar)):
        shapes.capsule(a, b, 0.028, Material.PLAIN, frame)
    shapes.capsule((0.6, -0.24, 1.02), (0.6, 0.24, 1.02), 0.022, Material.PLAIN, _DARK)
    shapes.ellipsoid((-0.06, 0.0, SADDLE_HEIGHT - 0.06), (0.14, 0.08, 0.05), Material.PLAIN, _DARK)
    _person(shapes, thing)


_MAKERS: Final[dict[str, Callable[[_Shapes, Thing], None]]] = {
    "building": _building,
    "tree": _tree,
    "pole": _pole,
    "car": _car,
    "person": _person,
    "cyclist": _cyclist,
}
