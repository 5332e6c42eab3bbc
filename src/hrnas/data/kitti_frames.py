"""Between a KITTI frame's three frames of reference: the lidar's, the rectified camera's and the image's.

Lidar: x ahead, y left, z up. Camera: x right, y down, z ahead. Image: column, row in pixels. All metres and radians,
float64. P points, M objects.
Source: Geiger et al., "Vision meets Robotics: The KITTI Dataset" (IJRR 2013), section 4.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hrnas.geometry.boxes import EDGES, corners, wrapped
from hrnas.structures import DIFFICULTIES, Boxes3D, Calibration, KittiObjects

NEAREST: Final = 0.1
"""Metres ahead of the camera; what is nearer is not projected."""

Points = NDArray[np.floating[Any]]


def to_camera(points: Points, calibration: Calibration) -> NDArray[np.float64]:
    """Return points (P, 3) of the lidar's frame in the rectified camera's."""
    rotation, shift = _lidar_to_camera(calibration)
    return points[:, :3] @ rotation.T + shift


def to_image(points: Points, calibration: Calibration) -> NDArray[np.float64]:
    """Return where points (P, 3) of the lidar's frame are in the image, (P, 3): column, row, depth.

    Only of points whose depth is above 0 are column and row meaningful.
    """
    return _project(to_camera(points, calibration), calibration)


def in_view(points: Points, calibration: Calibration, image_size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which points (P, 3 or more) of the lidar's frame lie ahead of the camera and within its image, bool (P,).

    image_size: height, width.
    """
    column, row, depth = to_image(points[:, :3], calibration).T
    height, width = image_size
    seen: NDArray[np.bool_] = (depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return seen


def to_lidar(objects: KittiObjects, calibration: Calibration) -> NDArray[np.float64]:
    """Return the objects' boxes in the lidar's frame, (M, 7): x, y, z of the middle, length, width, height, yaw.

    A box stands upright in the camera's frame and, here, in the lidar's, which is tilted against it by about a degree:
    the middle and the direction of the length seen from above stay, the corners move by centimetres. `to_objects` is
    the exact inverse. The row of a DontCare, which has no box, holds nothing to use.
    """
    rotation, shift = _lidar_to_camera(calibration)
    middles = objects.locations - np.array([0.0, 0.5, 0.0]) * objects.sizes[:, :1]
    ahead = np.stack([np.cos(objects.rotations), -np.sin(objects.rotations)], 1)  # (M, 2): x, z of the length
    left = ahead @ _from_above(rotation).T  # (M, 2): x, y
    return np.concatenate(
        [
            np.linalg.solve(rotation, (middles - shift).T).T,
            objects.sizes[:, ::-1],
            np.arctan2(left[:, 1], left[:, 0])[:, None],
        ],
        1,
    )


def boxes_of(objects: KittiObjects, names: Sequence[str], calibration: Calibration) -> Boxes3D:
    """Return the boxes in the lidar's frame of the objects whose type is a class's name, in their order."""
    ours = chosen(objects, np.array([name in names for name in objects.types], np.bool_))
    return Boxes3D(
        boxes=to_lidar(ours, calibration),
        labels=np.array([names.index(name) for name in ours.types], np.int64),
        scores=ours.scores,
    )


def num_scored(objects: KittiObjects, names: Sequence[str]) -> NDArray[np.int64]:
    """Return how many objects of each class count in some difficulty of the benchmark, int64 (K,). names: theirs."""
    heights = np.abs(objects.boxes_2d[:, 3] - objects.boxes_2d[:, 1])
    counted = np.any([known.counts(heights, objects.occluded, objects.truncated) for known in DIFFICULTIES], axis=0)
    types = np.array(objects.types, np.str_)[counted]
    return np.array([(types == name).sum() for name in names], np.int64)


def to_objects(
    boxes: Boxes3D, names: Sequence[str], calibration: Calibration, image_size: tuple[int, int]
) -> KittiObjects:
    """Return boxes of the lidar's frame as KITTI's objects, with their boxes in the image and the angles to the view.

    names: of the classes. image_size: height, width. Truncation and occlusion are not said. Boxes that lie wholly
    behind the camera or outside its image are left out; the others keep their order.
    """
    rotation, shift = _lidar_to_camera(calibration)
    x, y, z, length, width, height, yaw = boxes.boxes.T
    locations = np.stack([x, y, z], 1) @ rotation.T + shift
    locations[:, 1] += height / 2
    ahead = np.linalg.solve(_from_above(rotation), np.stack([np.cos(yaw), np.sin(yaw)]))  # (2, M): x, z
    rotations = np.arctan2(-ahead[1], ahead[0])
    objects = KittiObjects(
        types=tuple(names[label] for label in boxes.labels),
        truncated=np.full(len(boxes), -1.0),
        occluded=np.full(len(boxes), -1, np.int64),
        alphas=wrapped(rotations - np.arctan2(locations[:, 0], locations[:, 2])),
        boxes_2d=np.zeros((len(boxes), 4)),
        sizes=np.stack([height, width, length], 1),
        locations=locations,
        rotations=rotations,
        scores=boxes.scores,
    )
    boxes_2d = projected_boxes(objects, calibration, image_size)
    return chosen(objects, ~np.isnan(boxes_2d[:, 0]), boxes_2d=boxes_2d)


def chosen(
    objects: KittiObjects, mask: NDArray[np.bool_], *, boxes_2d: NDArray[np.float64] | None = None
) -> KittiObjects:
    """Return the objects where the mask, bool (M,), is true; boxes_2d: (M, 4), instead of theirs."""
    return KittiObjects(
        types=tuple(name for name, keep in zip(objects.types, mask, strict=True) if keep),
        truncated=objects.truncated[mask],
        occluded=objects.occluded[mask],
        alphas=objects.alphas[mask],
        boxes_2d=(objects.boxes_2d if boxes_2d is None else boxes_2d)[mask],
        sizes=objects.sizes[mask],
        locations=objects.locations[mask],
        rotations=objects.rotations[mask],
        scores=objects.scores[mask],
    )


def object_corners(objects: KittiObjects) -> NDArray[np.float64]:
    """Return the corners of the objects' boxes in the rectified camera's frame, (M, 8, 3).

    In the order of `geometry.boxes.corners`: the bottom's front left, rear left, rear right and front right, as the
    object itself sees it, then those above them.
    """
    x, y, z = objects.locations.T
    height, width, length = objects.sizes.T
    # With z up, as that function has it: right, ahead, up.
    upright = corners(np.stack([x, z, height / 2 - y, length, width, height, -objects.rotations], 1))
    return upright[..., [0, 2, 1]] * (1, -1, 1)


def projected_boxes(
    objects: KittiObjects, calibration: Calibration, image_size: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the boxes in the image around the objects' boxes in space, (M, 4): left, top, right, bottom.

    Cut to the image, whose last pixel is at width - 1, height - 1, as KITTI's labels are; nan for objects that lie
    wholly behind the camera or outside the image.
    """
    low, high = np.split(uncut_boxes(objects, calibration), 2, 1)
    last = np.array([image_size[1] - 1, image_size[0] - 1], np.float64)
    boxes = np.concatenate([np.clip(low, 0, last), np.clip(high, 0, last)], 1)
    boxes[(high <= 0).any(1) | (low >= last).any(1)] = np.nan
    return boxes


def uncut_boxes(objects: KittiObjects, calibration: Calibration) -> NDArray[np.float64]:
    """Return what `projected_boxes` would be in an image without end, (M, 4); nan for objects behind the camera."""
    ends = edges_in_image(object_corners(objects)[:, np.array(EDGES)], calibration).reshape(-1, 24, 2)
    return np.concatenate([np.fmin.reduce(ends, 1), np.fmax.reduce(ends, 1)], 1)


def edges_in_image(edges: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
    """Return where edges (..., 2, 3), both ends in the rectified camera's frame, are in the image: (..., 2, 2).

    The column and row of both ends; of an edge that reaches behind the camera, those of the part ahead of it; nan where
    there is none. Not cut to the image.
    """
    depth = edges @ calibration.p2[2, :3] + calibration.p2[2, 3]  # (..., 2)
    first, second = depth[..., 0], depth[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (NEAREST - first) / (second - first)  # of the way from the first end at which it meets NEAREST
    start, end = edges[..., 0, :], edges[..., 1, :]
    meeting = start + np.nan_to_num(share, posinf=0, neginf=0)[..., None] * (end - start)
    ends = np.where((depth < NEAREST)[..., None], meeting[..., None, :], edges)
    ends[(first < NEAREST) & (second < NEAREST)] = np.nan
    return _project(ends.reshape(-1, 3), calibration)[:, :2].reshape(*depth.shape, 2)


def _lidar_to_camera(calibration: Calibration) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rotation (3, 3) and the shift (3,) from the lidar's frame to the rectified camera's."""
    moved = calibration.r0_rect @ calibration.tr_velo_to_cam
    return moved[:, :3], moved[:, 3]


def _from_above(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how directions seen from above go from the camera's x, z to the lidar's x, y, (2, 2)."""
    return np.asarray(np.linalg.inv(rotation)[:2, ::2], np.float64)


def _project(points: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
    """Return column, row, depth (P, 3) of points (P, 3) of the rectified camera's frame."""
    projected = points @ calibration.p2[:, :3].T + calibration.p2[:, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        projected[:, :2] /= projected[:, 2:]
    return projected
