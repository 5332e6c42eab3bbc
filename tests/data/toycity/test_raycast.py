"""The ray caster against cases worked by hand, and against shapes written a second time as inside-or-outside tests."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from hrnas.data.toycity.raycast import PACKET, Solids, cast, make_solids, normals

NONE = np.empty(0)
F64 = NDArray[np.float64]


def block(x0: float, x1: float, y0: float, y1: float, z0: float, z1: float, taper: float = 0.0) -> F64:
    """Corners (8, 3) of a block whose top is smaller by `taper` on each side."""
    low = [(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)]
    x0, x1, y0, y1 = x0 + taper, x1 - taper, y0 + taper, y1 - taper
    return np.array([*low, (x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)], float)


def one(solids: Solids, origin: tuple[float, ...], direction: tuple[float, ...]) -> tuple[float, int, list[float]]:
    """Cast one ray; the distance, the solid, and the normal rounded."""
    o, d = np.array(origin, float), np.array(direction, float)
    d /= np.linalg.norm(d)
    hits = cast(solids, o, d[None])
    if hits.solid[0] < 0:
        assert hits.distance[0] == np.inf
        return math.inf, -1, []
    normal = normals(solids, hits.solid, (o + hits.distance * d)[None].astype(np.float32))[0]
    return float(hits.distance[0]), int(hits.solid[0]), np.round(normal, 4).tolist()


BOX = make_solids(block(1, 2, -1, 1, 0, 3), NONE, NONE)
PYRAMID = make_solids(block(1, 5, -2, 2, 0, 2, taper=1), NONE, NONE)
SPHERE = make_solids(NONE, np.array([5.0, 0, 0, 5, 0, 0, 1]), NONE)
CAPSULE = make_solids(NONE, np.array([3.0, 0, 0, 3, 0, 2, 0.5]), NONE)
EGG = make_solids(NONE, NONE, np.array([4.0, 0, 0, 2, 1, 0.5, math.pi / 2, 0]))
ROLLED = make_solids(NONE, NONE, np.array([4.0, 0, 0, 2, 1, 0.5, 0, math.pi / 2]))
GROUND = make_solids(block(-500, 500, -500, 500, -1, 0), NONE, NONE)


@pytest.mark.parametrize(
    ("solids", "origin", "direction", "distance", "normal"),
    [
        (BOX, (0, 0, 1), (1, 0, 0), 1.0, [-1, 0, 0]),
        (BOX, (0, -1.5, 1), (1, 1, 0), math.sqrt(2), [-1, 0, 0]),  # meets x = 1 at y = -0.5
        (BOX, (1.5, 4, 1), (0, -1, 0), 3.0, [0, 1, 0]),
        (BOX, (1.5, 0, 5), (0, 0, -1), 2.0, [0, 0, 1]),
        (BOX, (0, 0, 3.5), (1, 0, 0), math.inf, []),  # above it
        (BOX, (3, 0, 1), (1, 0, 0), math.inf, []),  # behind the ray
        (BOX, (1.5, 0, 1), (1, 0, 0), math.inf, []),  # from its inside
        (PYRAMID, (0, 0, 1), (1, 0, 0), 1.5, np.round([-2 / 5**0.5, 0, 1 / 5**0.5], 4).tolist()),
        (PYRAMID, (3, 0, 4), (0, 0, -1), 2.0, [0, 0, 1]),
        (PYRAMID, (1.2, 0, 4), (0, 0, -1), 3.6, np.round([-2 / 5**0.5, 0, 1 / 5**0.5], 4).tolist()),
        (SPHERE, (0, 0, 0), (1, 0, 0), 4.0, [-1, 0, 0]),
        (SPHERE, (0, 0.6, 0), (1, 0, 0), 4.2, [-0.8, 0.6, 0]),
        (SPHERE, (0, 1.01, 0), (1, 0, 0), math.inf, []),
        (CAPSULE, (0, 0, 1), (1, 0, 0), 2.5, [-1, 0, 0]),
        (CAPSULE, (0, 0, 2.3), (1, 0, 0), 2.6, [-0.8, 0, 0.6]),  # its round top
        (CAPSULE, (0, 0, 2.6), (1, 0, 0), math.inf, []),
        (CAPSULE, (3, 0, 5), (0, 0, -1), 2.5, [0, 0, 1]),  # along its axis
        (CAPSULE, (3.3, 0, 5), (0, 0, -1), 2.6, [0.6, 0, 0.8]),
        (CAPSULE, (0, 0.3, 1), (1, 0, 0), 2.6, [-0.8, 0.6, 0]),
        (EGG, (0, 0, 0), (1, 0, 0), 3.0, [-1, 0, 0]),  # turned: its second axis lies along x
        (EGG, (4, 5, 0), (0, -1, 0), 3.0, [0, 1, 0]),
        (EGG, (4, 0, 5), (0, 0, -1), 4.5, [0, 0, 1]),
        (ROLLED, (0, 0, 0), (1, 0, 0), 2.0, [-1, 0, 0]),  # rolled: its second axis stands, its third lies along y
        (ROLLED, (4, 5, 0), (0, -1, 0), 4.5, [0, 1, 0]),
        (ROLLED, (4, 0, 5), (0, 0, -1), 4.0, [0, 0, 1]),
        (GROUND, (0, 0, 1.5), (1, 0, -1), 1.5 * math.sqrt(2), [0, 0, 1]),
        (GROUND, (7, 3, 1.8), (0.6, 0, -0.03), 1.8 * math.hypot(0.6, 0.03) / 0.03, [0, 0, 1]),
        (GROUND, (0, 0, 1.5), (1, 0, 0.01), math.inf, []),
    ],
)
def test_by_hand(solids, origin, direction, distance, normal):
    got, solid, got_normal = one(solids, origin, direction)
    assert got == pytest.approx(distance, rel=1e-5)
    assert solid == (-1 if distance == math.inf else 0)
    assert got_normal == pytest.approx(normal, abs=1e-3)


def test_the_nearest_of_all_kinds_wins_and_has_its_row():
    balls = np.array([[6.0, 0, 1, 6, 0, 1, 0.5], [4, 0, 1, 4, 0, 1, 0.5]])
    eggs = np.array([[8.0, 0, 1, 0.5, 0.5, 0.5, 0, 0]])
    blocks = np.stack([block(9, 10, -3, 3, 0, 3), block(2, 2.5, 1, 2, 0, 3)])
    solids = make_solids(blocks, balls, eggs)
    assert one(solids, (0, 0, 1), (1, 0, 0))[:2] == (pytest.approx(3.5), 3)
    assert one(solids, (5, 0, 1), (1, 0, 0))[:2] == (pytest.approx(0.5), 2)
    assert one(solids, (7, 0, 1), (1, 0, 0))[:2] == (pytest.approx(0.5), 4)
    assert one(solids, (8.6, 0, 1), (1, 0, 0))[:2] == (pytest.approx(0.4), 0)
    assert one(solids, (0, 1.5, 1), (1, 0, 0))[:2] == (pytest.approx(2), 1)


class Crowd:
    """Random solids of all kinds, and each one's own inside test, written apart from the caster's."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.blocks = np.concatenate(
            [random.uniform(-9, 9, (14, 3)), random.uniform(0.3, 3, (14, 3)), random.uniform(0, 0.29, (14, 1))],
            axis=1,
        )
        corners = [
            block(x - a, x + a, y - b, y + b, z - c, z + c, taper=t) for x, y, z, a, b, c, t in self.blocks.tolist()
        ]
        ends = random.uniform(-9, 9, (14, 3))
        self.capsules = np.concatenate(
            [ends, ends + random.normal(size=(14, 3)), random.uniform(0.05, 2, (14, 1))], axis=1
        )
        self.eggs = np.concatenate(
            [random.uniform(-9, 9, (14, 3)), random.uniform(0.1, 3, (14, 3)), random.uniform(-3, 3, (14, 2))], axis=1
        )
        self.solids = make_solids(np.array(corners), self.capsules, self.eggs)

    def level(self, points: F64) -> F64:
        """A value (42, n) that is below 0 inside a solid, 0 on it, above 0 outside; of no unit."""
        levels = []
        for x, y, z, a, b, c, taper in self.blocks:
            q = np.abs(points - (x, y, z))
            narrow = taper * (points[:, 2] - z + c) / (2 * c)
            levels.append(np.max([q[:, 0] + narrow - a, q[:, 1] + narrow - b, q[:, 2] - c], axis=0))
        for row in self.capsules:
            a, b, radius = row[:3], row[3:6], row[6]
            share = np.clip((points - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
            levels.append(np.linalg.norm(points - a - share[:, None] * (b - a), axis=1) - radius)
        for row in self.eggs:
            heading, roll = row[6:]
            turn = np.array(
                [[math.cos(heading), -math.sin(heading), 0], [math.sin(heading), math.cos(heading), 0], [0, 0, 1]]
            )
            lean = np.array([[1, 0, 0], [0, math.cos(roll), -math.sin(roll)], [0, math.sin(roll), math.cos(roll)]])
            local = (points - row[:3]) @ (turn @ lean)
            levels.append((np.linalg.norm(local / row[3:6], axis=1) - 1) * row[3:6].min())
        return np.array(levels)


def rays(seed: int, number: int, *, one_place: bool) -> tuple[F64, F64]:
    random = np.random.default_rng(seed)
    origins = random.uniform(-11, 11, (1 if one_place else number, 3)).repeat(number if one_place else 1, axis=0)
    directions = random.normal(size=(number, 3))
    return origins, directions / np.linalg.norm(directions, axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(4))
def test_hits_lie_on_the_surface_and_nothing_lies_before_them(seed):
    crowd = Crowd(seed)
    origins, directions = rays(seed, 1500, one_place=bool(seed % 2))
    hits = cast(crowd.solids, origins, directions)
    hit = hits.solid >= 0
    assert 0.1 < hit.mean() < 0.9
    started_inside = crowd.level(origins) < 1e-3

    points = origins + np.where(hit, hits.distance, 0)[:, None] * directions
    rows = np.flatnonzero(hit)
    level = crowd.level(points[rows])[hits.solid[rows], np.arange(len(rows))]
    np.testing.assert_allclose(level, 0, atol=2e-4)

    # Step along each ray to its hit, or far out: no solid may be entered on the way.
    ends = np.where(hit, hits.distance, 60.0)
    for share in np.linspace(0, 1, 80):
        along = np.maximum(share * ends - 2e-3, 0)
        inside = (crowd.level(origins + along[:, None] * directions) < -1e-3) & ~started_inside
        assert not inside.any()

    # The normal is the steepest way out, by differences; edges of blocks have none.
    row, at = hits.solid[rows], np.arange(len(rows))
    step = 1e-4
    slope = np.stack(
        [
            crowd.level(points[rows] + step * axis)[row, at] - crowd.level(points[rows] - step * axis)[row, at]
            for axis in np.eye(3)
        ],
        axis=1,
    )
    slope /= np.linalg.norm(slope, axis=1, keepdims=True)
    normal = normals(crowd.solids, row, points[rows].astype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-4)
    assert np.mean((slope * normal).sum(axis=1) > 0.999) > 0.97
    assert ((normal * directions[rows]).sum(axis=1) < 1e-3).all()


@pytest.mark.parametrize("shape", ["camera", "lidar", "sun", "scattered"])
def test_packets_change_no_result(shape):
    """Together, in tiles, and each ray on its own: the same hits, however wide or narrow the packets."""
    crowd = Crowd(11)
    number = 4 * PACKET + 5
    origins, directions = rays(5, number, one_place=False)
    if shape == "camera":
        fan = np.stack(
            [np.ones(number), np.linspace(-0.6, 0.6, number), np.tile(np.linspace(-0.3, 0.3, 7), 65)[:number]], 1
        )
        origins, directions = (
            np.array([[-12.0, 0, 0]]).repeat(number, 0),
            fan / np.linalg.norm(fan, axis=1, keepdims=True),
        )
    elif shape == "lidar":
        turn, lift = np.linspace(0, 2 * math.pi, number), np.tile([-0.2, 0.0, 0.1], number)[:number]
        directions = np.stack([np.cos(turn) * np.cos(lift), np.sin(turn) * np.cos(lift), np.sin(lift)], 1)
        origins = np.array([[0.0, 0, 1]]).repeat(number, 0)
    elif shape == "sun":
        origins = origins[np.argsort(origins[:, 0])]
        directions = np.array([[0.5, 0.3, math.sqrt(1 - 0.34)]]).repeat(number, 0)
    together = cast(crowd.solids, origins, directions)
    alone = [cast(crowd.solids, o, d[None]) for o, d in zip(origins, directions, strict=True)]
    np.testing.assert_array_equal(together.solid, np.concatenate([hits.solid for hits in alone]))
    np.testing.assert_allclose(together.distance, np.concatenate([hits.distance for hits in alone]), rtol=1e-4)
    assert 20 < (together.solid >= 0).sum() < number

    mixed = np.random.default_rng(0).permutation(number)
    np.testing.assert_array_equal(cast(crowd.solids, origins[mixed], directions[mixed]).solid, together.solid[mixed])


def test_rays_that_follow_one_another_on_a_line():
    """A packet stretched along its own direction: what lies behind most of its rays lies before the first."""
    ball = make_solids(NONE, np.array([-5.0, 0, 0, -5, 0, 0, 0.1]), NONE)
    starts = np.stack([np.linspace(-10, 10, PACKET), np.zeros(PACKET), np.zeros(PACKET)], 1)
    hits = cast(ball, starts, np.array([[1.0, 0, 0]]).repeat(PACKET, 0))
    before = starts[:, 0] < -5.1
    assert (hits.solid == np.where(before, 0, -1)).all()
    np.testing.assert_allclose(hits.distance[before], -5.1 - starts[before, 0], rtol=1e-4)


def test_no_ray_and_no_solid():
    assert len(cast(BOX, np.zeros(3), np.empty((0, 3))).solid) == 0
    empty = make_solids(NONE, NONE, NONE)
    assert len(empty) == 0
    assert cast(empty, np.zeros(3), np.array([[1.0, 0, 0]])).solid.tolist() == [-1]
