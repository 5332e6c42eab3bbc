"""Opening a split of a described data set; the contract every set keeps."""

from typing import Any, Protocol

from hrnas.data.class_folders import ClassSet, find_images
from hrnas.data.coco_keypoints import open_keypoints
from hrnas.data.decoding import LabelTable, picture_size
from hrnas.data.description import DataDescription, Split, SplitClasses, SplitKeypoints, SplitKitti
from hrnas.data.folders import FolderSet, check_pair, find_pairs
from hrnas.data.kitti import KittiSet, find_frames
from hrnas.data.pictures import RGB
from hrnas.data.progress import ShowProgress, unseen
from hrnas.data.toycity.crops import ToyCityCrops
from hrnas.data.toycity.dataset import ToyCity
from hrnas.data.toycity.drive_sets import open_toycity_scenes
from hrnas.data.toycity.people import ToyCityPeople
from hrnas.errors import InputError, did_you_mean
from hrnas.structures import Sample


class DataSet(Protocol):
    """One split: labelled samples that can be read in any order, also in another process (it is pickled to there)."""

    @property
    def names(self) -> tuple[str, ...]:
        """One per class or joint; the index is the class's or joint's."""

    @property
    def colors(self) -> tuple[RGB, ...]:
        """One (r, g, b) in 0..255 per name."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Sample[Any]:
        """Return a sample; sizes of images may differ between samples."""

    def pictures(self) -> dict[str, list[int]]:
        """Return the samples of each picture by its name, in order: of a pose the persons in it, otherwise one."""


def open_split(description: DataDescription, split: Split, progress: ShowProgress = unseen) -> DataSet:
    """Open a split after checking, from file names, sizes and headers alone, that every image has its labels.

    progress: shows how far it is where a split must be made first and that takes long.
    Raises InputError: unknown or absent split, empty split, missing mask or image, sizes that differ, unreadable file.
    """
    check_split(description, split)
    if description.toycity is not None:
        toy = description.toycity
        if description.task == "detection3d":
            return open_toycity_scenes(split, length=toy.length.get(split), seed=toy.seed, progress=progress)
        kind = {"segmentation": ToyCity, "pose": ToyCityPeople, "classification": ToyCityCrops}[description.task]
        return kind(split, size=toy.size, length=toy.length.get(split), seed=toy.seed)
    assert description.path is not None, "only Toy City needs no files"
    source = description.splits.get(split)
    if isinstance(source, SplitKeypoints):
        return open_keypoints(
            description.path / source.coco,
            description.path / source.images,
            skeleton=description.skeleton,
            boxes=None if source.boxes is None else description.path / source.boxes,
        )
    if isinstance(source, SplitClasses):
        images = find_images(description.path / source.images, description.folders, split)
        for file, _, _ in images:
            picture_size(file, "Image")
        return ClassSet(images=images, names=description.names, colors=description.colors)
    if isinstance(source, SplitKitti):
        return KittiSet(
            frames=find_frames(description.path, source, split),
            names=description.names,
            colors=description.colors,
            classes=description.classes,
        )
    pairing = find_pairs(description, split)
    if pairing.missing:
        count = len(pairing.missing)
        others = f" and {count - 1} more image{'s' * (count > 2)}" if count > 1 else ""
        raise InputError(
            f"Image {pairing.missing[0]}{others} of split '{split}' ha{'s' if count == 1 else 've'} no mask. Add a mask"
            " of the same stem (or stem plus one suffix for all), or take the image out of the split."
        )
    for pair in pairing.pairs:
        check_pair(pair)
    return FolderSet(
        pairs=pairing.pairs, names=description.names, colors=description.colors, labels=label_table(description)
    )


def is_in_memory(description: DataDescription) -> bool:
    """Return whether an opened split has its samples in memory: Toy City's, but for its drives, which are files."""
    return description.toycity is not None and description.task != "detection3d"


def label_table(description: DataDescription) -> LabelTable:
    """Return what the label values of the description's mask files mean."""
    return LabelTable.build(len(description.names), description.ignore, description.label_map)


def check_split(description: DataDescription, split: str) -> None:
    """Raise InputError for a split that the description does not have."""
    if split not in description.split_names:
        raise InputError(
            f"The data description has no split '{split}'. {did_you_mean(split, description.split_names)} Name one of"
            " these, or add it to data.yaml."
        )
