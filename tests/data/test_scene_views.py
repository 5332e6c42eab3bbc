"""Views of scenes: boxes move with their points, objects of other scenes stand where there is room."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely.geometry import Polygon

from data.small_scenes import (
    CAR,
    CYCLIST,
    NAMES,
    OTHER_CAR,
    VAN,
    WALKER,
    boxes3d,
    points_at,
    points_on,
    scene,
    without_objects,
    write_set,
)
from hrnas.data.kitti import SPLIT_SOURCES, KittiSet, find_frames
from hrnas.data.kitti_classes import CLASSES, COLORS
from hrnas.data.kitti_frames import boxes_of
from hrnas.data.object_database import ObjectDatabase, open_database
from hrnas.data.scene_views import SCENES, evaluation_cloud, training_cloud, usual_objects
from hrnas.data.transforms import AugmentOptions
from hrnas.geometry.boxes import bev_corners, points_in_boxes
from hrnas.structures import Boxes3D, Sample, Scene
from hrnas.tasks.task import settled

KITTI_MINI = Path(__file__).parents[3] / "shared" / "data" / "kitti_mini"
real = pytest.mark.skipif(not KITTI_MINI.is_dir(), reason="../shared/data/kitti_mini is not there")

STILL: dict[str, Any] = {"flip": 0.0, "rotation": 0.0, "scale": (1.0, 1.0), "objects": ()}
View = tuple[np.ndarray, Boxes3D]


def options(**given: Any) -> AugmentOptions:
    """Return options under which only what is given changes a scene."""
    return settled(AugmentOptions(**(STILL | given)), SCENES, "detection3d", "augment")


def seen(sample: Sample[Scene], seed: int = 0, database: ObjectDatabase | None = None, **given: Any) -> View:
    return training_cloud(sample, options(**given), CLASSES, np.random.default_rng(seed), database)


def in_order(cloud: np.ndarray) -> np.ndarray:
    return cloud[np.lexsort(cloud.T)]


def labelled(sample: Sample[Scene]) -> Boxes3D:
    return boxes_of(sample.truth.objects, NAMES, sample.truth.calibration)


def inside(cloud: np.ndarray, boxes: Boxes3D) -> list[set[float]]:
    """Return the reflectances of the points in each box: they tell the points of a small scene apart."""
    return [set(cloud[mask, 3].tolist()) for mask in points_in_boxes(cloud, boxes.boxes)]


@pytest.fixture
def sample() -> Sample[Scene]:
    return scene({CAR: "Car", WALKER: "Pedestrian", VAN: "Van", CYCLIST: "Cyclist", OTHER_CAR: "Car"})


def test_without_augmentation_training_sees_evaluations_cloud(sample: Sample[Scene]) -> None:
    off = settled(AugmentOptions.none(), SCENES, "detection3d", "augment")
    orders = set()
    for seed in range(3):
        cloud, boxes = training_cloud(sample, off, CLASSES, np.random.default_rng(seed), None)
        assert cloud.dtype == np.float32
        assert np.array_equal(in_order(cloud), in_order(evaluation_cloud(sample)))
        assert boxes.boxes == pytest.approx(labelled(sample).boxes, abs=1e-14)
        assert boxes.labels.tolist() == [0, 1, 2, 0], "the van is of no class"
        assert boxes.scores.tolist() == [1, 1, 1, 1]
        orders.add(tuple(cloud[:, 3]))
    assert len(orders) == 3, "the order is random"
    assert np.array_equal(evaluation_cloud(sample), sample.content)


def test_the_same_seed_gives_the_same_view(sample: Sample[Scene]) -> None:
    changes: dict[str, Any] = {"flip": 0.5, "rotation": 45.0, "scale": (0.95, 1.05)}
    (cloud, boxes), (again, boxes_again) = (seen(sample, 5, **changes) for _ in range(2))
    assert np.array_equal(cloud, again)
    assert np.array_equal(boxes.boxes, boxes_again.boxes)
    other, _ = seen(sample, 6, **changes)
    assert not np.allclose(in_order(cloud), in_order(other))


@pytest.mark.parametrize("change", [
    {"flip": 1.0}, {"rotation": 180.0}, {"scale": (0.5, 2.0)},
    {"flip": 0.5, "rotation": 180.0, "scale": (0.5, 2.0)},
])  # fmt: skip
def test_the_points_in_a_box_stay_in_it(sample: Sample[Scene], change: dict[str, Any]) -> None:
    before = inside(sample.content, labelled(sample))
    assert [len(points) for points in before] == [30] * 4
    for seed in range(25):
        cloud, boxes = seen(sample, seed, **change)
        assert not np.allclose(boxes.boxes, labelled(sample).boxes)
        assert inside(cloud, boxes) == before
        assert sorted(cloud[:, 3]) == sorted(sample.content[:, 3]), "no point comes or goes"
        assert (boxes.boxes[:, 6] >= -np.pi).all()
        assert (boxes.boxes[:, 6] < np.pi).all()


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_fronts_stay_fronts_and_a_mirror_changes_left_and_right(flip: float) -> None:
    # One point in the front left upper corner of each box, which one that had turned round would have elsewhere.
    share = np.array([[0.4, 0.4, 0.4]])
    points = np.concatenate([points_at(box, share, 9.0) for box in (CAR, WALKER, OTHER_CAR)])
    sample = replace(scene({CAR: "Car", WALKER: "Pedestrian", OTHER_CAR: "Car"}), content=points)
    for seed in range(25):
        cloud, boxes = seen(sample, seed, flip=flip, rotation=180.0, scale=(0.5, 2.0))
        for box, mask in zip(boxes.boxes, points_in_boxes(cloud, boxes.boxes), strict=True):
            corner = points_at(box, share * [1, -1 if flip else 1, 1], 9.0)
            assert cloud[mask, :3] == pytest.approx(corner[:, :3], abs=1e-4)


def test_a_mirror_is_of_left_and_right(sample: Sample[Scene]) -> None:
    cloud, boxes = seen(sample, flip=1.0)
    assert np.array_equal(in_order(cloud), in_order(sample.content * np.float32([1, -1, 1, 1])))
    first = labelled(sample).boxes
    assert boxes.boxes[:, 1] == pytest.approx(-first[:, 1])
    assert boxes.boxes[:, 6] == pytest.approx(-first[:, 6])
    assert np.delete(boxes.boxes, [1, 6], axis=1) == pytest.approx(np.delete(first, [1, 6], axis=1))


def test_heights_stay_but_for_the_scale(sample: Sample[Scene]) -> None:
    first = labelled(sample).boxes
    for seed in range(5):
        cloud, boxes = seen(sample, seed, flip=0.5, rotation=180.0)
        assert boxes.boxes[:, 2:6] == pytest.approx(first[:, 2:6])
        assert np.array_equal(np.sort(cloud[:, 2]), np.sort(sample.content[:, 2]))
        cloud, boxes = seen(sample, seed, scale=(0.5, 2.0))
        factor = boxes.boxes[0, 0] / first[0, 0]
        assert boxes.boxes[:, :6] == pytest.approx(factor * first[:, :6])
        assert in_order(cloud)[:, :3] == pytest.approx(factor * in_order(sample.content)[:, :3], rel=1e-5)


def test_turns_scales_and_mirrors_are_drawn_from_their_ranges() -> None:
    sample = scene({CAR: "Car"}, points=1)
    x, y, yaw = CAR[0], CAR[1], CAR[6]
    turns, factors, mirrored = [], [], 0
    for seed in range(600):
        _, boxes = seen(sample, seed, flip=0.25, rotation=40.0, scale=(0.9, 1.2))
        box = boxes.boxes[0]
        factors.append(box[3] / CAR[3])
        ahead = np.arctan2(box[1], box[0])
        flip = abs(ahead - box[6] - (np.arctan2(-y, x) + yaw)) < 1e-9
        mirrored += flip
        turns.append(np.rad2deg(ahead - np.arctan2(-y if flip else y, x)))
    for values, low, high in ((np.array(turns), -40, 40), (np.array(factors), 0.9, 1.2)):
        span = high - low
        assert low <= values.min() < low + 0.02 * span
        assert high - 0.02 * span < values.max() <= high
        # The mean and the deviation of 600 numbers drawn evenly, within four deviations.
        assert values.mean() == pytest.approx((low + high) / 2, abs=4 * span / 12**0.5 / 600**0.5)
        assert values.std() == pytest.approx(span / 12**0.5, rel=0.08)
    assert 110 < mirrored < 190


def test_one_options_value_does_not_change_what_the_others_draw(sample: Sample[Scene], tmp_path: Path) -> None:
    database = pasting(tmp_path)
    for seed in range(10):
        changes: dict[str, Any] = {"flip": 0.5, "rotation": 45.0, "scale": (0.9, 1.1)}
        _, every = seen(sample, seed, database, **changes, objects=(3, 3, 3))
        assert len(every) > 4
        _, plain = seen(sample, seed, **changes)
        assert np.array_equal(every.boxes[:4], plain.boxes)
        _, unturned = seen(sample, seed, database, **(changes | {"rotation": 0.0}), objects=(3, 3, 3))
        assert np.array_equal(unturned.labels, every.labels)
        assert unturned.boxes[:, 3:6] == pytest.approx(every.boxes[:, 3:6])


def test_what_was_read_is_not_changed(sample: Sample[Scene], tmp_path: Path) -> None:
    cloud, boxes = sample.content.copy(), labelled(sample).boxes
    sample.content.flags.writeable = False
    for database in (None, pasting(tmp_path)):
        seen(sample, 1, database, flip=1.0, rotation=45.0, scale=(0.9, 1.1), objects=(9, 9, 9))
    assert np.array_equal(sample.content, cloud)
    assert np.array_equal(labelled(sample).boxes, boxes)


def test_an_empty_cloud_stays_empty(sample: Sample[Scene]) -> None:
    cloud, boxes = seen(without_objects(sample), flip=1.0, rotation=45.0, scale=(0.9, 1.1))
    assert (cloud.shape, cloud.dtype, boxes.boxes.shape) == ((0, 4), np.float32, (0, 7))
    assert evaluation_cloud(without_objects(sample)).shape == (0, 4)


def test_a_scene_is_filled_up_with_more_of_the_first_class() -> None:
    assert usual_objects(CLASSES) == SCENES["objects"] == (15, 10, 10)
    assert usual_objects(CLASSES[1:2]) == (15,)
    assert usual_objects(CLASSES + CLASSES) == (15, 10, 10, 10, 10, 10)


def moved(box: tuple[float, ...], x: float, y: float) -> tuple[float, ...]:
    return (x, y, *box[2:])


def pasting(folder: Path) -> ObjectDatabase:
    """Return a database of scenes 1 to 20 with an object of each class, and scene 0 with three."""
    rng = np.random.default_rng(4)
    samples = [scene({CAR: "Car", WALKER: "Pedestrian", CYCLIST: "Cyclist"}, index=0, seed=100)]
    for index in range(1, 21):
        kinds = ((CAR, "Car", 8), (WALKER, "Pedestrian", 5), (CYCLIST, "Cyclist", 5))
        objects = {moved(box, rng.uniform(14, 40), rng.uniform(-side, side)): name for box, name, side in kinds}
        samples.append(scene(objects, index=index, seed=index, points=10))
    database = open_database(write_set(folder / "training", samples), (1, 1, 1), folder / "cache")
    assert database is not None
    # So that each point of the database says which object it is of, and none of a scene does.
    return replace(database, points=tagged(database))


def tagged(database: ObjectDatabase) -> np.ndarray:
    points = database.points.copy()
    points[:, 3] = 100 + np.repeat(np.arange(len(database)), np.diff(database.ends, prepend=0))
    return points


def test_objects_of_other_scenes_fill_a_scene_up(sample: Sample[Scene], tmp_path: Path) -> None:
    database = pasting(tmp_path)
    counts = []
    for seed in range(20):
        cloud, boxes = seen(sample, seed, database, objects=(6, 1, 4))
        new = boxes.boxes[4:]
        assert boxes.boxes[:4] == pytest.approx(labelled(sample).boxes, abs=1e-9), "the scene's own come first"
        assert (boxes.scores == 1).all()
        counts.append(np.bincount(boxes.labels, minlength=3))
        outlines = [Polygon(corners) for corners in bev_corners(np.concatenate([[VAN], boxes.boxes]))]
        for place, one in enumerate(outlines):
            assert not any(one.intersection(other).area > 1e-9 for other in outlines[:place])
        objects = [int(np.flatnonzero(np.isclose(database.boxes, box).all(axis=1))[0]) for box in new]
        assert len(set(objects)) == len(objects)
        assert (database.scenes[objects] != 0).all(), "scene 0 is the sample itself"
        assert np.array_equal(database.labels[objects], boxes.labels[4:])
        kept = ~points_in_boxes(sample.content, new).any(axis=0)
        expected = [sample.content[kept], *(database.points_of(index) for index in objects)]
        assert np.array_equal(in_order(cloud), in_order(np.concatenate(expected)))
        assert inside(cloud, boxes)[4:] == [{100.0 + index} for index in objects]
    counts = np.array(counts)
    # Two cars, a pedestrian and a cyclist were there. Of each class the first that are drawn find room most times.
    assert (counts.max(axis=0) == [6, 1, 4]).all()
    assert (counts[:, 1] == 1).all()
    assert counts[:, 0].mean() > 3
    assert counts[:, 2].mean() > 2


def test_a_scene_that_is_full_already_gets_nothing(sample: Sample[Scene], tmp_path: Path) -> None:
    _, boxes = seen(sample, 0, pasting(tmp_path), objects=(2, 0, 1))
    assert len(boxes) == 4


def test_points_of_the_scene_where_an_object_is_put_go() -> None:
    rng = np.random.default_rng(0)
    there = np.concatenate([points_on(CAR, 20, rng, 1.0), points_on(VAN, 7, rng, 2.0)])
    cloud, boxes = seen(replace(scene({}), content=there), 0, one_object(CAR), objects=(1, 1, 1))
    assert boxes.boxes == pytest.approx(np.array([CAR]))
    assert sorted(np.floor(cloud[:, 3])) == [2.0] * 7 + [100.0] * 5


@pytest.mark.parametrize(("kind", "expected"), [("Van", 0), ("Car", 1), ("Misc", 0), ("DontCare", 1)])
def test_objects_of_other_types_stand_in_the_way(kind: str, expected: int) -> None:
    """Whatever stands there, a car that overlaps it finds no place; of the class itself the own one stays alone."""
    sample = scene({moved(CAR, 13.0, 1.5): kind})
    if kind == "DontCare":  # as KITTI has it: no box in space
        gone = np.full((1, 3), -1000.0)
        objects = replace(sample.truth.objects, locations=gone, sizes=np.full((1, 3), -1.0))
        sample = replace(sample, truth=replace(sample.truth, objects=objects))
    _, boxes = seen(sample, 0, one_object(CAR), objects=(2, 0, 0))
    assert len(boxes) == expected


def one_object(box: tuple[float, ...], scene: int = 1) -> ObjectDatabase:
    points = points_on(box, 5, np.random.default_rng(9), 0.0)
    points[:, 3] = 100
    return ObjectDatabase(
        points=points, ends=np.array([5]), boxes=boxes3d(box).boxes, labels=np.array([0]), scenes=np.array([scene])
    )


def test_a_centimetre_is_room_enough() -> None:
    square = (12.0, 0.0, -0.9, 2.0, 2.0, 1.6, 0.0)
    for away, expected in ((2.01, 2), (1.99, 1)):
        _, boxes = seen(scene({square: "Car"}), 0, one_object(moved(square, 12.0, away)), objects=(2, 0, 0))
        assert len(boxes) == expected


@pytest.fixture(scope="module")
def frames() -> KittiSet:
    return KittiSet(
        frames=find_frames(KITTI_MINI, SPLIT_SOURCES["train"], "train"), names=NAMES, colors=COLORS, classes=CLASSES
    )


@real
def test_real_objects_keep_their_points(frames: KittiSet, tmp_path: Path) -> None:
    database = open_database(frames, (15, 10, 10), tmp_path)
    assert database is not None
    filled = 0
    for index in range(len(frames)):
        sample = frames.read(index)
        still, boxes_still = seen(sample, 3, database, objects=(15, 10, 10))
        cloud, boxes = seen(sample, 3, database, objects=(15, 10, 10), flip=1.0, rotation=45.0, scale=(0.95, 1.05))
        # The same order, as the seed is. Within a millimetre of a face rounding decides.
        inner, outer = (
            points_in_boxes(still, boxes_still.boxes + np.array([0, 0, 0, by, by, by, 0])) for by in (-0.002, 0.002)
        )
        after = points_in_boxes(cloud, boxes.boxes)
        assert (inner <= after).all()
        assert (after <= outer).all()
        own = len(labelled(sample))
        assert (boxes.labels[:own] == labelled(sample).labels).all()
        filled += len(boxes) - own
        assert (points_in_boxes(cloud, boxes.boxes[own:]).sum(axis=1) >= 4).all()
    assert filled > 60
