"""The lidar: a ray for every beam and azimuth, ranges and noise as they should be, nothing through a wall."""

import math
from dataclasses import replace
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from hrnas.data.toycity.bodies import make_bodies
from hrnas.data.toycity.lidar import ELEVATIONS, HEIGHT, RANGE, STEP, Sweep, sweep
from hrnas.data.toycity.placing import make_world
from hrnas.data.toycity.street import Street
from hrnas.data.toycity.world import Thing, World

STREET = Street(
    radius=1e5, half_width=5.0, pavement_width=2.0, crossing=500.0, crossing_half_width=0.0, centre_line="solid",
    edge_lines=False, zebra=False,
)  # fmt: skip
BASE = replace(make_world(Random(0)), street=STREET, things=(), asphalt=(0.2, 0.2, 0.2))


def look(*things: Thing, seed: int = 0, heading: float = 0.0, half_width: float = 0.3) -> Sweep:
    """Sweep a world of these things from its origin."""
    world: World = replace(BASE, things=things)
    return sweep(world, make_bodies(world), (0.0, 0.0), heading, half_width, np.random.default_rng(seed))


def wall(ahead: float, *, left: float = 0.0, length: float = 200.0, turn: float = math.pi / 2, bright: float = 0.5):
    """A wall of 30 m height, across the view unless turned."""
    return Thing(
        category="building", kind="wall", position=(ahead, left), heading=turn, size=(length, 0.2, 30.0),
        colours=((bright, bright, bright),), seed=1,
    )  # fmt: skip


def car(ahead: float, left: float = 0.0, colour: float = 0.4) -> Thing:
    return Thing(
        category="car", kind="saloon", position=(ahead, left), heading=0.0, size=(4.6, 1.8, 1.45),
        colours=((colour, colour, colour),) * 2, seed=1,
    )  # fmt: skip


def grid(found: Sweep) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return elevation, azimuth and range of each point."""
    x, y, z, _ = found.points.T.astype(np.float64)
    return np.arctan2(z, np.hypot(x, y)), np.arctan2(y, x), np.sqrt(x * x + y * y + z * z)


def test_a_near_wall_returns_every_beam_at_every_azimuth():
    found = look(wall(4.0))
    elevation, azimuth, _ = grid(found)
    count = math.ceil(2 * 0.3 / STEP)
    assert 0.97 < len(found.points) / (64 * count) <= 0.995  # all but the share that is always lost
    beam = np.abs(elevation[:, None] - ELEVATIONS).argmin(axis=1)
    column = np.rint((0.3 - azimuth) / STEP).astype(int)
    assert np.abs(elevation - ELEVATIONS[beam]).max() < 1e-5
    assert np.abs(0.3 - azimuth - column * STEP).max() < 1e-5
    assert (np.unique(beam), np.unique(column)) == (pytest.approx(np.arange(64)), pytest.approx(np.arange(count)))
    assert np.degrees(ELEVATIONS[[0, -1]]) == pytest.approx((2.0, -24.8))
    # KITTI's order: the highest beam first, each from left to right; and no ray twice.
    assert (np.diff(beam * count + column) > 0).all()


def test_ranges_are_those_of_plane_ground_and_wall_with_a_noise_of_2_cm():
    found = look(wall(20.0))
    elevation, azimuth, distance = grid(found)
    to_wall = 19.9 / (np.cos(elevation) * np.cos(azimuth))
    with np.errstate(divide="ignore"):
        to_ground = np.where(elevation < 0, HEIGHT / -np.sin(elevation), np.inf)
    error = distance - np.minimum(to_wall, to_ground)
    assert np.abs(error).max() < 0.1
    assert (error.mean(), error.std()) == (pytest.approx(0, abs=1e-3), pytest.approx(0.02, rel=0.05))
    assert ((found.thing == 0) == (to_wall < to_ground)).mean() > 0.999
    assert set(np.unique(found.thing)) == {-1, 0}


def test_nothing_comes_from_beyond_the_range():
    near, far = look(wall(RANGE - 5, bright=0.9)), look(wall(RANGE + 5, bright=0.9))
    assert (near.thing == 0).sum() > 1000
    assert (far.thing == 0).sum() == 0
    assert grid(far)[2].max() < RANGE + 0.1


def test_what_is_behind_a_wall_is_not_met():
    behind = car(20.0)
    assert (look(behind).thing == 0).sum() > 200
    assert (look(behind, wall(10.0)).thing == 0).sum() == 0
    half = look(behind, wall(10.0, left=-100.0))  # its left end is right ahead
    assert (half.thing == 0).any()
    assert half.points[half.thing == 0, 1].min() > -0.1


def test_more_is_lost_far_off_on_grazed_and_on_dark_surfaces():
    def share(*things: Thing, half_width: float = 0.02) -> float:
        """Return which share of the upper 8 beams, which meet no ground before 80 m, comes back."""
        elevation, _, _ = grid(look(*things, half_width=half_width))
        return (elevation > np.radians(-0.5)).mean() * len(elevation) / (8 * math.ceil(2 * half_width / STEP))

    shares = [share(wall(ahead, bright=0.3)) for ahead in (10, 40, 60, 75)]
    assert shares[0] > 0.95
    assert all(a > b + 0.02 for a, b in pairwise(shares[1:]))
    assert share(wall(75, bright=0.9)) > share(wall(75, bright=0.3)) + 0.1
    # Half a metre aside and parallel to the view, it is met at 1 to 3 degrees, from 10 to 30 m on.
    grazed = look(wall(100, left=0.6, turn=0.0), half_width=0.055)
    facing = look(wall(20), half_width=0.055)
    counts = [((sent.thing == 0) & (grid(sent)[0] > np.radians(-0.5))).sum() for sent in (grazed, facing)]
    assert counts[0] < 0.45 * counts[1]  # half of its rays pass on the other side


def test_the_ground_fades_with_the_distance():
    elevation, _, _ = grid(look())
    shares = [(np.abs(elevation - beam) < 1e-5).sum() / math.ceil(2 * 0.3 / STEP) for beam in ELEVATIONS]
    assert min(shares[30:]) > 0.92  # up to 12 m
    assert 0.1 < shares[11] < 0.7  # 60 m
    assert sum(shares[:6]) == 0  # above the horizon


def test_reflectance_tells_surfaces_apart():
    def mean(found: Sweep, thing: int) -> float:
        return float(found.points[found.thing == thing, 3].mean())

    every = look(car(12.0, colour=0.04), car(12.0, 3.0, colour=0.75))
    values = every.points[:, 3]
    assert (values.min(), values.max() < 1) == (pytest.approx(0, abs=0.2), True)
    assert np.abs(values * 100 - np.rint(values * 100)).max() < 1e-4
    assert mean(every, 0) < 0.6 * mean(every, 1)
    # The solid line in the middle of the road, 18 cm wide, against the asphalt beside it.
    ground = look().points
    ground = ground[ground[:, 0] < 12]
    line, asphalt = np.abs(ground[:, 1]) < 0.07, np.abs(np.abs(ground[:, 1]) - 0.4) < 0.2
    assert ground[line, 3].mean() == pytest.approx(0.37, abs=0.05)
    assert ground[asphalt, 3].mean() == pytest.approx(0.12, abs=0.03)
    hedge = Thing(
        category="tree", kind="hedge", position=(8.0, 0.0), heading=math.pi / 2, size=(6.0, 1.0, 1.5),
        colours=((0.1, 0.2, 0.05),) * 2, seed=1,
    )  # fmt: skip
    leaves = look(hedge)
    assert mean(leaves, 0) > 2 * mean(leaves, -1)  # grown green is bright in the infrared
    # Rays go into the leaves, a little.
    face = leaves.points[(leaves.thing == 0) & (leaves.points[:, 2] < -0.8)]
    assert 0.05 < face[:, 0].mean() - 7.55 < 0.15


def test_the_frame_is_the_lidars_own():
    left = look(car(0.0, 12.0), heading=math.pi / 2)  # it stands ahead of a lidar that looks to the left
    own = left.points[left.thing == 0]
    assert (own[:, 0].min(), own[:, 1].mean()) == (pytest.approx(11.1, abs=0.1), pytest.approx(0, abs=0.2))
    aside = look(car(12.0, 3.0)).points
    high = aside[aside[:, 2] > 0.3 - HEIGHT]
    assert high[:, 1].min() > 1.9
    ground = look().points
    assert ground[:, 2] == pytest.approx(-HEIGHT, abs=0.05)


def test_the_generator_alone_decides_the_noise():
    a, b, c = look(car(9.0)), look(car(9.0)), look(car(9.0), seed=1)
    assert np.array_equal(a.points, b.points)
    assert np.array_equal(a.thing, b.thing)
    assert not np.array_equal(a.points[:100], c.points[:100])
    assert (a.points.dtype, a.points.shape[1], len(a.thing)) == (np.float32, 4, len(a.points))
