"""Opening a split of a described data set; the contract every segmentation set keeps."""

from typing import Protocol

from hrnas.data.decoding import LabelTable
from hrnas.data.description import DataDescription, Split
from hrnas.data.folders import FolderSet, check_pair, find_pairs
from hrnas.data.pictures import RGB
from hrnas.data.toycity.dataset import ToyCity
from hrnas.errors import InputError, did_you_mean
from hrnas.structures import Sample


class SegmentationSet(Protocol):
    """One split: labelled images that can be read in any order, also in another process (it is pickled to there)."""

    @property
    def names(self) -> tuple[str, ...]:
        """One per class; the index is the class index."""

    @property
    def colors(self) -> tuple[RGB, ...]:
        """One (r, g, b) in 0..255 per class."""

    @property
    def num_classes(self) -> int:
        """Number of classes, void not counted."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Sample:
        """Return image uint8 (H, W, 3) and mask uint8 (H, W); sizes may differ between samples."""


class ToyCitySet:
    """The built-in Toy City as a segmentation set."""

    def __init__(self, city: ToyCity, names: tuple[str, ...], colors: tuple[RGB, ...]) -> None:
        self._city = city
        self.names = names
        self.colors = colors

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.names)

    def __len__(self) -> int:
        return len(self._city)

    def read(self, index: int) -> Sample:
        """Render scene `index`: image uint8 (H, W, 3), mask uint8 (H, W)."""
        return self._city.read(index)


def open_split(description: DataDescription, split: Split) -> SegmentationSet:
    """Open a split after checking, from file names and headers alone, that every image has a mask of its size.

    Raises InputError: unknown or absent split, empty split, missing mask, sizes that differ, unreadable file.
    """
    check_split(description, split)
    if description.toycity is not None:
        toy = description.toycity
        city = ToyCity(split, size=toy.size, length=toy.length.get(split), seed=toy.seed)
        return ToyCitySet(city, description.names, description.colors)
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


def label_table(description: DataDescription) -> LabelTable:
    """Return what the label values of the description's mask files mean."""
    return LabelTable.build(description.num_classes, description.ignore, description.label_map)


def check_split(description: DataDescription, split: str) -> None:
    """Raise InputError for a split that the description does not have."""
    if split not in description.split_names:
        raise InputError(
            f"The data description has no split '{split}'. {did_you_mean(split, description.split_names)} Name one of"
            " these, or add it to data.yaml."
        )
