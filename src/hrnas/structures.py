"""Typed samples, targets and predictions: what data sets give, tasks train on, metrics score and pictures show.

H height, W width in pixels of the image as it was read.
"""

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

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
    """One labelled image as it was read.

    image: uint8 (H, W, 3), RGB.
    truth: what a task knows about it: of a segmentation the mask, uint8 (H, W), class indices or IGNORED; of a pose a
    Person; of a classification the class index.
    name: unique within its split; used to seed nothing, only to name predictions and errors.
    """

    image: NDArray[np.uint8]
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
