"""Reading COCO's JSON strictly: keypoint files and a detector's results, one line for whatever is not as it must be.

K joints.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hrnas.errors import InputError

_LARGEST: Final = 1e9
"""No number of a keypoint file is so large."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Category:
    """The one category that has keypoints. bones: pairs of joints, 0-based."""

    id: int
    names: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class ImageEntry:
    """size: (H, W) as the file says, None where it does not."""

    id: int
    file_name: str
    size: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One person. box: x, y, width, height as the file has it. joints: float64 (K, 3); area: None where not given."""

    id: int
    image_id: int
    box: Box
    joints: NDArray[np.float64]
    area: float | None
    is_crowd: bool

    @property
    def is_labelled(self) -> bool:
        """Whether it is one person with at least one labelled joint."""
        return not self.is_crowd and bool((self.joints[:, 2] > 0).any())


@dataclass(frozen=True, kw_only=True)
class KeypointFile:
    """A keypoint file: its images by id and the annotations of its category, both in the file's order."""

    category: Category
    images: Mapping[int, ImageEntry] = field(repr=False)
    annotations: tuple[Annotation, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Detection:
    """A detector's box. place: of its entry in the file."""

    place: int
    image_id: int
    box: Box
    score: float


def read_category(file: Path) -> Category:
    """Return the category with keypoints. Raises InputError where there is none, or more than one."""
    status = file.stat() if file.is_file() else None
    return _category_of(file, (status.st_mtime_ns, status.st_size) if status else (0, 0))


@lru_cache(maxsize=8)
def _category_of(file: Path, _version: tuple[int, int]) -> Category:
    # COCO's file takes seconds to parse, and who reads the joints' names mostly asks more than once.
    return _category(file, _read(file))


def read_keypoint_file(file: Path) -> KeypointFile:
    """Return a keypoint file with every entry checked. Raises InputError naming file and entry."""
    plain = _read(file)
    category = _category(file, plain)
    images: dict[int, ImageEntry] = {}
    for place, entry in enumerate(_entries(file, plain, "images")):
        image = _image(f"{file}: images[{place}]", entry)
        if image.id in images:
            raise InputError(
                f"{file} has two images of id {image.id}. Give each image one entry with an id of its own."
            )
        images[image.id] = image
    annotations: dict[int, Annotation] = {}
    for place, entry in enumerate(_entries(file, plain, "annotations")):
        if isinstance(entry, dict) and entry.get("category_id") != category.id and "category_id" in entry:
            continue
        annotation = _annotation(f"{file}: annotations[{place}]", entry, len(category.names))
        if annotation.id in annotations:
            raise InputError(f"{file} has two annotations of id {annotation.id}. Give each an id of its own.")
        if annotation.image_id not in images:
            raise InputError(
                f"{file}: annotation {annotation.id} is of image {annotation.image_id}, which 'images' does not list."
                " Add the image, or take the annotation out."
            )
        annotations[annotation.id] = annotation
    return KeypointFile(category=category, images=images, annotations=tuple(annotations.values()))


def read_detections(file: Path, keypoints: KeypointFile, where: Path) -> list[Detection]:
    """Return a detector's boxes of the category, in the file's order, for the images of the keypoint file `where`.

    Raises InputError for an image that is not among them, a box or score that is no number, or no box at all.
    """
    plain = _json(file)
    if not isinstance(plain, list):
        raise InputError(
            f"{file} holds {_kind(plain)}; a detector's results must be a list of"
            ' {"image_id", "category_id", "bbox", "score"}.'
        )
    detections = []
    for place, entry in enumerate(plain):
        spot = f"{file}: entry {place}"
        if not isinstance(entry, dict):
            raise InputError(f"{spot} is {_kind(entry)}; it must be a mapping with image_id, category_id, bbox, score.")
        if _whole(spot, entry, "category_id") != keypoints.category.id:
            continue
        image_id = _whole(spot, entry, "image_id")
        if image_id not in keypoints.images:
            raise InputError(
                f"{spot} is of image {image_id}, which {where} does not list. Give the results of this split's images."
            )
        detections.append(
            Detection(
                place=place, image_id=image_id, box=_box(spot, entry), score=_number(spot, "score", entry.get("score"))
            )
        )
    if not detections:
        raise InputError(
            f"{file} has no box of category {keypoints.category.id}, whose joints {where} labels. Give boxes of people."
        )
    return detections


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"Keypoint file {file} does not exist. Mend its path in data.yaml.") from None
    except OSError as error:
        raise InputError(
            f"Keypoint file {file} cannot be read: {error.strerror}. Mend its path in data.yaml."
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{file} is not a text file in UTF-8. Give COCO's JSON.") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{file}, line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}. Mend that line."
        ) from None


def _read(file: Path) -> dict[str, Any]:
    plain = _json(file)
    if not isinstance(plain, dict):
        raise InputError(
            f"{file} holds {_kind(plain)}; a keypoint file must be a mapping with images, annotations and categories."
        )
    return plain


def _entries(file: Path, plain: dict[str, Any], key: str) -> list[Any]:
    value = plain.get(key)
    if not isinstance(value, list):
        got = f"has '{key}' as {_kind(value)}" if key in plain else f"has no '{key}'"
        raise InputError(f"{file} {got}; a keypoint file must have a list of {key}.")
    return value


def _category(file: Path, plain: dict[str, Any]) -> Category:
    found = [entry for entry in _entries(file, plain, "categories") if isinstance(entry, dict) and "keypoints" in entry]
    if not found:
        raise InputError(
            f"{file} has no category with 'keypoints', the names of its joints. Give a keypoint file, which is not the"
            " one of boxes and masks."
        )
    if len(found) > 1:
        listed = ", ".join(str(entry.get("name", entry.get("id"))) for entry in found)
        raise InputError(
            f"{file} has {len(found)} categories with keypoints ({listed}); one is read. Keep one of them."
        )
    spot, entry = f"{file}: category '{found[0].get('name', '')}'", found[0]
    names = entry["keypoints"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise InputError(f"{spot} has 'keypoints' as {_kind(names)}; it must be a list of joint names.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{spot} has the joint '{twice}' twice. Give each joint a name of its own.")
    bones = entry.get("skeleton") or []
    for bone in bones if isinstance(bones, list) else [bones]:
        if not isinstance(bone, list) or len(bone) != 2 or not all(_is_place(end, len(names)) for end in bone):
            raise InputError(f"{spot} has the bone {bone} in 'skeleton'; it must be a pair of joints, 1..{len(names)}.")
    return Category(
        id=_whole(spot, entry, "id"),
        names=tuple(names),
        bones=tuple((first - 1, second - 1) for first, second in bones),
    )


def _image(spot: str, entry: Any) -> ImageEntry:
    if not isinstance(entry, dict):
        raise InputError(f"{spot} is {_kind(entry)}; it must be a mapping with id and file_name.")
    name = entry.get("file_name")
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{spot} has 'file_name' as {_kind(name)}; it must be a path below the folder of images.")
    size = None
    if entry.get("height") is not None and entry.get("width") is not None:
        size = (_whole(spot, entry, "height"), _whole(spot, entry, "width"))
    return ImageEntry(id=_whole(spot, entry, "id"), file_name=name, size=size)


def _annotation(spot: str, entry: Any, num_joints: int) -> Annotation:
    if not isinstance(entry, dict):
        raise InputError(f"{spot} is {_kind(entry)}; it must be a mapping with id, image_id, bbox, keypoints.")
    identity = _whole(spot, entry, "id")
    if identity < 0:
        raise InputError(f"{spot} has the id {identity}; 0 or more is needed. Mend it.")
    spot = f"{spot} (id {identity})"
    values = entry.get("keypoints", [0] * 3 * num_joints)
    if not isinstance(values, list) or len(values) != 3 * num_joints:
        got = f"{len(values)} numbers" if isinstance(values, list) else _kind(values)
        raise InputError(
            f"{spot} has {got} in 'keypoints'; {num_joints} joints need {3 * num_joints}: x, y, visibility of each."
            " Mend the annotation, or the category's list of joints."
        )
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        raise InputError(f"{spot} has something in 'keypoints' that is no number. Mend it.")
    if not all(abs(value) < _LARGEST for value in values):
        raise InputError(f"{spot} has a joint at nan or infinity. Mend it, or set its visibility to 0.")
    joints = np.array(values, np.float64).reshape(num_joints, 3)
    if not np.isin(joints[:, 2], (0, 1, 2)).all():
        wrong = joints[~np.isin(joints[:, 2], (0, 1, 2)), 2][0]
        raise InputError(f"{spot} has visibility {wrong:g}; 0 (not labelled), 1 (hidden) or 2 (visible) is needed.")
    joints[joints[:, 2] == 0] = 0
    area = entry.get("area")
    return Annotation(
        id=identity,
        image_id=_whole(spot, entry, "image_id"),
        box=_box(spot, entry),
        joints=joints,
        area=None if area is None else _area(spot, area),
        is_crowd=_is_crowd(spot, entry.get("iscrowd", 0)),
    )


def _area(spot: str, value: Any) -> float:
    area = _number(spot, "area", value)
    if area <= 0:
        raise InputError(
            f"{spot} has the area {area:g}; a positive number of pixels is needed. Mend it, or leave it out."
        )
    return area


def _is_crowd(spot: str, value: Any) -> bool:
    if value not in (0, 1) or isinstance(value, float):
        raise InputError(f"{spot} has 'iscrowd' as {_kind(value)}; 0 or 1 is needed. Mend it.")
    return bool(value)


def _box(spot: str, entry: dict[str, Any]) -> Box:
    value = entry.get("bbox")
    if not isinstance(value, list) or len(value) != 4:
        raise InputError(f"{spot} has 'bbox' as {_kind(value)}; it must be [x, y, width, height] in pixels.")
    x, y, width, height = (_number(spot, "bbox", part) for part in value)
    return x, y, width, height


def _number(spot: str, key: str, value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST:
        return float(value)
    raise InputError(f"{spot} has {_kind(value)} in '{key}'; a finite number is needed. Mend it.")


def _whole(spot: str, entry: dict[str, Any], key: str) -> int:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        got = f"has '{key}' as {_kind(value)}" if key in entry else f"has no '{key}'"
        raise InputError(f"{spot} {got}; an integer is needed.")
    return value


def _is_place(end: Any, num_joints: int) -> bool:
    return isinstance(end, int) and not isinstance(end, bool) and 1 <= end <= num_joints


def _kind(value: Any) -> str:
    """Describe a plain JSON value, in few words."""
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'mapping'} of {len(value)}"
    return json.dumps(value)[:60]
