"""Between lidar, camera and image: hand-worked places, inverses, and what holds of real labelled frames."""

from functools import cache

import numpy as np
import pytest

from hrnas.data.description import SplitKitti
from hrnas.data.kitti import KittiSet, find_frames
from hrnas.data.kitti_classes import CLASSES, COLORS
from hrnas.data.kitti_files import no_objects
from hrnas.data.kitti_frames import (
    boxes_of,
    chosen,
    in_view,
    object_corners,
    projected_boxes,
    to_camera,
    to_image,
    to_lidar,
    to_objects,
)
from hrnas.geometry.boxes import corners, points_in_boxes
from hrnas.structures import Boxes3D, Calibration, KittiObjects
from kitti_sets import CAR, IMAGE_SIZE, MINI, camera, labelled

NAMES = ("Car", "Pedestrian", "Cyclist")
VEHICLES = ("Car", "Van", "Truck")


def boxes3d(boxes: np.ndarray) -> Boxes3D:
    count = len(boxes)
    return Boxes3D(boxes=boxes, labels=np.arange(count) % 3, scores=np.linspace(0.9, 0.1, count))


def random_boxes(count: int, seed: int, near: float = 6.0) -> np.ndarray:
    """Return boxes ahead of the camera, mostly in its view."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(near, 60, count)
    return np.stack(
        [
            x,
            rng.uniform(-0.6, 0.6, count) * x,
            rng.normal(-0.9, 0.3, count),
            *rng.uniform(0.5, 5, (3, count)),
            rng.uniform(-np.pi, np.pi, count),
        ],
        1,
    )


def plain_camera() -> Calibration:
    """Return a camera at the lidar's place: x ahead is z, y left is -x, z up is -y; 100 pixels of focal length."""
    return Calibration(
        p2=np.array([[100.0, 0, 50, 0], [0, 100, 20, 0], [0, 0, 1, 0]]),
        r0_rect=np.eye(3),
        tr_velo_to_cam=np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0]]),
    )


def test_places_by_hand() -> None:
    points = np.array([[10.0, 0, 0], [10, 1, 0], [10, 0, 1], [-10, 0, 0]])
    assert to_camera(points, plain_camera()).tolist() == [[0, 0, 10], [-1, 0, 10], [0, -1, 10], [0, 0, -10]]
    assert to_image(points, plain_camera())[:3].tolist() == [[50, 20, 10], [40, 20, 10], [50, 10, 10]]
    shifted = Calibration(
        **{**vars(plain_camera()), "p2": plain_camera().p2 + np.array([[0, 0, 0, 50.0]] + [[0] * 4] * 2)}
    )
    assert to_image(points, shifted)[0].tolist() == [55, 20, 10]  # (10 * 50 + 50) / 10


def test_the_view_ends_at_the_images_edges() -> None:
    columns = np.array([-0.01, 0, 99.99, 100, 50, 50, 50, 50, 50])
    rows = np.array([20, 20, 20, 20, -0.01, 0, 39.99, 40, 20])
    depths = np.array([10.0] * 8 + [-10])
    points = np.stack([depths, (50 - columns) * depths / 100, (20 - rows) * depths / 100, np.zeros(9)], 1)
    seen = in_view(points, plain_camera(), (40, 100))
    assert seen.tolist() == [False, True, True, False, False, True, True, False, False]
    assert in_view(np.zeros((0, 4), np.float32), plain_camera(), (40, 100)).shape == (0,)


def test_a_box_by_hand() -> None:
    # A car 20 m ahead, 2 m to the left, its length across the view to the right: rotation_y 0 is yaw -90 degrees.
    box = np.array([[20.0, 2, -0.5, 4, 2, 1.5, -np.pi / 2]])
    found = to_objects(boxes3d(box), NAMES, plain_camera(), (400, 1000))
    assert found.types == ("Car",)
    np.testing.assert_allclose(found.locations, [[-2, 0.5 + 0.75, 20]])
    np.testing.assert_allclose(found.sizes, [[1.5, 2, 4]])
    np.testing.assert_allclose(found.rotations, [0], atol=1e-12)
    np.testing.assert_allclose(found.alphas, [np.arctan2(2, 20)])
    # Its near side is 19 m ahead, from 4 m on the left to the middle, from 0.25 m above the camera to 1.25 m below.
    np.testing.assert_allclose(
        found.boxes_2d, [[50 - 400 / 19, 20 - 25 / 19, 50, 20 + 125 / 19]], rtol=1e-12, atol=1e-12
    )
    assert (found.truncated.tolist(), found.occluded.tolist(), found.scores.tolist()) == ([-1], [-1], [0.9])
    np.testing.assert_allclose(to_lidar(found, plain_camera()), box, atol=1e-12)
    ahead = to_objects(boxes3d(np.array([[20.0, 2, -0.5, 4, 2, 1.5, 0]])), NAMES, plain_camera(), (400, 1000))
    np.testing.assert_allclose(ahead.rotations, [-np.pi / 2])


@pytest.mark.parametrize("tilt", [0.0, 0.01, 0.1])
def test_boxes_go_to_the_camera_and_back(tilt: float) -> None:
    calibration = camera(np.random.default_rng(7), tilt)
    boxes = random_boxes(500, seed=2)
    found = to_objects(boxes3d(boxes), NAMES, calibration, (10_000, 10_000))
    kept = np.round((0.9 - found.scores) / 0.8 * 499).astype(int)
    assert len(kept) > 200
    assert (np.diff(kept) > 0).all()  # in their order
    assert found.types == tuple(NAMES[place % 3] for place in kept)
    np.testing.assert_allclose(to_lidar(found, calibration), boxes[kept], rtol=0, atol=1e-9)
    again = to_objects(
        Boxes3D(boxes=to_lidar(found, calibration), labels=kept % 3, scores=found.scores),
        NAMES,
        calibration,
        (10_000, 10_000),
    )
    for part in ("locations", "rotations", "alphas", "sizes", "boxes_2d"):
        np.testing.assert_allclose(getattr(again, part), getattr(found, part), rtol=0, atol=1e-6)
    assert (np.abs(found.alphas) <= np.pi).all()
    assert (np.abs(found.rotations) <= np.pi).all()


def test_the_yaw_is_that_of_the_length_seen_from_above() -> None:
    """Of a camera that is turned aside and tilted, not of one that looks along x."""
    calibration = camera(np.random.default_rng(11), tilt=0.2)
    found = to_objects(boxes3d(random_boxes(50, seed=6)), NAMES, calibration, (10_000, 10_000))
    in_camera = object_corners(found)
    ahead = in_camera[:, [0, 3]].mean(1) - in_camera[:, [1, 2]].mean(1)  # (M, 3)
    x, y, _ = np.linalg.inv(calibration.r0_rect @ calibration.tr_velo_to_cam[:, :3]) @ ahead.T
    np.testing.assert_allclose(to_lidar(found, calibration)[:, 6], np.arctan2(y, x), atol=1e-9)
    assert np.abs(np.sin(to_lidar(found, calibration)[:, 6] + found.rotations + np.pi / 2)).max() > 0.05


def test_without_a_tilt_the_corners_are_the_boxs_own() -> None:
    calibration = camera()
    boxes = random_boxes(100, seed=3)
    found = to_objects(boxes3d(boxes), NAMES, calibration, (10_000, 10_000))
    kept = np.round((0.9 - found.scores) / 0.8 * 99).astype(int)
    of_lidar = to_camera(corners(boxes[kept]).reshape(-1, 3), calibration).reshape(-1, 8, 3)
    np.testing.assert_allclose(object_corners(found), of_lidar, atol=1e-9)


def test_the_box_in_the_image_is_around_all_of_the_object_ahead_of_the_camera() -> None:
    """Against the projection of many points of the box's surface, those behind the camera left out."""
    calibration = plain_camera()
    rng = np.random.default_rng(5)
    boxes = random_boxes(60, seed=4, near=-1.0)  # many of them reach behind the camera
    boxes[:, 0] = rng.uniform(-3, 6, 60)
    size = (400, 1000)
    found = to_objects(boxes3d(boxes), NAMES, calibration, size)
    kept = set(np.round((0.9 - found.scores) / 0.8 * 59).astype(int).tolist())
    assert 15 < len(kept) < 55
    grid = np.linspace(0, 1, 41)
    first, second = (part.ravel() for part in np.meshgrid(grid, grid))
    place = 0
    for index, box in enumerate(corners(boxes)):
        origin, along, across, up = box[0], box[1] - box[0], box[3] - box[0], box[4] - box[0]
        sides = [
            origin + start * third + first[:, None] * one + second[:, None] * two
            for one, two, third in ((along, across, up), (along, up, across), (across, up, along))
            for start in (0, 1)
        ]
        projected = to_image(np.concatenate(sides), calibration)
        projected = projected[projected[:, 2] >= 0.1, :2]
        last = np.array([size[1] - 1, size[0] - 1])
        is_seen = len(projected) > 0 and (projected.max(0) > 0).all() and (projected.min(0) < last).all()
        if index not in kept:
            assert not is_seen or not ((projected > 0) & (projected < last)).all(1).any()
            continue
        want = np.concatenate([np.clip(projected.min(0), 0, last), np.clip(projected.max(0), 0, last)])
        near = (projected.min(0) < -2 * last).any() or (projected.max(0) > 3 * last).any()
        # Of a box that reaches to the camera the grid ends before it does, in the image by many pixels.
        assert np.abs(found.boxes_2d[place] - want).max() < (60 if near else 12)
        assert (found.boxes_2d[place][:2] <= want[:2] + 1e-9).all()
        assert (found.boxes_2d[place][2:] >= want[2:] - 1e-9).all()
        place += 1


def test_boxes_behind_the_camera_or_outside_its_image_are_left_out() -> None:
    places = ((-12.0, 2, -0.95), (12, 60, -0.95), (12, -60, -0.95), (12, 0, 20), (12, 0, -20))
    boxes = np.array([CAR, *((*place, 3.9, 1.6, 1.56, 0.1) for place in places)])
    found = to_objects(boxes3d(boxes), NAMES, camera(), IMAGE_SIZE)
    assert found.types == ("Car",)
    wide = to_objects(boxes3d(np.array([(3.0, 0, -0.95, 3.9, 8.0, 1.56, 0)])), NAMES, camera(), IMAGE_SIZE)
    assert wide.boxes_2d[0, [0, 2, 3]].tolist() == [0, IMAGE_SIZE[1] - 1, IMAGE_SIZE[0] - 1]  # cut to the image
    nothing = to_objects(boxes3d(np.zeros((0, 7))), NAMES, camera(), IMAGE_SIZE)
    assert (len(nothing), nothing.boxes_2d.shape) == (0, (0, 4))
    assert to_lidar(no_objects(), camera()).shape == (0, 7)


def test_boxes_of_the_classes() -> None:
    calibration = camera(np.random.default_rng(1))
    scene = [
        ("Van", (25.0, -4, -0.7, 5, 1.9, 2.2, 0)),
        ("Pedestrian", (9.0, -1, -0.85, 0.8, 0.6, 1.73, 1.2)),
        ("Car", CAR),
    ]
    found = boxes_of(labelled(scene, calibration), NAMES, calibration)
    assert found.labels.tolist() == [1, 0]
    np.testing.assert_allclose(found.boxes, [scene[1][1], scene[2][1]], atol=1e-9)
    assert len(boxes_of(no_objects(), NAMES, calibration)) == 0


needs_frames = pytest.mark.skipif(
    not MINI.is_dir(), reason="the KITTI frames (../shared/data/kitti_mini) are not on this machine"
)


@cache
def real_set() -> KittiSet:
    frames = find_frames(MINI, SplitKitti(kitti="training"), "train")
    return KittiSet(frames=frames, names=NAMES, colors=COLORS, classes=CLASSES)


def real_objects() -> list[tuple[str, KittiObjects, Calibration, tuple[int, int]]]:
    """Return (frame, its objects without DontCare, calibration, image size)."""
    dataset = real_set()
    found = []
    for index in range(len(dataset)):
        scene = dataset.scene(index)
        objects = chosen(scene.objects, np.array([name != "DontCare" for name in scene.objects.types]))
        found.append((dataset.frames[index].name, objects, scene.calibration, scene.image_size))
    return found


def overlap_2d(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return intersection over union of boxes (M, 4), pair by pair."""
    sides = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    shared = np.clip(sides, 0, None).prod(1)
    return shared / ((first[:, 2:] - first[:, :2]).prod(1) + (second[:, 2:] - second[:, :2]).prod(1) - shared)


@needs_frames
def test_each_real_object_has_points_in_its_box() -> None:
    dataset = real_set()
    seen = 0
    for index, (frame, objects, calibration, _) in enumerate(real_objects()):
        inside = points_in_boxes(dataset.read(index).content, to_lidar(objects, calibration)).sum(1)
        assert (inside > 0).all(), (frame, objects.types, inside)
        seen += len(inside)
        # Where they lie tells a box at its bottom from one at its middle: of large ones they fill the upper half too.
        for box, count in zip(to_lidar(objects, calibration), inside, strict=True):
            if count > 500:
                z = dataset.read(index).content[points_in_boxes(dataset.read(index).content, box[None])[0], 2]
                assert z.max() > box[2] + 0.25 * box[5], frame
                assert z.min() < box[2] - 0.25 * box[5], frame
    assert seen == 38 + 21 + 11 + 3


@needs_frames
def test_real_boxes_meet_their_labels_in_the_image() -> None:
    vehicles, others, least = 0, 0, 1.0
    for frame, objects, calibration, size in real_objects():
        overlaps = overlap_2d(projected_boxes(objects, calibration, size), objects.boxes_2d)
        for name, overlap in zip(objects.types, overlaps, strict=True):
            if name in VEHICLES:
                assert overlap >= 0.935, (frame, name, overlap)
                vehicles += 1
            else:  # the labels of people are drawn around the people, not around their boxes in space
                least = min(least, overlap)
                others += 1
    assert (vehicles, others) == (40, 33)
    assert 0.477 < least < 0.478  # a pedestrian of 000076, partly hidden


@needs_frames
def test_real_objects_go_to_the_lidar_and_back() -> None:
    for frame, objects, calibration, size in real_objects():
        names = sorted(set(objects.types))
        again = to_objects(boxes_of(objects, names, calibration), names, calibration, size)
        assert again.types == objects.types
        for part in ("locations", "rotations", "sizes"):
            np.testing.assert_allclose(getattr(again, part), getattr(objects, part), rtol=0, atol=1e-9)
        turned = again.alphas - objects.alphas
        assert (np.abs(np.arctan2(np.sin(turned), np.cos(turned))) < 0.04).all(), frame  # of labels of two decimals
