"""People with joints in COCO's keypoint format: any number of joints, boxes of the labels or of a detector.

Joints count from the middle of an image's first pixel, as COCO labels them; boxes from its left upper corner.
H height, W width in pixels of the image as it was read; K joints.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hrnas.data.coco_joints import COCO_SKELETON
from hrnas.data.decoding import picture_size, read_image
from hrnas.data.joint_names import flip_pairs_of, parse_names, without_partner
from hrnas.data.keypoint_file import (
    Annotation,
    Box,
    Category,
    ImageEntry,
    KeypointFile,
    read_category,
    read_detections,
    read_keypoint_file,
)
from hrnas.data.pictures import RGB, default_palette
from hrnas.errors import InputError
from hrnas.structures import Person, Sample, Skeleton

UNIFORM_SIGMA: Final = 0.067
"""For joints whose sigmas nobody has given: the mean of COCO's 17."""


@dataclass(frozen=True, kw_only=True)
class KeypointSet:
    """A split of people: one sample a person, with its whole image; the persons of an image stand together.

    boxes: "ground truth", or "detector FILE". people: without images. files, stems: of each sample.
    keypoints: the whole file. used: the images of the split.
    """

    skeleton: Skeleton
    boxes: str
    people: Sequence[Person] = field(repr=False)
    files: Sequence[Path] = field(repr=False)
    stems: Sequence[str] = field(repr=False)
    keypoints: KeypointFile = field(repr=False)
    used: Sequence[ImageEntry] = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """One per joint."""
        return self.skeleton.names

    @property
    def colors(self) -> tuple[RGB, ...]:
        """One (r, g, b) in 0..255 per joint."""
        return default_palette(len(self.names))

    @property
    def ground_truth(self) -> dict[str, Any]:
        """People of the images used, those without joints and crowds included, as COCO's JSON has them.

        An annotation without an area has none there either.
        """
        return _ground_truth(self.keypoints, self.used)

    def __len__(self) -> int:
        return len(self.people)

    def read(self, index: int) -> Sample[Person]:
        """Return person `index` with the whole image, uint8 (H, W, 3), read-only. Raises InputError naming the file."""
        return Sample(content=_image_of(self.files[index]), truth=self.people[index], name=self.stems[index])

    def pictures(self) -> dict[str, list[int]]:
        """Return the samples of each image by its name, in order."""
        groups = [list(group) for _, group in groupby(range(len(self)), lambda index: self.people[index].image_id)]
        stems = Counter(self.files[group[0]].stem for group in groups)
        named = {}
        for group in groups:
            stem = self.files[group[0]].stem
            named[stem if stems[stem] == 1 else f"{stem}-{self.people[group[0]].image_id}"] = group
        return named


@lru_cache(maxsize=1)
def _image_of(file: Path) -> NDArray[np.uint8]:
    """Read an image, or return the last one again: what goes through a set in order meets its people one by one."""
    image = read_image(file)
    image.flags.writeable = False
    return image


def read_skeleton(
    file: Path,
    *,
    flip_pairs: Sequence[tuple[int, int]] | None = None,
    bones: Sequence[tuple[int, int]] | None = None,
    sigmas: Sequence[float] | None = None,
) -> Skeleton:
    """Return the joints of a keypoint file.

    flip_pairs, bones, sigmas: in place of what the file and its names say; pairs are of places in the list of joints.
    Without sigmas they are COCO's where the joints are COCO's 17, else UNIFORM_SIGMA (see `sigma_warning`).
    Raises InputError for a file that cannot be used, for a joint in two pairs, and for a name that says left or right
    without a partner.
    """
    category = read_category(file)
    return _skeleton(file, category, flip_pairs=flip_pairs, bones=bones, sigmas=sigmas)


def sigma_warning(skeleton: Skeleton) -> str | None:
    """Return one line where the sigmas are a guess, so that OKS AP compares with nothing published."""
    if set(skeleton.sigmas) != {UNIFORM_SIGMA}:
        return None
    return (
        f"The sigmas of these {len(skeleton.names)} joints are not known; OKS AP uses {UNIFORM_SIGMA:g}, the mean of"
        " COCO's, for all of them and compares with nothing published, and PCK decides. Give sigmas in data.yaml."
    )


def open_keypoints(
    file: Path, images_folder: Path, *, skeleton: Skeleton | None = None, boxes: Path | None = None
) -> KeypointSet:
    """Open a split after checking the whole JSON, and from their headers all images it will read.

    skeleton: the set's, which the file must agree with; the file's own where left out. boxes: a detector's results, of
    which every box of the category is a sample without labels; where left out, every person with a labelled joint is
    one. Crowds never are. Boxes that stick out of their image are clipped to it.
    Raises InputError: see `keypoint_file`; joints other than the skeleton's, no person with joints, a box without
    area or outside its image, a missing image or one of another size than the file says.
    """
    keypoints = read_keypoint_file(file)
    if not images_folder.is_dir():
        raise InputError(
            f"Folder {images_folder}, of the images of {file}, does not exist. Mend 'images' of its split."
        )
    _check_joints(file, keypoints.category, skeleton)
    labelled = [annotation for annotation in keypoints.annotations if annotation.is_labelled]
    if not labelled:
        raise InputError(f"{file} has no person with a labelled joint. Give a file with keypoints.")
    skeleton = skeleton or _skeleton(file, keypoints.category)
    if boxes is not None and sigma_warning(skeleton):
        raise InputError(
            f"Boxes of a detector ({boxes}) are scored by OKS AP, which needs the sigmas of these joints. Give sigmas"
            " in data.yaml, or leave 'boxes' out."
        )
    by_image: dict[int, list[tuple[str, Person, str]]] = {}
    if boxes is None:
        for annotation in labelled:
            entry = _labelled_person(f"{file}: annotation {annotation.id}", annotation)
            by_image.setdefault(annotation.image_id, []).append(entry)
    else:
        nothing = np.zeros((len(skeleton.names), 3), np.float32)
        for found in read_detections(boxes, keypoints, file):
            person = Person(
                box=found.box,
                joints=nothing,
                area=None,
                image_id=found.image_id,
                annotation_id=None,
                score=found.score,
                index=0,
            )
            by_image.setdefault(found.image_id, []).append(
                (f"{boxes}: entry {found.place}", person, f"box{found.place}")
            )
    # With a detector's boxes an image without one still has people to be found.
    used = [image for image in keypoints.images.values() if boxes is not None or image.id in by_image]
    people: list[Person] = []
    files: list[Path] = []
    stems: list[str] = []
    for image in used:
        path = images_folder / image.file_name
        size = _image_size(file, path, image)
        for where, person, suffix in by_image.get(image.id, ()):
            people.append(
                replace(person, box=clipped_box(where, person.box, f"its image {path}", size), index=len(people))
            )
            files.append(path)
            stems.append(f"{path.stem}-{suffix}")
    return KeypointSet(
        skeleton=skeleton,
        boxes="ground truth" if boxes is None else f"detector {boxes.name}",
        people=people,
        files=files,
        stems=stems,
        keypoints=keypoints,
        used=used,
    )


def clipped_box(where: str, box: Box, image: str, size: tuple[int, int]) -> Box:
    """Return the part of a box that lies in an image of `size` (H, W).

    Raises InputError, beginning with `where`, for a box without area or without a part in the image, said as `image`.
    """
    x, y, width, height = box
    if width <= 0 or height <= 0:
        raise InputError(
            f"{where} has the box {_text(box)}, which has no area; width and height must be positive. Mend it, or take"
            " it out."
        )
    left, top = max(0.0, x), max(0.0, y)
    right, bottom = min(float(size[1]), x + width), min(float(size[0]), y + height)
    if right <= left or bottom <= top:
        raise InputError(
            f"{where} has the box {_text(box)}, which lies outside {image} of {size[1]}x{size[0]}; it must be"
            " [x, y, width, height] in pixels. Mend it, or take it out."
        )
    return left, top, right - left, bottom - top


def _labelled_person(where: str, annotation: Annotation) -> tuple[str, Person, str]:
    person = Person(
        box=annotation.box,
        joints=annotation.joints.astype(np.float32),
        area=annotation.area,
        image_id=annotation.image_id,
        annotation_id=annotation.id,
        score=1.0,
        index=0,
    )
    return where, person, str(annotation.id)


def _skeleton(
    file: Path,
    category: Category,
    *,
    flip_pairs: Sequence[tuple[int, int]] | None = None,
    bones: Sequence[tuple[int, int]] | None = None,
    sigmas: Sequence[float] | None = None,
) -> Skeleton:
    names = category.names
    if flip_pairs is None and (alone := without_partner(names)) is not None:
        raise InputError(
            f"{file}: joint '{alone}' is of one side, but no joint's name is that of the other. Rename it, or give"
            " flip_pairs in data.yaml (an empty list for none)."
        )
    return Skeleton(
        names=names,
        flip_pairs=tuple(flip_pairs_of(names) if flip_pairs is None else flip_pairs),
        bones=tuple(category.bones if bones is None else bones),
        sigmas=tuple(_sigmas(names) if sigmas is None else sigmas),
    )


def _sigmas(names: Sequence[str]) -> tuple[float, ...]:
    """Return COCO's sigmas where the joints are COCO's 17, however written and in whatever order; else the mean."""
    coco: Mapping[Any, float] = dict(zip(_keys(COCO_SKELETON.names), COCO_SKELETON.sigmas, strict=True))
    keys = _keys(names)
    if set(keys) != set(coco):
        return (UNIFORM_SIGMA,) * len(names)
    return tuple(coco[key] for key in keys)


def _keys(names: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return what identifies each joint, however its name is written."""
    return [(joint.part, joint.side) for joint in parse_names(names)]


def _check_joints(file: Path, category: Category, skeleton: Skeleton | None) -> None:
    if skeleton is None or category.names == skeleton.names:
        return
    got, need = category.names, skeleton.names
    if len(got) != len(need):
        raise InputError(
            f"{file} has {len(got)} joints; the data set's are {len(need)}. Give files of the same joints."
        )
    place = next(place for place, pair in enumerate(zip(got, need, strict=True)) if pair[0] != pair[1])
    raise InputError(
        f"{file} has '{got[place]}' as joint {place + 1}; the data set has '{need[place]}' there. Give files with the"
        " same joints in the same order."
    )


def _image_size(file: Path, path: Path, image: ImageEntry) -> tuple[int, int]:
    size = picture_size(path, "Image")
    if image.size is not None and image.size != size:
        turned = " EXIF orientation may have turned it: store it upright." if image.size == size[::-1] else ""
        raise InputError(
            f"Image {path} is {size[1]}x{size[0]} (width x height), but {file} says {image.size[1]}x{image.size[0]}."
            f" Mend the entry of image {image.id}, or replace the file.{turned}"
        )
    return size


def _text(box: Box) -> str:
    return f"[{', '.join(f'{part:g}' for part in box)}]"


def _ground_truth(keypoints: KeypointFile, used: Sequence[ImageEntry]) -> dict[str, Any]:
    """Return what COCO's evaluation reads, of the images used."""
    ids = {image.id for image in used}
    category = keypoints.category
    annotations = []
    for annotation in keypoints.annotations:
        if annotation.image_id in ids:
            entry: dict[str, Any] = {
                "id": annotation.id,
                "image_id": annotation.image_id,
                "category_id": category.id,
                "bbox": list(annotation.box),
                "iscrowd": int(annotation.is_crowd),
                "keypoints": annotation.joints.ravel().tolist(),
                "num_keypoints": int((annotation.joints[:, 2] > 0).sum()),
            }
            if annotation.area is not None:
                entry["area"] = annotation.area
            annotations.append(entry)
    return {
        "images": [{"id": image.id} for image in used],
        "annotations": annotations,
        "categories": [{"id": category.id, "name": "person", "keypoints": list(category.names)}],
    }
