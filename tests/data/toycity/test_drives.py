"""A drive's frame: lidar, camera and boxes agree; hidden and cut objects are called so; a seed gives one frame."""

import math
from dataclasses import fields, replace
from random import Random

import numpy as np
import pytest

from hrnas.data.kitti import IMAGE_SIZE
from hrnas.data.kitti_files import NOT_AN_OBJECT
from hrnas.data.kitti_frames import chosen, in_view, projected_boxes, to_image, to_lidar
from hrnas.data.toycity import drives
from hrnas.data.toycity.bodies import extent, make_bodies
from hrnas.data.toycity.drives import TYPES, Recording, draw_recording, lidar_box, make_calibration
from hrnas.data.toycity.lidar import HEIGHT, Sweep, sweep
from hrnas.data.toycity.placing import CAR_SIZES, make_drive, make_world
from hrnas.data.toycity.raycast import cast, part_of
from hrnas.data.toycity.render import render
from hrnas.data.toycity.seen import hidden_share, owners
from hrnas.data.toycity.world import Thing, View, World
from hrnas.geometry.boxes import corners, points_in_boxes
from hrnas.structures import KittiObjects

FIELD_OF_VIEW = 2 * math.atan2(IMAGE_SIZE[1] / 2, 720)
EYE = View(position=(0.0, 0.0, 1.65), heading=0.0, pitch=0.0, roll=0.0, field_of_view=FIELD_OF_VIEW)
BASE = replace(make_world(Random(0)), things=(), view=EYE)
NUM_FRAMES = 3
CALIBRATION = make_calibration()
GOLDEN_COUNT, GOLDEN_AHEAD, GOLDEN_SEEDS = 1293, 71792.86497870399, 706919648678


def car(ahead: float, left: float = 0.0, heading: float = 0.0, kind: str = "saloon") -> Thing:
    return Thing(
        category="car", kind=kind, position=(ahead, left), heading=heading, size=CAR_SIZES[kind],
        colours=((0.5, 0.5, 0.5),) * 2, seed=1,
    )  # fmt: skip


def wall(left: float, right: float, ahead: float, height: float = 30.0) -> Thing:
    return Thing(
        category="building", kind="wall", position=(ahead, (left + right) / 2), heading=math.pi / 2,
        size=(abs(left - right), 0.1, height), colours=((0.5, 0.5, 0.5),), seed=1,
    )  # fmt: skip


def swept(world: World) -> Sweep:
    place = drives._lidar_place(world.view)
    return sweep(world, make_bodies(world), place, world.view.heading, FIELD_OF_VIEW / 2, np.random.default_rng(0))


def label(*things: Thing, view: View = EYE) -> KittiObjects:
    """Return the objects of a frame of these things, without taking its picture."""
    world = replace(BASE, things=things, view=view)
    return drives._label(world, make_bodies(world), swept(world).points, CALIBRATION)


def visible(frame: Recording) -> np.ndarray:
    """Return the points that the camera sees."""
    return frame.points[in_view(frame.points, frame.calibration, IMAGE_SIZE)]


def labelled(objects: KittiObjects) -> KittiObjects:
    """Return the objects that have a box in space."""
    return chosen(objects, np.array([name != NOT_AN_OBJECT for name in objects.types], bool))


@pytest.fixture(scope="module")
def frames() -> list[Recording]:
    return [draw_recording("train", number, 0) for number in range(NUM_FRAMES)]


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [make_drive(Random(number), FIELD_OF_VIEW) for number in range(NUM_FRAMES)]


def test_a_frame_is_as_promised(frames):
    for frame in frames:
        assert (frame.image.shape, frame.image.dtype) == ((*IMAGE_SIZE, 3), np.uint8)
        assert frame.image.std() > 12
        assert (frame.points.dtype, frame.points.shape[1]) == (np.float32, 4)
        assert 12_000 < len(visible(frame)) < 25_000
        x, y, z, reflectance = frame.points.T
        assert (np.sqrt(x * x + y * y + z * z) < 80.2).all()
        assert (reflectance >= 0).all()
        assert (reflectance < 1).all()
        assert (np.abs(np.arctan2(y, x)) < FIELD_OF_VIEW / 2 + 0.031).all()


def test_every_labelled_object_has_points_and_a_box_in_the_image(frames):
    count = 0
    for frame in frames:
        objects = labelled(frame.objects)
        count += len(objects)
        assert (points_in_boxes(visible(frame), to_lidar(objects, frame.calibration)).sum(axis=1) > 0).all()
        boxes = projected_boxes(objects, frame.calibration, IMAGE_SIZE)
        assert np.abs(boxes - objects.boxes_2d).max() < 0.5  # they were rounded apart
        left, top, right, bottom = frame.objects.boxes_2d.T
        assert (left >= 0).all() and (top >= 0).all()  # noqa: PT018
        assert (left < right).all() and (top < bottom).all()  # noqa: PT018
        assert (right <= 1241).all() and (bottom <= 374).all()  # noqa: PT018
        assert objects.locations[:, 1] == pytest.approx(1.65)  # on the ground
        assert set(objects.occluded) <= {0, 1, 2}
        assert (objects.truncated >= 0).all() and (objects.truncated <= 1).all()  # noqa: PT018
        seen_under = objects.rotations - np.arctan2(objects.locations[:, 0], objects.locations[:, 2])
        assert np.abs(np.exp(1j * seen_under) - np.exp(1j * objects.alphas)).max() < 1e-3
    assert count > 12 * NUM_FRAMES


def test_points_lie_in_the_boxes_of_what_they_met(worlds):
    checked = 0
    for world in worlds:
        found = swept(world)
        for row, thing in enumerate(world.things):
            points = found.points[found.thing == row]
            if thing.kind not in TYPES or len(points) < 100:
                continue
            box = lidar_box(thing, world.view)
            grown = box + np.array([0, 0, 0, 0.2, 0.2, 0.2, 0])  # five times the noise at each side
            assert points_in_boxes(points, grown[None]).all(), thing
            assert points_in_boxes(points, box[None]).mean() > 0.75, thing
            checked += 1
    assert checked > 10


@pytest.mark.parametrize("kind", [*CAR_SIZES, "plain", "bicycle"])
def test_an_extent_is_that_of_the_solids(kind, worlds):
    thing = next(
        thing
        for world in (*worlds, *(make_drive(Random(seed), 1.4) for seed in range(50)))
        for thing in world.things
        if thing.kind == kind
    )
    alone = make_bodies(replace(BASE, things=(replace(thing, position=(0.0, 0.0), heading=0.0),)))
    solids = part_of(alone.solids, alone.thing == 0)
    low, high = extent(thing)
    step = (high - low).max() / 150
    for axis in range(3):  # rays along the axis through a fine grid, from both sides
        others = [other for other in range(3) if other != axis]
        steps = [np.arange(low[other] - 0.1, high[other] + 0.1, step) for other in others]
        origins = np.empty((steps[0].size * steps[1].size, 3))
        origins[:, others] = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 2)
        for sign, face in ((1, high), (-1, low)):
            origins[:, axis] = sign * 20.0
            hits = cast(solids, origins, np.broadcast_to(-sign * np.eye(3)[axis], origins.shape))
            own = hits.solid >= 0
            assert sign * (20 - hits.distance[own].min()) == pytest.approx(face[axis], abs=step)
            assert (origins[own][:, others] > low[others] - 1e-3).all()
            assert (origins[own][:, others] < high[others] + 1e-3).all()


def test_points_fall_on_the_pixels_of_what_they_met(worlds):
    """Lidar, calibration and camera together: a point's place in the image shows the thing that the point is on."""
    world = worlds[0]
    picture = render(world, IMAGE_SIZE[0] // 3, IMAGE_SIZE[1] // 3, Random(0))
    owner = owners(picture)
    found = swept(world)
    shown = in_view(found.points, CALIBRATION, IMAGE_SIZE)
    column, row, _ = to_image(found.points[shown, :3], CALIBRATION).T
    pixel = owner[np.minimum((row + 0.5) // 3, 124).astype(int), np.minimum((column + 0.5) // 3, 413).astype(int)]
    thing = found.thing[shown]
    assert (pixel == thing)[thing >= 0].mean() > 0.9
    checked = 0
    for index, one in enumerate(world.things):
        y, x = np.nonzero(owner == index)
        if one.kind in TYPES and len(x) > 200:
            (box,) = label(one, view=world.view).boxes_2d
            seen = np.array([3 * x.min(), 3 * y.min(), 3 * x.max() + 2, 3 * y.max() + 2])
            assert (np.array([1, 1, -1, -1]) * (seen - box) > -3).all()  # within the box
            checked += 1
    assert checked >= 4


def test_a_car_ahead_by_hand():
    objects = label(car(20.0, 2.0, heading=0.5))
    (box,) = to_lidar(objects, CALIBRATION)
    length, width, height = CAR_SIZES["saloon"]
    # The lidar is 0.27 m behind the lens and 0.06 m right of it; lamps and wheels stand out a little.
    assert box[:3] == pytest.approx((20.27, 2.06, height / 2 - HEIGHT), abs=0.02)
    assert box[3:6] == pytest.approx((length + 0.04, width + 0.08, height), abs=0.01)
    assert box[6] == pytest.approx(0.5, abs=1e-3)
    assert objects.types == ("Car",)
    assert objects.rotations[0] == pytest.approx(-0.5 - math.pi / 2, abs=1e-3)
    assert (objects.truncated[0], objects.occluded[0]) == (0.0, 0)
    # The lens is at the world's origin, 1.65 m high; an image's pixel has its middle at whole numbers.
    near = corners(np.array([[20.0, 2.0, height / 2 - 1.65, *box[3:6], 0.5]]))[0]
    columns = 620.5 - 720 * near[:, 1] / near[:, 0]
    rows = 187.0 - 720 * near[:, 2] / near[:, 0]
    expected = (columns.min(), rows.min(), columns.max(), rows.max())
    assert objects.boxes_2d[0] == pytest.approx(expected, abs=1.0)


def test_the_view_turns_all_alike():
    turned = replace(EYE, position=(3.0, -2.0, 1.65), heading=1.1)
    cos, sin = math.cos(1.1), math.sin(1.1)
    place = (3.0 + cos * 20 - sin * 2, -2.0 + sin * 20 + cos * 2)
    there = label(replace(car(0.0, heading=0.5 + 1.1), position=place), view=turned)
    here = label(car(20.0, 2.0, heading=0.5))
    for name in ("boxes_2d", "locations", "sizes", "rotations", "alphas"):
        assert getattr(there, name) == pytest.approx(getattr(here, name), abs=2e-3)


def test_every_kind_has_its_type():
    kinds = {thing.kind for seed in range(60) for thing in make_drive(Random(seed), 1.4).things
             if thing.category in ("car", "person", "cyclist")}  # fmt: skip
    assert kinds == set(TYPES)
    assert {TYPES[kind] for kind in CAR_SIZES} == {"Car", "Van", "Truck"}
    assert label(car(15.0, kind="van"), car(25.0, 6.0, kind="bus")).types == ("Van", "Truck")


def test_a_wall_hides():
    shares = {}
    (box,) = label(car(20.0)).boxes_2d
    for name, hiding in {
        "nothing": (), "beside": (wall(3, 9, 10.0),), "part": (wall(0.17, 9, 10.0),), "most": (wall(-0.3, 9, 10.0),),
        "all": (wall(-9, 9, 10.0),),
    }.items():  # fmt: skip
        world = replace(BASE, things=(car(20.0), *hiding))
        shares[name] = hidden_share(world, make_bodies(world), 0, tuple(box + 0.5), *IMAGE_SIZE)
        found = label(car(20.0), *hiding)
        assert found.types == (() if name == "all" else ("Car",))
        if name != "all":
            assert found.occluded[0] == {"nothing": 0, "beside": 0, "part": 1, "most": 2}[name]
            assert found.boxes_2d[0] == pytest.approx(box)  # of the whole, as in KITTI
    assert (shares["nothing"], shares["beside"], shares["all"]) == (0, 0, 1)
    # Nine tenths of a metre to either side, at 17.7 m; the wall's edge stands at 10 m.
    assert shares["part"] == pytest.approx((0.95 - 0.17 * 1.77) / 1.9, abs=0.1)
    assert shares["most"] == pytest.approx((0.95 + 0.3 * 1.77) / 1.9, abs=0.1)


def test_what_nobody_could_find_is_not_to_be_cared_for():
    # Over the wall shows a strip of the roof, which is less than a twentieth of the car.
    found = label(car(20.0), wall(-9, 9, 17.0, height=1.44))
    assert found.types == (NOT_AN_OBJECT,)
    assert (found.truncated[0], found.occluded[0], found.alphas[0], found.rotations[0]) == (-1, -1, -10, -10)
    assert (found.sizes[0].tolist(), found.locations[0].tolist()) == ([-1] * 3, [-1000] * 3)
    assert found.boxes_2d[0] == pytest.approx(label(car(20.0)).boxes_2d[0])
    # The lidar, 8 cm above the camera, sees more of a roof over a wall.
    things = (car(10.0), wall(-9, 9, 6.0, height=1.48))
    assert (swept(replace(BASE, things=things)).thing == 0).sum() > 50
    assert label(*things).types == (NOT_AN_OBJECT,)
    # Beyond the lidar's range, in full sight.
    far = label(car(95.0), car(30.0, 3.0))
    assert far.types == ("Car", NOT_AN_OBJECT)
    assert far.boxes_2d[1, 3] - far.boxes_2d[1, 1] < 14
    # Behind the camera, or beside its image.
    assert len(label(car(-8.0), car(5.0, 12.0))) == 0


def test_a_car_at_the_edge_is_truncated_by_its_share_outside():
    objects = label(car(10.0, 8.0, heading=math.pi / 2))
    (box,) = to_lidar(objects, CALIBRATION)
    around = corners(box[None])[0] - (0.27, 0.06, -0.08)
    columns, rows = 620.5 - 720 * around[:, 1] / around[:, 0], 187.0 - 720 * around[:, 2] / around[:, 0]
    assert columns.min() < 0 < columns.max()
    outside = -columns.min() / np.ptp(columns)
    assert objects.truncated[0] == pytest.approx(outside, abs=2e-3)
    assert objects.boxes_2d[0] == pytest.approx((0, rows.min(), columns.max(), rows.max()), abs=0.1)


def equal(a: Recording, b: Recording) -> bool:
    def same(x: object, y: object) -> bool:
        return np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y

    return (
        np.array_equal(a.points, b.points)
        and np.array_equal(a.image, b.image)
        and all(same(getattr(a.objects, f.name), getattr(b.objects, f.name)) for f in fields(KittiObjects))
        and all(np.array_equal(getattr(a.calibration, f.name), getattr(b.calibration, f.name))
                for f in fields(a.calibration))
    )  # fmt: skip


def test_a_frame_follows_from_split_number_and_seed(frames, monkeypatch):
    assert equal(draw_recording("train", 1, 0), frames[1])
    worlds = []
    monkeypatch.setattr(drives, "make_recording", lambda world, random: worlds.append(world))
    for split in ("train", "validation", "test"):
        for seed in (0, 1):
            for number in range(8):
                draw_recording(split, number, seed)
    assert len({repr(world.things) for world in worlds}) == len(worlds) == 48


def test_streets_have_much_to_find_at_all_distances():
    """Counts of what stands within 40 degrees ahead, a frame: from 5 to 50 m all classes, near, middle and far."""
    found = {name: np.zeros(3) for name in ("Car", "Pedestrian", "Cyclist")}
    crossing = 0
    for seed in range(100):
        world = make_drive(Random(seed), FIELD_OF_VIEW)
        cos, sin = math.cos(world.view.heading), math.sin(world.view.heading)
        for thing in world.things:
            if thing.kind not in TYPES:
                continue
            east, north = thing.position[0] - world.view.position[0], thing.position[1] - world.view.position[1]
            x, y, yaw = cos * east + sin * north, cos * north - sin * east, thing.heading - world.view.heading
            if 5 <= x < 50 and abs(y) < 0.85 * x and TYPES[thing.kind] in found:
                found[TYPES[thing.kind]][int((x - 5) // 15)] += 0.01
                crossing += TYPES[thing.kind] == "Car" and abs(math.cos(yaw)) < 0.5
    assert (found["Car"] > 1.5).all()
    assert (found["Pedestrian"] > 0.8).all()
    assert (found["Cyclist"] > 0.15).all()
    assert crossing > 30


def test_the_usual_worlds_are_as_they_were():
    """Numbers of the worlds that the masks show, taken before drives came."""
    things = [thing for seed in range(20) for thing in make_world(Random(f"golden {seed}")).things]
    assert len(things) == GOLDEN_COUNT
    assert sum(thing.position[0] for thing in things) == pytest.approx(GOLDEN_AHEAD, abs=1e-6)
    assert sum(thing.seed for thing in things) == GOLDEN_SEEDS
