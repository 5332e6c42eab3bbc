"""The objects of a split of scenes with the points on them, cut out to be put into other scenes of the split.

Source: Yan et al., "SECOND: Sparsely Embedded Convolutional Detection" (Sensors 2018), section 3.2.3; used by
PointPillars (CVPR 2019), section 3.2.

M objects, P points of all of them together.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hrnas.cache import Arrays, cache_folder, load_arrays, store_arrays
from hrnas.data.kitti import Frame, KittiSet
from hrnas.data.kitti_frames import boxes_of
from hrnas.data.progress import ShowProgress, unseen
from hrnas.errors import InputError
from hrnas.geometry.boxes import points_in_boxes
from hrnas.structures import Sample, Scene

VERSION: Final = 1
"""Part of every file's name: raise it when a change alters what is in a database."""

LEAST_POINTS: Final = 5
"""Objects with fewer say too little of what they are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectDatabase:
    """Objects as they lie in their own scenes, in the lidar's frame, in the order of the scenes.

    points: float32 (P, 4), x, y, z, reflectance; those of an object are together. ends: int64 (M,), the place after an
    object's last point. boxes: float64 (M, 7), as in Boxes3D. labels: int64 (M,), class indices. scenes: int64 (M,),
    the index of the scene in the set.
    """

    points: NDArray[np.float32]
    ends: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    scenes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def points_of(self, index: int) -> NDArray[np.float32]:
        """Return an object's points, (its P, 4)."""
        return self.points[self.ends[index - 1] if index else 0 : self.ends[index]]

    def drawn(self, label: int, count: int, scene: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return `count` different objects of a class, in random order; fewer where there are not so many.

        scene: index of the scene they are for, whose own objects are left out: each is in it once already.
        """
        others = np.flatnonzero((self.labels == label) & (self.scenes != scene))
        return rng.permutation(others)[: max(0, count)]


def open_database(
    dataset: KittiSet, objects: Sequence[int], cache: Path | None = None, progress: ShowProgress = unseen
) -> ObjectDatabase | None:
    """Return the objects of a set from the cache, or cut out of its scenes and put there; None where none is wanted.

    objects: how many a scene is filled up to, a number a class, or none at all. Reading all scenes takes a while; the
    cache's file is found again as long as no file of the set has another name, size or time of change. progress: shows
    how far it is.
    """
    assert len(objects) in (0, len(dataset.classes)), "the task sees to that"
    if not any(objects):
        return None
    file = (cache or cache_folder()) / f"objects-v{VERSION}-{_digest(dataset)}.npz"
    arrays = load_arrays(file)
    if not _is_whole(arrays, dataset):
        arrays = _cut_out(dataset, progress)
        store_arrays(file, arrays)
    return ObjectDatabase(**arrays)


def _digest(dataset: KittiSet) -> str:
    """Return what stands for the state of a set's files and for its classes. Raises InputError for a file not there."""
    state = hashlib.sha256(repr(dataset.names).encode())
    for frame in dataset.frames:
        for path in _files(frame):
            try:
                status = os.stat(path)
            except OSError as error:
                raise InputError(
                    f"{path}, a file of training frame {frame.name}, cannot be found any more ({error.strerror})."
                    " Restore it, or take the frame out of the split."
                ) from None
            state.update(f"\n{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}".encode())
    return state.hexdigest()[:32]


def _files(frame: Frame) -> list[Path]:
    """Return the files that say where an object is and which points the camera sees."""
    given = (frame.points, frame.calibration, frame.labels, frame.image, frame.size_of)
    return [path for path in given if path is not None]


def _cut_out(dataset: KittiSet, progress: ShowProgress) -> Arrays:
    """Return the fields of the database of a set's objects, read scene by scene."""
    found: dict[str, list[NDArray[Any]]] = {field.name: [] for field in fields(ObjectDatabase)}
    for index, sample in _read(dataset, progress):
        known = boxes_of(sample.truth.objects, dataset.names, sample.truth.calibration)
        for box, label, inside in zip(
            known.boxes, known.labels, points_in_boxes(sample.content, known.boxes), strict=True
        ):  # fmt: skip
            if inside.sum() >= LEAST_POINTS:
                found["points"].append(sample.content[inside])
                found["ends"].append(inside.sum(keepdims=True))
                found["boxes"].append(box[None])
                found["labels"].append(label[None])
                found["scenes"].append(np.array([index]))
    empty = {"points": np.zeros((0, 4), np.float32), "boxes": np.zeros((0, 7))}
    arrays = {name: np.concatenate([empty.get(name, np.zeros(0, np.int64)), *parts]) for name, parts in found.items()}
    return {**arrays, "ends": np.cumsum(arrays["ends"])}


def _read(dataset: KittiSet, progress: ShowProgress) -> Iterator[tuple[int, Sample[Scene]]]:
    with progress("Cutting objects out of the training scenes", len(dataset)) as show:
        for index in range(len(dataset)):
            yield index, dataset.read(index)
            show(index + 1)


def _is_whole(arrays: Arrays, dataset: KittiSet) -> bool:
    """Return whether arrays of the cache are the fields of a database of a set."""
    if set(arrays) != {field.name for field in fields(ObjectDatabase)}:
        return False
    count = len(arrays["labels"])
    shapes = {"points": (len(arrays["points"]), 4), "boxes": (count, 7)}
    kinds = {"points": np.float32, "boxes": np.float64}
    return (
        all(array.shape == shapes.get(name, (count,)) for name, array in arrays.items())
        and all(array.dtype == kinds.get(name, np.int64) for name, array in arrays.items())
        and bool((np.diff(arrays["ends"], prepend=0) >= LEAST_POINTS).all())
        and (arrays["ends"][-1] if count else 0) == len(arrays["points"])
        and all(bool(((array >= 0) & (array < most)).all()) for array, most in
                ((arrays["labels"], len(dataset.classes)), (arrays["scenes"], len(dataset))))
    )  # fmt: skip
