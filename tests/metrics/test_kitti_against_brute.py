"""hrnas.metrics.kitti against brute_kitti, written apart from it: random frames, perfect detections."""

import math
from dataclasses import replace
from random import Random

import pytest

from hrnas.metrics.kitti import kitti_ap
from hrnas.structures import KittiObjects
from metrics.brute_kitti import DIFFICULTIES, MEASURES, Key, brute_ap
from metrics.kitti_scenes import CLASSES, SIZES, Habits, Thing, dont_care, objects_of, scenes, truth

KEYS: list[Key] = [
    (measure, kind.name, difficulty, points)
    for measure in MEASURES
    for kind in CLASSES
    for difficulty in DIFFICULTIES
    for points in (11, 40)
]
LENGTHS = (1, 4, 15, 30, 50)
"""Frames of the sets; the small ones have fewer truths than the curve has positions, the large ones more."""


def ours(truths: list[KittiObjects], found: list[KittiObjects]) -> dict[Key, float]:
    result = kitti_ap(truths, found, CLASSES)
    return {key: result.value(*key) for key in KEYS}


def differences(one: dict[Key, float], other: dict[Key, float]) -> list[str]:
    """Return a line for each figure that differs by more than 1e-6, or is nan in one of the two."""
    assert set(one) == set(other) == set(KEYS)
    return [
        f"{key}: {one[key]} against {other[key]}"
        for key in KEYS
        if math.isnan(one[key]) != math.isnan(other[key]) or abs(one[key] - other[key]) > 1e-6
    ]


@pytest.mark.parametrize("seed", range(20))
def test_2000_random_frames(seed: int) -> None:
    rng = Random(seed)
    for length in LENGTHS:
        truths, found = scenes(rng, length)
        lines = differences(ours(truths, found), brute_ap(truths, found, CLASSES))
        assert not lines, f"set of {length} frames, seed {seed}:\n" + "\n".join(lines)


def perfect(frames: int) -> tuple[list[KittiObjects], list[KittiObjects]]:
    """Return frames with an object of each type, far from each other, and some DontCare; and the same as detections."""
    rng = Random(frames)
    truths, found = [], []
    for _ in range(frames):
        things: list[Thing] = []
        for place, name in enumerate(SIZES):
            thing = truth(rng, Habits(shares={name: 1}, hard=0.4, spread=0), None)
            _, top, _, bottom = thing.box_2d
            things.append(
                replace(
                    thing,
                    box_2d=(300.0 * place, top, 300.0 * place + 2 * (bottom - top), bottom),
                    location=(20.0 * place, *thing.location[1:]),
                    score=rng.random(),
                )
            )
        truths.append(objects_of([*things, dont_care(rng, things)]))
        rng.shuffle(things)
        found.append(objects_of(things))
    return truths, found


@pytest.mark.parametrize("frames", [1, 9, 40, 120])
def test_perfect_detections(frames: int) -> None:
    truths, found = perfect(frames)
    for figures in (ours(truths, found), brute_ap(truths, found, CLASSES)):
        values = [value for value in figures.values() if not math.isnan(value)]
        assert values
        assert set(values) == {1.0}
        assert len(values) == len(KEYS) or frames < 40


def test_a_score_from_which_on_nothing_counts() -> None:
    """The hidden car first takes the small detection, for its score, then the other, for its overlap; none is left."""
    usual = Thing(
        type="Car",
        alpha=0.0,
        box_2d=(0.0, 100.0, 100.0, 145.0),
        size=(1.5, 1.6, 4.0),
        location=(0.0, 1.6, 20.0),
        rotation=0.0,
    )
    hidden = replace(usual, occluded=3)
    seen = replace(usual, box_2d=(12.0, 100.0, 112.0, 145.0), location=(0.48, 1.6, 20.0))
    small = replace(usual, box_2d=(0.0, 106.0, 100.0, 145.0), location=(-0.3, 1.6, 20.0), score=0.95)
    between = replace(usual, box_2d=(2.0, 100.0, 102.0, 145.0), location=(0.08, 1.6, 20.0), score=0.9)
    truths, found = [objects_of([hidden, seen])], [objects_of([small, between])]
    alone = [objects_of([seen])]
    for figures in (ours, lambda *frames: brute_ap(*frames, CLASSES)):
        for measure in MEASURES:
            assert figures(truths, found)[measure, "Car", "easy", 40] == 0.0
            assert figures(alone, found)[measure, "Car", "easy", 40] == 1.0
