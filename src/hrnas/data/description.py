"""A data set as typed data: which files make up each split, what their labels mean, names of classes or joints."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from hrnas.data.box_fields import box_fields
from hrnas.data.pictures import RGB
from hrnas.data.pose_fields import GivenJoints, skeleton_fields
from hrnas.structures import BoxClass, Skeleton

Split = Literal["train", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)


@dataclass(frozen=True, kw_only=True)
class SplitFolders:
    """A split kept as two folders; images and masks are paired by their stems. Paths are relative to `path`.

    image_suffix, label_suffix: ends of the stems that are no part of the name; other files are passed over.
    """

    images: str
    labels: str
    image_suffix: str | None = None
    label_suffix: str | None = None


@dataclass(frozen=True, kw_only=True)
class SplitList:
    """A split kept as a text file of "image mask" lines. Paths are relative to `path`."""

    list: str


@dataclass(frozen=True, kw_only=True)
class SplitKeypoints:
    """A split of people: a COCO keypoint file and a folder of images; boxes: a detector's results, else the file's."""

    coco: str
    images: str
    boxes: str | None = None


@dataclass(frozen=True, kw_only=True)
class SplitClasses:
    """A split kept as a folder that holds a folder of images for each class. Relative to `path`."""

    images: str


@dataclass(frozen=True, kw_only=True)
class SplitKitti:
    """A split in KITTI's layout: a folder with velodyne, calib and label_2, and a file of the frames' names.

    list: None for all frames of the folder. Relative to `path`.
    """

    kitti: str
    list: str | None = None


SplitSource = SplitFolders | SplitList | SplitKeypoints | SplitClasses | SplitKitti


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """How the built-in Toy City is rendered. size: (H, W); length: samples per split, the set's own where absent."""

    size: tuple[int, int]
    length: Mapping[Split, int]
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class DataDescription:
    """A data set, described (`data_yaml`) but not opened (`opening.open_split`).

    task: what the labels are.
    dataset: the known set this is, or None for the user's own files.
    path: absolute folder that split paths are relative to; None for a set that needs no files.
    splits: where each split's files are; a split may be absent. Empty for a set that needs no files.
    names: one per class or joint; the index is the class's or joint's.
    colors: one (r, g, b) in 0..255 per name, for pictures.
    ignore: of masks: file values that are void; they become structures.IGNORED.
    label_map: of masks: file value -> class index, None = void; None as a whole: file values are class indices.
    skeleton: of a pose set. folders: of a classification set, the classes' folders.
    classes: of a set with boxes in space, named as `names`.
    toycity: how to render it, when dataset is "toycity".
    given: what was said of the joints of a set that is not complete yet.
    """

    task: str
    dataset: str | None = None
    path: Path | None = None
    splits: Mapping[Split, SplitSource] = field(default_factory=dict)
    names: tuple[str, ...]
    colors: tuple[RGB, ...]
    ignore: tuple[int, ...] = ()
    label_map: Mapping[int, int | None] | None = None
    skeleton: Skeleton | None = None
    folders: tuple[str, ...] = ()
    classes: tuple[BoxClass, ...] = ()
    toycity: Rendering | None = None
    given: GivenJoints = field(default_factory=GivenJoints)

    @property
    def split_names(self) -> tuple[Split, ...]:
        """The splits that can be opened, in the order train, validation, test."""
        return SPLITS if self.toycity else tuple(name for name in SPLITS if name in self.splits)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values with the path made absolute: itself a valid data.yaml; `parse_description` reads it."""
        plain: dict[str, Any] = {"task": self.task}
        if self.dataset is not None:
            plain["dataset"] = self.dataset
        if self.toycity is not None:
            return plain | {
                "size": list(self.toycity.size),
                "length": dict(self.toycity.length),
                "seed": self.toycity.seed,
            }
        plain["path"] = str(self.path)
        if self.dataset is not None and self.task in ("segmentation", "detection3d"):
            return plain
        plain |= {
            name: {key: value for key, value in vars(self.splits[name]).items() if value is not None}
            for name in self.split_names
        }
        if self.skeleton is not None:
            return plain | skeleton_fields(self.skeleton)
        if self.task == "classification":
            return plain | {"names": dict(zip(self.folders, self.names, strict=True))}
        if self.classes:
            return plain | box_fields(self.classes)
        plain |= {
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "ignore": list(self.ignore),
        }
        if self.label_map is not None:
            plain["label_map"] = dict(self.label_map)
        return plain
