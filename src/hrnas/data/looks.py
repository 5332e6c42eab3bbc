"""What the data doctor and the contact sheet see of one picture of a set, as far as it can be read.

H height, W width in pixels; K classes or joints.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hrnas.data.decoding import LabelTable, read_image, read_values
from hrnas.data.description import DataDescription, Split, SplitKeypoints
from hrnas.data.folders import Pair, Pairing, find_pairs, sizes_differ
from hrnas.data.opening import DataSet, label_table, open_split
from hrnas.data.pictures import RGB, colorize, name_tile
from hrnas.data.skeletons import draw_people
from hrnas.errors import InputError
from hrnas.structures import IGNORED, Mask, Sample

COUNTED: Final = {"segmentation": "pixel of", "pose": "person with", "classification": "image of"}
"""What is counted for each class or joint, by task."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One picture. image: uint8 (H, W, 3); labels: makes a picture of what is known of it, to be shown beside it.

    is_photo: the labels are drawn over the image.

    counts: int64 (K,), of each class or joint; total: what a count can be at most; ignored: void among it.
    unknown: pixels by label value that no class covers. broken, mismatch: what is wrong with its files, a line each.
    """

    name: str
    image: NDArray[np.uint8] | None = None
    labels: Callable[[], NDArray[np.uint8]] | None = None
    is_photo: bool = False
    counts: NDArray[np.int64] | None = None
    total: int = 0
    ignored: int = 0
    unknown: Mapping[int, int] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    mismatch: str | None = None


def look_through(description: DataDescription, split: Split) -> tuple[Sequence[Callable[[], Look]], Pairing | None]:
    """Return a reader for each picture of a split, and how its files were paired (None where there are no pairs).

    Raises InputError when the split has no files to look at; the readers themselves never raise it.
    """
    if description.task == "segmentation" and description.toycity is None:
        pairing = find_pairs(description, split)
        labels = label_table(description)
        return [lambda pair=pair: _pair_look(pair, labels, description.colors) for pair in pairing.pairs], pairing
    dataset = open_split(description, split)
    source = description.splits.get(split)
    if isinstance(source, SplitKeypoints) and source.boxes is not None:  # which have no labels to look at
        labelled = replace(description, splits={**description.splits, split: replace(source, boxes=None)})
        dataset = open_split(labelled, split)
    of_samples = {"segmentation": _mask_look, "pose": _people_look, "classification": _class_look}[description.task]
    return [
        lambda name=name, indices=indices: _look(dataset, name, indices, of_samples)
        for name, indices in dataset.pictures().items()
    ], None


def _look(
    dataset: DataSet, name: str, indices: Sequence[int], of_samples: Callable[[DataSet, str, list[Sample[Any]]], Look]
) -> Look:
    try:
        return of_samples(dataset, name, [dataset.read(index) for index in indices])
    except InputError as error:
        return Look(name=name, broken=(str(error),))


def _mask_look(dataset: DataSet, name: str, samples: list[Sample[Mask]]) -> Look:
    sample = samples[0]
    return _of_mask(name, sample.image, sample.truth, dataset.colors, {})


def _people_look(dataset: Any, name: str, samples: list[Sample[Any]]) -> Look:
    people = [sample.truth for sample in samples]
    return Look(
        name=name,
        image=samples[0].image,
        labels=lambda: draw_people(
            samples[0].image, dataset.skeleton, [person.joints for person in people], [person.box for person in people]
        ),
        is_photo=True,
        counts=sum((person.joints[:, 2] > 0 for person in people), np.zeros(len(dataset.names), np.int64)),
        total=len(people),
    )


def _class_look(dataset: DataSet, name: str, samples: list[Sample[int]]) -> Look:
    sample = samples[0]
    counts = np.zeros(len(dataset.names), np.int64)
    counts[sample.truth] = 1
    return Look(
        name=name,
        image=sample.image,
        labels=lambda: name_tile(dataset.names[sample.truth], dataset.colors[sample.truth]),
        counts=counts,
        total=1,
    )


def _pair_look(pair: Pair, table: LabelTable, colors: Sequence[RGB]) -> Look:
    """Read a pair of files, keeping what can be read."""
    image = mask = mismatch = None
    broken: list[str] = []
    unknown: dict[int, int] = {}
    try:
        image = read_image(pair.image)
    except InputError as error:
        broken.append(str(error))
    try:
        values = read_values(pair.mask)
    except InputError as error:
        broken.append(str(error))
    else:
        mask = table.apply(values)
        unknown = table.unknown(values, mask)
    if image is not None and mask is not None and image.shape[:2] != mask.shape:
        mismatch = str(sizes_differ(pair, (image.shape[0], image.shape[1]), (mask.shape[0], mask.shape[1])))
    look = Look(name=pair.name, image=image) if mask is None else _of_mask(pair.name, image, mask, colors, unknown)
    return replace(look, broken=tuple(broken), mismatch=mismatch)


def _of_mask(
    name: str, image: NDArray[np.uint8] | None, mask: Mask, colors: Sequence[RGB], unknown: Mapping[int, int]
) -> Look:
    pixels = np.bincount(mask.ravel(), minlength=256)
    return Look(
        name=name,
        image=image,
        labels=lambda: colorize(mask, colors),
        counts=pixels[: len(colors)],
        total=mask.size,
        ignored=int(pixels[IGNORED]),
        unknown=unknown,
    )
