"""Small scenes and sets of them in KITTI's layout: boxes with points in them, each point with its own reflectance."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hrnas.data.description import SplitKitti
from hrnas.data.kitti import IMAGE_SIZE, KittiSet, find_frames
from hrnas.data.kitti_classes import CLASSES, COLORS
from hrnas.data.kitti_files import no_objects, write_calibration, write_objects, write_points
from hrnas.data.kitti_frames import to_objects
from hrnas.structures import Boxes3D, Calibration, Sample, Scene

NAMES = tuple(known.name for known in CLASSES)
SIZE = IMAGE_SIZE
CAMERA = Calibration(
    p2=np.array([[700.0, 0, 620, 40], [0, 700, 180, 0.2], [0, 0, 1, 0.003]]),
    r0_rect=np.eye(3),
    tr_velo_to_cam=np.array([[0, -1.0, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27]]),
)
"""As KITTI's, but that the lidar is not tilted."""

CAR = (12.0, 1.0, -0.95, 3.9, 1.6, 1.56, 0.3)
OTHER_CAR = (25.0, -6.0, -0.95, 4.2, 1.7, 1.5, -2.0)
WALKER = (15.0, -4.0, -0.87, 0.8, 0.6, 1.73, 1.2)
CYCLIST = (20.0, 5.0, -0.87, 1.76, 0.6, 1.73, 2.9)
VAN = (30.0, 8.0, -0.7, 5.0, 2.0, 2.0, 0.0)


def boxes3d(*boxes: Sequence[float], labels: Sequence[int] | None = None) -> Boxes3D:
    """Return labelled boxes, cars if not told otherwise."""
    count = len(boxes)
    return Boxes3D(
        boxes=np.array(boxes, float).reshape(-1, 7),
        labels=np.array([0] * count if labels is None else labels, np.int64),
        scores=np.ones(count),
    )


def points_on(box: Sequence[float], count: int, rng: np.random.Generator, first: float) -> np.ndarray:
    """Return points float32 (count, 4) in a box, well away from its faces; reflectances count from `first`."""
    return points_at(box, rng.uniform(-0.45, 0.45, (count, 3)), first)


def points_at(box: Sequence[float], shares: np.ndarray, first: float) -> np.ndarray:
    """Return points (P, 4) at shares (P, 3) of a box's length, width and height ahead, left and up of its middle."""
    x, y, z, length, width, height, yaw = box
    along, across, up = (shares * (length, width, height)).T
    cosine, sine = np.cos(yaw), np.sin(yaw)
    places = [x + cosine * along - sine * across, y + sine * along + cosine * across, z + up]
    return np.stack([*places, first + np.arange(len(shares)) / 1024], 1).astype(np.float32)


def ground(count: int, rng: np.random.Generator, first: float) -> np.ndarray:
    """Return points float32 (count, 4) ahead, below all boxes; reflectances count from `first`."""
    places = rng.uniform((6, -8, -1.85), (40, 8, -1.75), (count, 3))
    return np.concatenate([places, first + np.arange(count)[:, None] / 1024], 1).astype(np.float32)


def scene(
    objects: Mapping[tuple[float, ...], str], *, index: int = 0, points: int = 30, seed: int = 0
) -> Sample[Scene]:
    """Return a sample with objects of these types, each with points in its box, and as many on the ground.

    The object at place i has reflectances from i + 1 on, the ground those from 0 on.
    """
    rng = np.random.default_rng(seed)
    clouds = [points_on(box, points, rng, place + 1.0) for place, box in enumerate(objects)]
    types = list(objects.values())
    boxes = boxes3d(*objects, labels=list(range(len(types))))
    found = to_objects(boxes, types, CAMERA, SIZE) if objects else no_objects()
    assert len(found) == len(objects), "one lies outside the image"
    return Sample(
        content=np.concatenate([ground(points, rng, 0.0), *clouds]),
        truth=Scene(objects=found, calibration=CAMERA, image_size=SIZE, image=None, index=index),
        name=f"{index:06d}",
    )


def without_objects(sample: Sample[Scene]) -> Sample[Scene]:
    """Return a sample without labels and without points."""
    return replace(sample, content=sample.content[:0], truth=replace(sample.truth, objects=no_objects()))


def write_set(root: Path, samples: Sequence[Sample[Scene]]) -> KittiSet:
    """Write samples in KITTI's layout and open them."""
    for part in ("velodyne", "calib", "label_2"):
        (root / part).mkdir(parents=True, exist_ok=True)
    for sample in samples:
        write_points(root / "velodyne" / f"{sample.name}.bin", sample.content)
        write_calibration(root / "calib" / f"{sample.name}.txt", sample.truth.calibration)
        write_objects(root / "label_2" / f"{sample.name}.txt", sample.truth.objects)
    return open_set(root)


def open_set(root: Path) -> KittiSet:
    """Open a set that `write_set` wrote."""
    frames = find_frames(root.parent, SplitKitti(kitti=root.name, list=None), "train")
    return KittiSet(frames=frames, names=NAMES, colors=COLORS, classes=CLASSES)
