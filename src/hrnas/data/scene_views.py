"""Views of scenes in space: a cloud and its boxes mirrored, turned, scaled and filled up with objects of other scenes.

Source: method.md, row KITTI; PointPillars (CVPR 2019), section 3.2, and SECOND (Sensors 2018), sections 3.2.3 and
3.2.4, whose ranges these are. Not done is what they do beside: to move and turn each object alone.

P points of a cloud, M boxes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from hrnas.data.kitti_files import NOT_AN_OBJECT
from hrnas.data.kitti_frames import boxes_of, to_lidar
from hrnas.data.object_database import ObjectDatabase
from hrnas.data.transforms import AugmentOptions
from hrnas.geometry.boxes import points_in_boxes, wrapped
from hrnas.geometry.overlaps import intersection_bev
from hrnas.structures import BoxClass, Boxes3D, Sample, Scene

SCENES: Final[Mapping[str, Any]] = {"scale": (0.95, 1.05), "flip": 0.5, "rotation": 45.0, "objects": (15, 10, 10)}
"""What the training view of a scene uses, with its defaults for KITTI's classes."""

Cloud = NDArray[np.float32]
Array = NDArray[np.float64]


def usual_objects(classes: Sequence[BoxClass]) -> tuple[int, ...]:
    """Return how many objects of each class a scene is filled up to if not told otherwise: of the first the most."""
    first, *_, other = SCENES["objects"]
    return (first, *[other] * len(classes))[: len(classes)]


def evaluation_cloud(sample: Sample[Scene]) -> Cloud:
    """Return what evaluation sees of a scene: the cloud (P, 4) as it was read."""
    return np.ascontiguousarray(sample.content, np.float32)


def training_cloud(
    sample: Sample[Scene],
    options: AugmentOptions,
    classes: Sequence[BoxClass],
    rng: np.random.Generator,
    database: ObjectDatabase | None,
) -> tuple[Cloud, Boxes3D]:
    """Return a random view of a scene: its points in random order, float32 (P, 4), and the boxes of its classes.

    options: settled. First objects of the database (see `open_database`) are put where they lay in their own scenes,
    of each class until there are options.objects of it, or until those drawn are used up: one that would overlap a
    box, seen from above, is left out. Then all is mirrored (y to -y), turned about z and scaled about the lidar.
    """
    assert options.scale is not None
    assert options.flip is not None
    assert options.rotation is not None
    # Before what depends on options.objects, so that one option's value does not change what the others draw.
    mirrored, turned, scaled = rng.random(3)
    scene = sample.truth
    boxes = boxes_of(scene.objects, [known.name for known in classes], scene.calibration)
    cloud = np.asarray(sample.content, np.float32)
    if database is not None and options.objects:
        cloud, boxes = _filled_up(cloud, boxes, scene, database, options.objects, rng)
    cloud = cloud[rng.permutation(len(cloud))]  # a copy: the set may share its clouds

    flip = mirrored < options.flip
    angle = np.deg2rad(options.rotation) * (2 * turned - 1)
    least, most = options.scale
    scale = least + (most - least) * scaled
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    ground = np.array([[cosine, -sine], [sine, cosine]]) * ([1, -1] if flip else [1, 1])  # x, y to their new place
    cloud[:, :2] = cloud[:, :2] @ ground.T.astype(np.float32)
    cloud[:, 2] *= np.float32(scale)
    moved = boxes.boxes * scale
    moved[:, :2] = boxes.boxes[:, :2] @ ground.T
    moved[:, 6] = wrapped(angle + (-boxes.boxes[:, 6] if flip else boxes.boxes[:, 6]))
    return cloud, Boxes3D(boxes=moved, labels=boxes.labels, scores=boxes.scores)


def _filled_up(
    cloud: Cloud,
    boxes: Boxes3D,
    scene: Scene,
    database: ObjectDatabase,
    most: Sequence[int],
    rng: np.random.Generator,
) -> tuple[Cloud, Boxes3D]:
    """Return a cloud (P, 4) and its boxes with objects of other scenes, up to `most` of each class."""
    there = np.bincount(boxes.labels, minlength=len(most))
    drawn = np.concatenate(
        [database.drawn(label, count - there[label], scene.index, rng) for label, count in enumerate(most)]
    )
    is_object = np.array([name != NOT_AN_OBJECT for name in scene.objects.types], bool)
    has_box = is_object & (scene.objects.sizes > 0).all(axis=1)
    present = to_lidar(scene.objects, scene.calibration)[has_box]  # of whatever class
    chosen = drawn[_without_overlap(database.boxes[drawn], present)]
    pasted = database.boxes[chosen]
    kept = ~points_in_boxes(cloud, pasted).any(axis=0)
    return (
        np.concatenate([cloud[kept], *(database.points_of(index) for index in chosen)]),
        Boxes3D(
            boxes=np.concatenate([boxes.boxes, pasted]),
            labels=np.concatenate([boxes.labels, database.labels[chosen]]),
            scores=np.concatenate([boxes.scores, np.ones(len(chosen))]),
        ),
    )


def _without_overlap(boxes: Array, present: Array) -> list[int]:
    """Return which of the boxes (M, 7), taken one after the other, overlap none that is present or was taken before."""
    every = np.concatenate([present, boxes])
    shared = intersection_bev(torch.from_numpy(boxes), torch.from_numpy(every)).numpy() > 0  # (M, present and M)
    taken: list[int] = []
    for place, row in enumerate(shared):
        if not row[: len(present)].any() and not row[[len(present) + other for other in taken]].any():
            taken.append(place)
    return taken
