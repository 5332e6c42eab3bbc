"""Random frames for KITTI's metric, made so that every one of its rules decides something now and then.

Boxes in the image follow those in space only roughly: what is found by one measure is often missed by another.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from hrnas.structures import BoxClass, KittiObjects

CLASSES = (
    BoxClass(name="Car", size=(3.9, 1.6, 1.56), z=-0.95, overlap=0.7, neighbours=("Van",)),
    BoxClass(name="Pedestrian", size=(0.8, 0.6, 1.73), z=-0.865, overlap=0.5, neighbours=("Person_sitting",)),
    BoxClass(name="Cyclist", size=(1.76, 0.6, 1.73), z=-0.865, overlap=0.5),
)
SIZES = {
    "Car": (1.56, 1.6, 3.9),
    "Van": (2.2, 1.9, 5.0),
    "Truck": (3.2, 2.6, 10.0),
    "Pedestrian": (1.73, 0.6, 0.8),
    "Person_sitting": (1.3, 0.6, 0.8),
    "Cyclist": (1.73, 0.6, 1.76),
}
"""Height, width and length in metres of a usual one of each type."""
SHARES = {"Car": 0.4, "Van": 0.1, "Truck": 0.05, "Pedestrian": 0.22, "Person_sitting": 0.08, "Cyclist": 0.15}

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object of a frame, in KITTI's fields."""

    type: str
    truncated: float = 0.0
    occluded: int = 0
    alpha: float
    box_2d: Box
    size: tuple[float, float, float]
    location: tuple[float, float, float]
    rotation: float
    score: float = 1.0

    @property
    def overlap(self) -> float:
        """The overlap from which on it counts as found."""
        return 0.7 if self.type in ("Car", "Van") else 0.5


@dataclass(frozen=True, kw_only=True)
class Habits:
    """What the frames of one set have in common.

    shares: how often a truth is of each type. hard: the share of truths with truncation and occlusion about the limits.
    spread: how far off detections are; 1: about half of them are too far off.
    """

    shares: dict[str, float]
    hard: float
    spread: float

    def type(self, rng: Random) -> str:
        return rng.choices(list(self.shares), list(self.shares.values()))[0]


def scenes(rng: Random, frames: int) -> tuple[list[KittiObjects], list[KittiObjects]]:
    """Return the truths and the detections of a set of frames.

    Of some sets the scores are logits, some lack a class, and in some a detection does not say its alpha.
    """
    shares = dict(SHARES)
    if rng.random() < 0.15:
        shares[rng.choice(("Car", "Pedestrian", "Cyclist"))] = 0
    habits = Habits(shares=shares, hard=rng.choice((0.1, 0.3, 0.7)), spread=rng.choice((0.4, 0.7, 1.0)))
    logits, silent = rng.random() < 0.3, rng.random() < 0.08
    truths, found = [], []
    for _ in range(frames):
        labelled, detected = scene(rng, habits)
        if logits:
            detected = [replace(thing, score=math.log(thing.score / (1 - thing.score))) for thing in detected]
        if silent and detected:
            detected[0] = replace(detected[0], alpha=-10.0)
            silent = False
        truths.append(objects_of(labelled))
        found.append(objects_of(detected))
    return truths, found


def objects_of(things: Iterable[Thing]) -> KittiObjects:
    """Return the things as KITTI's files have them, in their order."""
    listed = list(things)
    count = len(listed)
    return KittiObjects(
        types=tuple(thing.type for thing in listed),
        truncated=np.array([thing.truncated for thing in listed], np.float64),
        occluded=np.array([thing.occluded for thing in listed], np.int64),
        alphas=np.array([thing.alpha for thing in listed], np.float64),
        boxes_2d=np.array([thing.box_2d for thing in listed], np.float64).reshape(count, 4),
        sizes=np.array([thing.size for thing in listed], np.float64).reshape(count, 3),
        locations=np.array([thing.location for thing in listed], np.float64).reshape(count, 3),
        rotations=np.array([thing.rotation for thing in listed], np.float64),
        scores=np.array([thing.score for thing in listed], np.float64),
    )


def scene(rng: Random, habits: Habits) -> tuple[list[Thing], list[Thing]]:
    """Return the truths and the detections of one frame, both in random order."""
    labelled: list[Thing] = []
    count = rng.choices((0, rng.randint(1, 6), rng.randint(10, 18)), (0.08, 0.84, 0.08))[0]
    for _ in range(count):
        beside = rng.choice(labelled) if labelled and rng.random() < 0.35 else None
        labelled.append(truth(rng, habits, beside))
    detected = [again for thing in labelled for again in detections_of(rng, habits, thing)]
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        detected.append(replace(truth(rng, habits, None), score=rng.uniform(0.02, 0.7)))
    for _ in range(rng.choices((0, 1, 2), (0.6, 0.3, 0.1))[0]):
        region = dont_care(rng, labelled)
        labelled.append(region)
        if rng.random() < 0.2:
            labelled.append(replace(region, box_2d=shifted(region.box_2d, rng.uniform(-0.2, 0.2), 0)))
        detected += [inside(rng, habits, region) for _ in range(rng.randint(0, 3))]
    if rng.random() < 0.05:
        detected = []
    if rng.random() < 0.1:
        detected = [replace(thing, score=max(0.1, min(0.9, round(thing.score, 1)))) for thing in detected]
    rng.shuffle(labelled)
    rng.shuffle(detected)
    return labelled, detected


def truth(rng: Random, habits: Habits, beside: Thing | None) -> Thing:
    """Return an object somewhere, or so near another that one detection may be either's."""
    name = habits.type(rng)
    height, width, length = (extent * rng.gauss(1, 0.06) for extent in SIZES[name])
    rotation = rng.uniform(-math.pi, math.pi)
    if beside is None:
        location = (rng.uniform(-15, 15), rng.gauss(1.65, 0.1), rng.uniform(5, 60))
        tall = around_a_limit(rng) if rng.random() < 0.3 else rng.uniform(15, 160)
        wide = tall * (length if rng.random() < 0.5 else width) / height
        left, top = float(rng.randint(0, 1100)), float(rng.randint(100, 200))
        # Every other width is a whole number of tens, of which a detection can cover exactly a share.
        box = (left, top, left + (wide if rng.random() < 0.5 else 10 * math.ceil(wide / 10)), top + tall)
    else:
        rotation = beside.rotation
        location = moved(beside, rng.gauss(0, 0.15), rng.gauss(0, 0.15))
        if rng.random() < 0.7:
            height, width, length = beside.size
        box = shifted(beside.box_2d, rng.gauss(0, 0.15), rng.gauss(0, 0.1))
    hard = rng.random() < habits.hard
    return Thing(
        type=name,
        truncated=rng.choice((0.15, 0.16, 0.3, 0.31, 0.5, 0.51, rng.random(), -1.0)) if hard else 0.0,
        occluded=rng.choice((-1, 0, 1, 1, 2, 2, 3)) if hard else 0,
        alpha=wrapped(rotation - math.atan2(location[0], location[2])),
        box_2d=box,
        size=(height, width, length),
        location=location,
        rotation=rotation,
    )


def around_a_limit(rng: Random) -> float:
    """Return a height in pixels around a difficulty's limit, often the limit itself."""
    return rng.choice((25, 40)) + rng.choice((0, 0, -1, 1, rng.gauss(0, 1)))


def detections_of(rng: Random, habits: Habits, thing: Thing) -> list[Thing]:
    """Return the detections of a truth: none, one, or some that all want it."""
    found = []
    for _ in range(rng.choices((0, 1, 2, 3), (0.1, 0.67, 0.18, 0.05))[0]):
        again = replace(thing, truncated=-1.0, occluded=-1, score=rng.uniform(0.1, 0.98))
        if rng.random() < 0.85:
            again = shaken(rng, habits, again)
        if rng.random() < 0.15:
            again = resized(rng, again)
        if rng.random() < (0.08 if again.box_2d[3] - again.box_2d[1] >= 40 else 0.2):
            again = replace(again, type=rng.choice(list(SIZES)))
        if again.type in ("Van", "Person_sitting") and rng.random() < 0.6:
            again = replace(again, type={"Van": "Car", "Person_sitting": "Pedestrian"}[again.type])
        found.append(again)
    if len(found) > 1 and rng.random() < 0.3:
        # The same boxes twice: the overlaps are equal, and which comes first in the file decides.
        found[1] = replace(found[0], score=found[1].score, alpha=found[1].alpha)
    if len(found) > 1 and rng.random() < 0.2:
        found[1] = replace(found[1], score=found[0].score)
    return found


def shaken(rng: Random, habits: Habits, thing: Thing) -> Thing:
    """Return the thing a little off, or about as far as the overlap allows; in the image and in space apart."""
    # Shifted by the share s of its length, a box overlaps itself by (1 - s) / (1 + s).
    edge = habits.spread * (1 - thing.overlap) / (1 + thing.overlap)
    image, space = (edge * rng.choice((0.3, 0.8, 1, 1, 1.4)) * rng.gauss(1, 0.15) for _ in range(2))
    image *= rng.choice((-1, 1))
    axis = rng.randrange(4)
    along, across, up = (rng.choice((-1, 1)) * space * {place: 1, 3: 0.4}.get(axis, 0) for place in range(3))
    x, y, z = moved(thing, along, across)
    height, width, length = (extent * rng.gauss(1, 0.02) for extent in thing.size)
    box = shifted(thing.box_2d, image, 0) if rng.random() < 0.5 else shifted(thing.box_2d, 0, image)
    if rng.random() < 0.06:
        # A part of it, which overlaps it by exactly the limit if the numbers are whole.
        left, top, right, bottom = thing.box_2d
        box = (left, top, left + round(thing.overlap * (right - left)), bottom)
    turned = rng.gauss(0, 0.04) + (math.pi if rng.random() < 0.1 else 0)
    return replace(
        thing,
        alpha=wrapped(thing.alpha + turned + rng.gauss(0, 0.3)),
        box_2d=box,
        size=(height, width, length),
        location=(x, y + up * height, z),
        rotation=wrapped(thing.rotation + turned),
    )


def resized(rng: Random, thing: Thing) -> Thing:
    """Return the thing with another height in the image, about a limit if one is near."""
    left, top, right, bottom = thing.box_2d
    height = bottom - top
    near = min((25, 40), key=lambda limit: abs(limit - height))
    height = near + rng.choice((-1, -0.4, 0, 0.4)) if abs(height - near) < 10 else height * rng.uniform(0.75, 1.3)
    return replace(thing, box_2d=(left, top, right, top + height))


def dont_care(rng: Random, labelled: list[Thing]) -> Thing:
    """Return a region in which nothing is labelled, sometimes over a truth."""
    left, top = float(rng.randint(0, 1000)), float(rng.randint(100, 200))
    box = (left, top, left + rng.randint(30, 200), top + rng.randint(30, 100))
    if labelled and rng.random() < 0.25:
        box = shifted(rng.choice(labelled).box_2d, rng.gauss(0, 0.3), 0)
    return Thing(
        type="DontCare",
        truncated=-1.0,
        occluded=-1,
        alpha=-10.0,
        box_2d=box,
        size=(-1.0, -1.0, -1.0),
        location=(-1000.0, -1000.0, -1000.0),
        rotation=-10.0,
    )


def inside(rng: Random, habits: Habits, region: Thing) -> Thing:
    """Return a detection of which the region covers all, little, or about as much as the rule asks for."""
    thing = truth(rng, habits, None)
    left, top, right, bottom = region.box_2d
    height = min(bottom - top, rng.choice((bottom - top, rng.uniform(20, 45))))
    width = 10 * math.ceil(rng.uniform(0.05, 0.09) * (right - left))
    covered = width * rng.choice((1, 0.3, thing.overlap, thing.overlap + rng.gauss(0, 0.03)))
    start = right - (round(covered) if rng.random() < 0.5 else covered)
    box = (start, bottom - height, start + width, bottom)
    return replace(thing, box_2d=box, score=rng.uniform(0.05, 0.95))


def moved(thing: Thing, along: float, across: float) -> tuple[float, float, float]:
    """Return the thing's location, moved by shares of its length and of its width."""
    x, y, z = thing.location
    _, width, length = thing.size
    cos, sin = math.cos(thing.rotation), math.sin(thing.rotation)
    return (x + along * length * cos + across * width * sin, y, z - along * length * sin + across * width * cos)


def shifted(box: Box, right: float, down: float) -> Box:
    """Return the box moved by shares of its width and of its height; down by whole pixels, so that its height stays."""
    left, top, end, bottom = box
    columns, rows = right * (end - left), round(down * (bottom - top))
    return (left + columns, top + rows, end + columns, bottom + rows)


def wrapped(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi
