"""Typed samples, targets and predictions: what data sets give, tasks train on, metrics score and pictures show.

H height, W width in pixels of the image as it was read; P points of a cloud, M boxes or objects.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from hrnas.errors import InputError

IGNORED: Final = 255
"""The class index of a pixel that takes no part in the loss or in a metric, whatever value the file used for it."""


T = TypeVar("T")

Mask = NDArray[np.uint8]
"""(H, W): class indices 0..K-1, or IGNORED."""


@dataclass(frozen=True, kw_only=True)
class Sample(Generic[T]):
    """One labelled image, or point cloud, as it was read.

    content: an image, uint8 (H, W, 3) RGB, or a point cloud, float32 (P, 4): x, y, z in the lidar's frame in metres,
    and the reflectance, 0..1.
    truth: what a task knows about it: of a segmentation the mask, uint8 (H, W), class indices or IGNORED; of a pose a
    Person; of a classification the class index; of a detection in space a Scene.
    name: unique within its split; used to seed nothing, only to name predictions and errors.
    """

    content: NDArray[Any]
    truth: T
    name: str


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """What a set's joints are. K joints.

    names: of the joints. flip_pairs: joints that change places in a mirror image. bones: joints that a drawing joins.
    sigmas: of the object keypoint similarity, one a joint; COCO's falloff, as pycocotools has it.
    Raises InputError for a joint named twice or in two flip pairs.
    """

    names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    bones: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        paired = [self.names[place] for pair in self.flip_pairs for place in pair]
        for what, names in (("names", list(self.names)), ("flip_pairs", paired)):
            if twice := [name for name in names if names.count(name) > 1]:
                remedy = "Give each joint one partner" if what == "flip_pairs" else "Name each joint once"
                raise InputError(f"{what} has the joint '{twice[0]}' twice. {remedy}.")
        assert len(self.sigmas) == len(self.names), "one sigma a joint"


@dataclass(frozen=True, kw_only=True)
class Person:
    """One person of a picture: a box, and the joints where they are labelled.

    box: x, y, width, height in pixels of the image, the left upper corner of the first pixel at 0.
    joints: float32 (K, 3): x, y, visibility (0 not labelled, 1 hidden, 2 visible); all zero without labels.
    area: of the person in pixels; None where the set has none.
    annotation_id: None for a detector's box. score: of the box; 1 for a labelled one.
    index: of the sample in its set.
    """

    box: tuple[float, float, float, float]
    joints: NDArray[np.float32]
    area: float | None
    image_id: int
    annotation_id: int | None
    score: float
    index: int


@dataclass(frozen=True, kw_only=True)
class BoxClass:
    """A class of objects with boxes in space.

    name: its type in the label files. size: length, width and height of a usual one, in metres. z: of the middle of a
    usual one in the lidar's frame. overlap: intersection over union from which on a box counts as found, by the metric.
    neighbours: types that are neither found nor missed when they are taken for it.
    """

    name: str
    size: tuple[float, float, float]
    z: float
    overlap: float
    neighbours: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class KittiObjects:
    """The objects of one frame, labelled or predicted, as KITTI's files have them: M of them, in the file's order.

    types: "Car", "DontCare", ...
    truncated: float64 (M,), the share of it outside the image, 0..1; -1 unknown.
    occluded: int64 (M,): 0 seen in full, 1 partly, 2 largely hidden, 3 unknown; -1 not said.
    alphas: float64 (M,), the angle it is seen under, in radians; -10 not said.
    boxes_2d: float64 (M, 4): left, top, right, bottom in pixels of the image.
    sizes: float64 (M, 3): height, width, length in metres.
    locations: float64 (M, 3): the middle of its bottom in the camera's frame (x right, y down, z ahead), in metres.
    rotations: float64 (M,), about the camera's y axis, in radians; 0: the length lies along +x, pi / 2: along -z.
    scores: float64 (M,); 1 in labels.
    """

    types: tuple[str, ...]
    truncated: NDArray[np.float64]
    occluded: NDArray[np.int64]
    alphas: NDArray[np.float64]
    boxes_2d: NDArray[np.float64]
    sizes: NDArray[np.float64]
    locations: NDArray[np.float64]
    rotations: NDArray[np.float64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.types)


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """Which labelled objects KITTI counts: height in pixels above least_height, occlusion, truncation up to most_*."""

    name: str
    least_height: float
    most_occluded: int
    most_truncated: float

    def counts(
        self, heights: NDArray[np.float64], occluded: NDArray[np.int64], truncated: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Return which objects count, bool (M,), by their 2D boxes' heights, occlusion and truncation, each (M,)."""
        counted: NDArray[np.bool_] = (
            (heights > self.least_height) & (occluded <= self.most_occluded) & (truncated <= self.most_truncated)
        )
        return counted


DIFFICULTIES: Final = (
    Difficulty(name="easy", least_height=40, most_occluded=0, most_truncated=0.15),
    Difficulty(name="moderate", least_height=25, most_occluded=1, most_truncated=0.3),
    Difficulty(name="hard", least_height=25, most_occluded=2, most_truncated=0.5),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """From the lidar to the camera and on to its image, in KITTI's names for it.

    p2: float64 (3, 4), the rectified camera's frame to homogeneous pixels. r0_rect: (3, 3), rectifies the camera's
    frame. tr_velo_to_cam: (3, 4), the lidar's frame (x ahead, y left, z up) to the camera's.
    """

    p2: NDArray[np.float64]
    r0_rect: NDArray[np.float64]
    tr_velo_to_cam: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """What is known of a point cloud.

    objects: labelled ones; none where the cloud has no labels. image_size: height and width of the camera's image.
    image: its file, None where there is none. index: of the sample in its set. is_empty: the cloud has no point.
    """

    objects: KittiObjects
    calibration: Calibration
    image_size: tuple[int, int]
    image: Path | None
    index: int
    is_empty: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Boxes3D:
    """Boxes in the lidar's frame (x ahead, y left, z up).

    boxes: float64 (M, 7): x, y, z of the middle, length, width, height in metres, yaw: the angle of the length from +x
    towards +y, in radians. labels: int64 (M,), class indices. scores: float64 (M,); 1 of labelled ones.
    """

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)
