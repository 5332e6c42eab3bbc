"""The drawn worlds: repeatable, nothing in another's place, limbs of the right length, bodies of the right size."""

import math
from itertools import combinations
from random import Random

import numpy as np
import pytest

from hrnas.data.toycity import figure
from hrnas.data.toycity.bodies import make_bodies
from hrnas.data.toycity.figure import cycling, joints, walking
from hrnas.data.toycity.placing import make_world
from hrnas.data.toycity.raycast import cast
from hrnas.data.toycity.street import Street
from hrnas.data.toycity.world import NAMES


def street(radius: float, crossing: float = 30.0, crossing_half_width: float = 4.0) -> Street:
    return Street(
        radius=radius, half_width=5.0, pavement_width=2.0, crossing=crossing, crossing_half_width=crossing_half_width,
        centre_line="none", edge_lines=False, zebra=False,
    )  # fmt: skip


def test_the_same_number_makes_the_same_world_and_another_another():
    assert make_world(Random(3)) == make_world(Random(3))
    assert make_world(Random(3)) != make_world(Random(4))


@pytest.mark.parametrize("radius", [1e5, -1e5, 120.0, -120.0])
def test_street_coordinates_there_and_back(radius):
    bend = street(radius)
    for along, left in ((0, 0), (20, 3), (60, -12), (90, 12), (-5, 1)):
        x, y, heading = bend.to_world(along, left)
        got = bend.to_street(np.array([x]), np.array([y]))
        assert (got[0][0], got[1][0]) == pytest.approx((along, left), abs=1e-6)
        assert heading == pytest.approx(along / radius)
    # On a quarter of the circle of radius 120 the street has turned by a right angle, to the left when positive.
    if abs(radius) == 120:
        x, y, heading = bend.to_world(60 * math.pi, 0)
        assert (x, y, heading) == pytest.approx((120, radius, math.copysign(math.pi / 2, radius)))


def test_surface_of_a_straight_street_with_a_crossing():
    flat = street(1e5)
    along = np.array([0.0, 0, 0, 30, 30, 24.5, 0, 23])
    left = np.array([4.9, -6.9, 7.1, 50, 4, 50, 5.1, 50])
    road, pavement = flat.surface(along, left)
    assert road.tolist() == [True, False, False, True, True, False, False, False]
    assert pavement.tolist() == [False, True, False, False, False, True, True, False]
    road, _ = street(1e5, crossing_half_width=0.0).surface(np.array([30.0]), np.array([50.0]))
    assert not road[0]


def test_no_car_stands_in_another_and_nobody_in_a_car():
    for seed in range(100):
        things = make_world(Random(seed)).things
        cars = [thing for thing in things if thing.category == "car"]
        for a, b in combinations(cars, 2):
            # Along and across car a: where the corners and the middle line of car b are.
            for share in np.linspace(-0.5, 0.5, 9):
                reach = share * (b.size[0] - 0.2)
                x = b.position[0] + reach * math.cos(b.heading) - a.position[0]
                y = b.position[1] + reach * math.sin(b.heading) - a.position[1]
                ahead = x * math.cos(a.heading) + y * math.sin(a.heading)
                aside = y * math.cos(a.heading) - x * math.sin(a.heading)
                assert abs(ahead) > a.size[0] / 2 - 0.2 or abs(aside) > a.size[1] / 2
        for one in things:
            if one.category in ("person", "pole"):
                for car in cars:
                    x, y = one.position[0] - car.position[0], one.position[1] - car.position[1]
                    ahead = x * math.cos(car.heading) + y * math.sin(car.heading)
                    aside = y * math.cos(car.heading) - x * math.sin(car.heading)
                    assert abs(ahead) > car.size[0] / 2 - 0.35 or abs(aside) > car.size[1] / 2


def length(a: figure.Point, b: figure.Point) -> float:
    return math.dist(a, b)


@pytest.mark.parametrize("draw", [walking, cycling])
def test_limbs_keep_their_length_and_knees_bend_ahead(draw):
    for seed in range(40):
        random = Random(seed)
        height = random.uniform(1.5, 1.9)
        pose = draw(random, height)
        joint = joints(pose)
        for side, sign in (("left", 1), ("right", -1)):
            hip, knee, ankle = (joint[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
            shoulder, elbow, wrist = (joint[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist"))
            assert length(hip, knee) == pytest.approx(figure.THIGH * height, abs=1e-6)
            assert length(knee, ankle) == pytest.approx(figure.SHIN * height, abs=1e-6)
            assert length(shoulder, elbow) == pytest.approx(figure.UPPER_ARM * height, abs=1e-6)
            assert length(elbow, wrist) == pytest.approx(figure.FOREARM * height, abs=1e-6)
            assert sign * hip[1] > 0
            assert sign * shoulder[1] > 0
            assert ankle[2] > 0.02
            # The knee is ahead of the straight line from hip to ankle.
            share = (hip[2] - knee[2]) / (hip[2] - ankle[2])
            assert knee[0] >= hip[0] + share * (ankle[0] - hip[0]) - 1e-6
        if draw is walking:  # both feet are where the pose wants them, and one is on the ground
            for side, target in zip(("left", "right"), pose.ankles, strict=True):
                assert joint[f"{side}_ankle"] == pytest.approx(target, abs=1e-3 * height)
            assert min(a[2] for a in pose.ankles) == pytest.approx(figure.ANKLE * height, abs=1e-6)
            assert joint["head"][2] == pytest.approx(0.935 * height, rel=0.06)


def test_every_thing_has_a_body_within_its_size():
    """Seen from all around, a thing's solids fill its box and do not leave it by more than trim and mirrors would."""
    over = {"building": 1.0, "tree": 0.35, "car": 0.15, "person": 0.9, "cyclist": 0.3}  # metres; trees: share of width
    seen = set()
    for seed in range(12):
        world = make_world(Random(seed))
        bodies = make_bodies(world)
        assert set(bodies.thing.tolist()) == set(range(-1, len(world.things)))
        assert np.array_equal(
            bodies.category[bodies.thing >= 0],
            [NAMES.index(world.things[row].category) for row in bodies.thing if row >= 0],
        )
        for row, thing in enumerate(world.things):
            if thing.category not in over or (thing.category, thing.kind) in seen:
                continue
            seen.add((thing.category, thing.kind))
            cos, sin = math.cos(thing.heading), math.sin(thing.heading)
            # Rays from above, on a grid over twice the thing's box, with all else out of the way.
            size = thing.size
            ahead, left = np.meshgrid(np.linspace(-1, 1, 61) * size[0], np.linspace(-1, 1, 61) * size[1])
            ahead, left = ahead.reshape(-1), left.reshape(-1)
            x, y = thing.position[0] + cos * ahead - sin * left, thing.position[1] + sin * ahead + cos * left
            origins = np.stack([x, y, np.full_like(x, 80.0)], 1)
            hits = cast(bodies.solids, origins, np.array([[0.0, 0, -1]]).repeat(len(x), 0))
            own = bodies.thing[hits.solid] == row
            margin = over[thing.category] * (size[0] if thing.category == "tree" else 1)
            assert own.any()
            assert (np.abs(ahead[own]) <= size[0] / 2 + margin).all()
            assert (np.abs(left[own]) <= size[1] / 2 + margin).all()
            top = 80 - hits.distance[own].min()
            roof = {"building": 3.1, "gable": 0.45 * min(size[:2]) + 0.65}  # a hut on the roof; a gable and its chimney
            assert top <= size[2] * 1.15 + roof.get(thing.kind, roof.get(thing.category, 0.05))
            assert top >= size[2] * 0.6
    assert {category for category, _ in seen} == set(over)
