"""From things to solids: the shapes each kind of thing is made of, and how each is painted."""

import math
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hrnas.data.toycity.figure import SADDLE_HEIGHT, joints
from hrnas.data.toycity.shapes import DARK, Bodies, Material, Rect, Shapes
from hrnas.data.toycity.world import Thing, World

_GLASS: Final = (0.07, 0.09, 0.1)
_CROWNS: Final = 24


def make_bodies(world: World) -> Bodies:
    """Give every thing of the world its shape, and the ground below them all."""
    shapes = Shapes()
    shapes.ground()
    for row, thing in enumerate(world.things):
        shapes.start(row, thing)
        _MAKERS[thing.category](shapes, thing)
    return shapes.finish()


def extent(thing: Thing) -> NDArray[np.float64]:
    """Return the low and the high corner of the box about a thing, in its own frame, in metres: (2, 3)."""
    shapes = Shapes()
    shapes.start(0, thing)
    _MAKERS[thing.category](shapes, thing)
    return shapes.extent()


def _inset(rect: Rect, by: float) -> Rect:
    return rect[0] + by, rect[1] - by, rect[2] + by, rect[3] - by


def _building(shapes: Shapes, thing: Thing) -> None:
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
        along, across = (eaves[0], eaves[1], -0.05, 0.05), (-0.05, 0.05, eaves[2], eaves[3])
        ridge = along if random.random() < 0.6 else across
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
        awning = (x, x + random.uniform(0.3, 0.5) * length, width / 2, width / 2 + 0.9)
        cloth = (random.random() * 0.7, random.random() * 0.5, random.random() * 0.5)
        under = (awning[0], awning[1], width / 2 - 0.1, width / 2 + 0.05)
        shapes.block(awning, 2.5, under, 3.1, Material.CLOTH, cloth, (0.7, 0.7, 0.65), (1.0, 0.0, 0.0))


def _tree(shapes: Shapes, thing: Thing) -> None:
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
        low = height * random.uniform(0.28, 0.42)
        lean = (random.gauss(0, 0.15), random.gauss(0, 0.15))
        thick = 0.05 + 0.018 * height
        bark = thing.colours[1]
        shapes.capsule((0, 0, 0), (*lean, low + 0.15 * height), thick, Material.PLAIN, bark, detail=(0.5, 0, 0))
        for _ in range(2):
            tip = (random.uniform(-0.25, 0.25) * width, random.uniform(-0.25, 0.25) * width, low + 0.3 * height)
            shapes.capsule((*lean, low), tip, thick * 0.5, Material.PLAIN, bark)
    tall = height - low
    crown = _crown(thing.seed % _CROWNS)
    for x, y, z, radius, flat, turn, roll in crown if thing.kind == "round" else crown[::2]:
        radii = (width * radius, width * radius * 0.85, min(width * radius, 0.3 * tall) * flat)
        shapes.ellipsoid((width * x, width * y, low + tall * z), radii, Material.FOLIAGE, leaves, turn=turn, roll=roll)


@cache
def _crown(number: int) -> tuple[tuple[float, ...], ...]:
    """Lay out the lumps of one of the crowns that all trees share.

    Each lump is its x, y, z and radius in shares of the crown's size, its flatness, turn and roll.
    """
    random = Random(number)
    lumps = []
    for _ in range(18):
        angle, level = random.uniform(0, 2 * math.pi), random.uniform(0.1, 0.92)
        # Most lumps sit near the outside, and the crown is widest at its middle.
        reach = 0.36 * math.sqrt(random.random()) * math.sqrt(max(0.06, 1 - (2 * level - 1) ** 2))
        flat, turn, roll = random.uniform(0.7, 1.0), random.uniform(0, math.pi), random.gauss(0, 0.3)
        lumps.append(
            (reach * math.cos(angle), reach * math.sin(angle), level, random.uniform(0.1, 0.22), flat, turn, roll)
        )
    return tuple(lumps)


def _pole(shapes: Shapes, thing: Thing) -> None:
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
        shapes.block((-0.15, 0.15, -0.16, 0.16), z - 0.45, (-0.15, 0.15, -0.16, 0.16), z + 0.45, Material.PLAIN, DARK)
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


def _car(shapes: Shapes, thing: Thing) -> None:
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
        shapes.block((rear + 0.2, cab, -0.4, 0.4), 0.45, (rear + 0.2, cab, -0.4, 0.4), 0.85, Material.PLAIN, DARK)
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


def _person(shapes: Shapes, thing: Thing) -> None:
    assert thing.pose is not None
    height = thing.pose.height
    top, legs, skin, hair, extra = thing.colours
    joint = joints(thing.pose)
    shapes.start_figure()
    cloth = {"second": extra, "detail": (thing.seed % 3 / 2.5, 0.0, 0.0)}
    for side in ("left", "right"):
        hip, knee, ankle = (joint[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
        shoulder, elbow, wrist = (joint[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist"))
        shapes.capsule(hip, knee, 0.047 * height, Material.CLOTH, legs)
        shapes.capsule(knee, ankle, 0.034 * height, Material.CLOTH, legs if thing.seed % 4 else skin)
        toe = (ankle[0] + 0.085 * height, ankle[1], ankle[2] - 0.012 * height)
        shapes.capsule(ankle, toe, 0.026 * height, Material.PLAIN, DARK if thing.seed % 5 else extra)
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


def _cyclist(shapes: Shapes, thing: Thing) -> None:
    frame = thing.colours[4]
    for x in (-0.32, 0.7):
        shapes.ellipsoid((x, 0.0, 0.35), (0.35, 0.035, 0.35), Material.SPOKES, (0.3, 0.3, 0.3))
    crank, seat, head = (0.2, 0.0, 0.38), (-0.02, 0.0, SADDLE_HEIGHT - 0.1), (0.56, 0.0, 0.85)
    rear, front, bar = (-0.32, 0.0, 0.35), (0.7, 0.0, 0.35), (0.6, 0.0, 1.02)
    for a, b in ((rear, crank), (crank, seat), (crank, head), (seat, head), (head, front), (rear, seat), (head, bar)):
        shapes.capsule(a, b, 0.028, Material.PLAIN, frame)
    shapes.capsule((0.6, -0.24, 1.02), (0.6, 0.24, 1.02), 0.022, Material.PLAIN, DARK)
    shapes.ellipsoid((-0.06, 0.0, SADDLE_HEIGHT - 0.06), (0.14, 0.08, 0.05), Material.PLAIN, DARK)
    _person(shapes, thing)


_MAKERS: Final[dict[str, Callable[[Shapes, Thing], None]]] = {
    "building": _building,
    "tree": _tree,
    "pole": _pole,
    "car": _car,
    "person": _person,
    "cyclist": _cyclist,
}
