"""Which detections overlap which labelled objects: what KITTI's matching starts from, over all frames of a set.

F frames, M objects, L of them labelled, D detected, Q pairs of a labelled object and a detection of one frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hrnas.geometry.overlaps import iou_3d, iou_bev
from hrnas.structures import KittiObjects

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class JoinedFrames:
    """The objects of all frames, one frame after the other, each in its file's order.

    types: (M,), in lower case, as KITTI compares them. frames: int64 (M,). begins: int64 (F + 1,), the first object of
    each frame, then M. truncated, occluded, alphas, boxes_2d, scores: as KittiObjects has them. heights: of boxes_2d.
    boxes: float64 (M, 7), x, y, z of the middle, length, width, height, yaw, in a frame with the camera's x, the
    camera's z (ahead) as y, and z up; negative sizes, which stand for unknown ones, are 0.
    """

    types: NDArray[np.str_]
    frames: Indices
    begins: Indices
    truncated: Array
    occluded: Indices
    alphas: Array
    boxes_2d: Array
    heights: Array
    scores: Array
    boxes: Array

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """labels, detections: int64 (Q,), indices among the L and D of the set; overlaps: float64 (Q,)."""

    labels: Indices
    detections: Indices
    overlaps: Array

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: Flags | Indices) -> "Pairs":
        return Pairs(labels=self.labels[chosen], detections=self.detections[chosen], overlaps=self.overlaps[chosen])


def joined(frames: Sequence[KittiObjects]) -> JoinedFrames:
    """Return the objects of all frames as arrays."""
    lengths = [len(objects) for objects in frames]
    boxes_2d = np.concatenate([np.zeros((0, 4)), *(objects.boxes_2d for objects in frames)])
    sizes = np.concatenate([np.zeros((0, 3)), *(objects.sizes for objects in frames)])
    height, width, length = sizes.clip(min=0).T
    x, y, z = np.concatenate([np.zeros((0, 3)), *(objects.locations for objects in frames)]).T
    rotations = np.concatenate([np.zeros(0), *(objects.rotations for objects in frames)])
    return JoinedFrames(
        types=np.array([name.lower() for objects in frames for name in objects.types], np.str_),
        frames=np.repeat(np.arange(len(frames)), lengths),
        begins=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        truncated=np.concatenate([np.zeros(0), *(objects.truncated for objects in frames)]),
        occluded=np.concatenate([np.zeros(0, np.int64), *(objects.occluded for objects in frames)]),
        alphas=np.concatenate([np.zeros(0), *(objects.alphas for objects in frames)]),
        boxes_2d=boxes_2d,
        heights=np.abs(boxes_2d[:, 3] - boxes_2d[:, 1]),
        scores=np.concatenate([np.zeros(0), *(objects.scores for objects in frames)]),
        # The camera's y points down and is that of the bottom; about it one turns from x away from z.
        boxes=np.stack([x, z, height / 2 - y, length, width, height, -rotations], axis=1),
    )


def overlapping(truths: JoinedFrames, found: JoinedFrames, wanted: Flags, above: float) -> dict[str, Pairs]:
    """Return the pairs of a wanted labelled object (L,) and a detection whose intersection over union is above.

    By measure: "2d" in the image, "bev" in the camera's x-z plane, "3d" of that area times the overlap in y. A box of
    unknown size or of none overlaps nothing.
    """
    none = Pairs(labels=np.zeros(0, np.int64), detections=np.zeros(0, np.int64), overlaps=np.zeros(0))
    parts = {"2d": [none], "bev": [none], "3d": [none]}
    label_boxes, boxes = torch.from_numpy(truths.boxes), torch.from_numpy(found.boxes)
    for frame in range(len(truths.begins) - 1):
        first, last = truths.begins[frame : frame + 2]
        start, stop = found.begins[frame : frame + 2]
        labels = first + np.flatnonzero(wanted[first:last])
        if len(labels) == 0 or start == stop:
            continue
        for measure, overlaps in (
            ("2d", _iou_2d(truths.boxes_2d[labels], found.boxes_2d[start:stop])),
            ("bev", iou_bev(label_boxes[labels], boxes[start:stop]).numpy()),
            ("3d", iou_3d(label_boxes[labels], boxes[start:stop]).numpy()),
        ):
            rows, columns = np.nonzero(overlaps > above)
            parts[measure].append(
                Pairs(labels=labels[rows], detections=start + columns, overlaps=overlaps[rows, columns])
            )
    return {
        measure: Pairs(
            labels=np.concatenate([pairs.labels for pairs in of_frames]),
            detections=np.concatenate([pairs.detections for pairs in of_frames]),
            overlaps=np.concatenate([pairs.overlaps for pairs in of_frames]),
        )
        for measure, of_frames in parts.items()
    }


def dont_care_shares(truths: JoinedFrames, found: JoinedFrames) -> Array:
    """Return the largest share of each detection's own 2D box (D,) that one DontCare area of its frame covers."""
    shares = np.zeros(len(found))
    areas = _areas(found.boxes_2d)
    for place in np.flatnonzero(truths.types == "dontcare"):
        frame = truths.frames[place]
        here = slice(found.begins[frame], found.begins[frame + 1])
        covered = _shared_2d(truths.boxes_2d[place : place + 1], found.boxes_2d[here])[0]
        share = np.divide(covered, areas[here], out=np.zeros_like(covered), where=covered > 0)
        shares[here] = np.maximum(shares[here], share)
    return shares


def _areas(boxes: Array) -> Array:
    areas: Array = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas


def _shared_2d(a: Array, b: Array) -> Array:
    """Return the area (M, N) that boxes a (M, 4) and b (N, 4) share; sides are differences, without a pixel more."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared: Array = (high - low).clip(min=0).prod(axis=2)
    return shared


def _iou_2d(a: Array, b: Array) -> Array:
    shared = _shared_2d(a, b)
    union = _areas(a)[:, None] + _areas(b)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
