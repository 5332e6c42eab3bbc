"""What the data doctor and the contact sheet see of one picture of a set, as far as it can be read.

H height, W width in pixels; K classes or joints.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hrnas.data.decoding import LabelTable, read_image, read_values
from hrnas.data.description import DataDescription, Split, SplitKeypoints
from hrnas.data.folders import Pair, Pairing, find_pairs, sizes_differ
from hrnas.data.kitti_classes import TYPES
from hrnas.data.kitti_files import NOT_AN_OBJECT
from hrnas.data.kitti_frames import boxes_of, num_scored
from hrnas.data.opening import DataSet, label_table, open_split
from hrnas.data.pictures import RGB, colorize, name_tile
from hrnas.data.scene_pictures import bird_view, camera_view
from hrnas.data.skeletons import draw_people
from hrnas.errors import InputError, did_you_mean
from hrnas.geometry.boxes import points_in_boxes
from hrnas.structures import IGNORED, Mask, Sample, Scene

COUNTED: Final = {
    "segmentation": "pixel of",
    "pose": "person with",
    "classification": "image of",
    "detection3d": "object of",
}
"""What is counted for each class or joint, by task."""

_BIRD_HEIGHT: Final = 480
"""Of the picture from above, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """What is likely unmeant in a picture, in words: "2 objects", its noun in the plural, "with no point", its fact."""

    noun: str
    fact: str
    remedy: str


EMPTY_BOX: Final = Doubt(
    noun="object",
    fact="without a point in its box",
    remedy="Far and hidden ones may have none; of many, see that points, calibration and labels belong together.",
)
NO_POINTS: Final = Doubt(
    noun="frame",
    fact="without a point in the camera's view",
    remedy="Give its points and calibration, or take it out of the split.",
)
BROKEN_IMAGE: Final = Doubt(
    noun="frame",
    fact="with an image that cannot be read to its end",
    remedy="Its size is all that is needed of it, but it cannot be shown. Replace it.",
)


@dataclass(frozen=True, kw_only=True)
class Look:
    """One picture. image: uint8 (H, W, 3); labels: makes a picture of what is known of it, to be shown beside it.

    is_photo: the labels are no fields of one colour. shown: makes what is shown in place of the image. room: how many
    times as wide as usual both are shown. content: tells the picture from others; the image itself where None.

    counts: int64 (K,), of each class or joint; scored: how many of these a score counts, all where None; total: what a
    count can be at most; ignored: void among it.
    unknown: pixels by label value that no class covers. broken, mismatch: what is wrong with its files, a line each.
    doubts: how often there is what is likely unmeant.
    """

    name: str
    image: NDArray[np.uint8] | None = None
    labels: Callable[[], NDArray[np.uint8]] | None = None
    is_photo: bool = False
    shown: Callable[[], NDArray[np.uint8]] | None = None
    room: int = 1
    content: NDArray[Any] | None = None
    counts: NDArray[np.int64] | None = None
    scored: NDArray[np.int64] | None = None
    total: int = 0
    ignored: int = 0
    unknown: Mapping[int, int] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    mismatch: str | None = None
    doubts: Mapping[Doubt, int] = field(default_factory=dict)


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
    of_samples = {
        "segmentation": _mask_look,
        "pose": _people_look,
        "classification": _class_look,
        "detection3d": _scene_look,
    }[description.task]
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
    return _of_mask(name, sample.content, sample.truth, dataset.colors, {})


def _people_look(dataset: Any, name: str, samples: list[Sample[Any]]) -> Look:
    people = [sample.truth for sample in samples]
    return Look(
        name=name,
        image=samples[0].content,
        labels=lambda: draw_people(
            samples[0].content,
            dataset.skeleton,
            [person.joints for person in people],
            [person.box for person in people],
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
        image=sample.content,
        labels=lambda: name_tile(dataset.names[sample.truth], dataset.colors[sample.truth]),
        counts=counts,
        total=1,
    )


def _scene_look(dataset: Any, name: str, samples: list[Sample[Scene]]) -> Look:
    cloud, scene = samples[0].content, samples[0].truth
    boxes = boxes_of(scene.objects, dataset.names, scene.calibration)
    image = None
    if scene.image is not None:
        with suppress(InputError):
            image = read_image(scene.image)
    types = Counter(kind for kind in scene.objects.types if kind != NOT_AN_OBJECT)
    known = {*TYPES, *dataset.names}
    doubts = {
        EMPTY_BOX: int((~points_in_boxes(cloud, boxes.boxes).any(1)).sum()),
        NO_POINTS: int(len(cloud) == 0),
        _no_image(scene): int(scene.image is None),
        BROKEN_IMAGE: int(scene.image is not None and image is None),
        **{
            Doubt(noun="object", fact=f"of the unknown type '{kind}'", remedy=did_you_mean(kind, known)): count
            for kind, count in types.items()
            if kind not in known
        },
    }
    return Look(
        name=name,
        image=image,
        content=cloud,
        shown=lambda: camera_view(
            image, None, boxes, scene.calibration, dataset.colors, image_size=scene.image_size, cloud=cloud
        ),
        labels=lambda: bird_view(cloud, None, boxes, dataset.colors, height=_BIRD_HEIGHT),
        is_photo=True,
        room=2,
        counts=np.bincount(boxes.labels, minlength=len(dataset.names)),
        scored=num_scored(scene.objects, dataset.names),
        total=sum(types.values()),
        doubts={doubt: count for doubt, count in doubts.items() if count},
    )


def _no_image(scene: Scene) -> Doubt:
    height, width = scene.image_size
    remedy = f"It is taken to be {width}x{height}; what lies outside is left out."
    return Doubt(noun="frame", fact="without an image", remedy=remedy)


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
