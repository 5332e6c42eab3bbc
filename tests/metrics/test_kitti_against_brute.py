"""hrnas.metrics.kitti against the brute force of brute_kitti, on random frames and on perfect detections."""

import math
from random import Random

import pytest
from hrnas.metrics.kitti import kitti_ap

from hrnas.structures import KittiObjects
from metrics.brute_kitti import DIFFICULTIES, MEASURES, Key, brute_ap
from metrics.kitti_scenes import CLASSES, scenes

KEYS: list[Key] = [
    (measure, kind.name, difficulty, points)
    for measure in MEASURES
    for kind in CLASSES
    for difficulty in DIFFICULTIES
    for points in (11, 40)
]
SIZES = (1, 4, 15, 30, 50)
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
    for size in SIZES:
        truths, found = scenes(rng, size)
        lines = differences(ours(truths, found), brute_ap(truths, found, CLASSES))
        assert not lines, f"set of {size} frames, seed {seed}:\n" + "\n".join(lines)
