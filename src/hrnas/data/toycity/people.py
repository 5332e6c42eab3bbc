"""Toy City as a set of persons with joints and boxes: its pedestrians and cyclists, found in the rendered scenes."""

from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from hrnas.data.coco_joints import COCO_SKELETON
from hrnas.data.toycity.render import Picture
from hrnas.data.toycity.scenes import Arrays, Scenes, check_length
from hrnas.data.toycity.seen import Seen, owners, seen_joints, seen_things
from hrnas.data.toycity.world import World
from hrnas.structures import Person, Sample, Skeleton

LABELS: Final = 2
"""Part of every cache file's name: raise it when a change alters any joint, box or choice of persons."""

_SIZE: Final = (192, 256)
_LENGTHS: Final = {"train": 768, "validation": 192, "test": 192}
_LEAST_HEIGHT: Final = 24  # pixels; of somebody smaller nobody could tell the elbows
_LEAST_AREA: Final = 100  # pixels


class ToyCityPeople:
    """The persons of rendered street scenes, each with a box and COCO's 17 joints; nothing is downloaded.

    Scene i of a split is scene i of `ToyCity`. Its persons are the pedestrians and cyclists, without their bicycles, of
    whom at least a joint, 100 pixels and 24 rows of pixels are seen; the samples are those of the scenes in order, as
    many as the set is long. The constructor reads the split from the cache, or renders it: about 70 ms a scene of
    192x256 on one core, two to three persons in each.

    split: "train", "validation" or "test", which share no world.
    size: height and width of the scenes in pixels. Two sizes show the same scenes; a smaller one has fewer persons in
        each that are large enough.
    length: number of persons; 768, 192 and 192 when not given.
    seed, cache: as in `ToyCity`.

    Raises InputError for an unknown split, a size below 64 pixels or a length below 1.
    """

    COLORS: ClassVar[tuple[tuple[int, int, int], ...]] = (
        (255, 255, 255), (120, 255, 120), (255, 150, 90), (60, 220, 90), (255, 110, 60), (0, 200, 160), (255, 70, 70),
        (0, 180, 220), (255, 60, 130), (0, 150, 255), (255, 60, 190), (110, 200, 0), (255, 180, 0), (160, 220, 0),
        (255, 205, 0), (200, 240, 40), (255, 230, 60),
    )  # fmt: skip
    """RGB of each joint, for overlays: the left side green and blue, the right red and yellow."""

    boxes = "ground truth"
    """Where the boxes come from."""

    def __init__(
        self, split: str, *, size: tuple[int, int] = _SIZE, length: int | None = None, seed: int = 0,
        cache: Path | None = None,
    ) -> None:  # fmt: skip
        scenes = Scenes(split, size=size, seed=seed, smallest=64, usual=_SIZE)
        length = check_length(_LENGTHS[split] if length is None else length)
        self.names = COCO_SKELETON.names
        self.colors = self.COLORS
        self.split = split
        self.size = size
        self.seed = seed
        arrays = scenes.kept(f"toycity-people{LABELS}", length, cache, is_whole=_is_whole, make=_render)
        self._images, self._numbers = arrays["images"], arrays["numbers"]
        self._picture, self._joints = arrays["picture"], arrays["joints"]
        self._boxes, self._areas = arrays["boxes"], arrays["areas"]

    @property
    def skeleton(self) -> Skeleton:
        """COCO's joints."""
        return COCO_SKELETON

    def __len__(self) -> int:
        return len(self._joints)

    def read(self, index: int) -> Sample[Person]:
        """Return person `index`, 0..len-1, with the whole scene (H, W, 3). Raises IndexError past the end."""
        if not 0 <= index < len(self):
            raise IndexError(f"Toy City's {self.split} split has persons 0..{len(self) - 1}, got {index}.")
        picture = int(self._picture[index])
        number = int(self._numbers[picture])
        left, top, width, height = map(float, self._boxes[index])
        person = Person(
            box=(left, top, width, height), joints=self._joints[index].copy(), area=float(self._areas[index]),
            image_id=number, annotation_id=index + 1, score=1.0, index=index,
        )  # fmt: skip
        return Sample(content=self._images[picture].copy(), truth=person, name=f"{self.split}-{number:05d}-{index:05d}")

    def pictures(self) -> dict[str, list[int]]:
        """Return the samples of each scene by its name, in order."""
        ends = np.flatnonzero(np.diff(self._picture)) + 1
        return {
            f"{self.split}-{self._numbers[self._picture[part[0]]]:05d}": part.tolist()
            for part in np.split(np.arange(len(self)), ends)
        }

    @property
    def ground_truth(self) -> dict[str, Any]:
        """Return the labels as COCO's JSON has them, in plain types."""
        height, width = self.size
        people = (self.read(index).truth for index in range(len(self)))
        return {
            "images": [
                {"id": number, "file_name": f"{self.split}-{number:05d}.png", "height": height, "width": width}
                for number in self._numbers.tolist()
            ],
            "annotations": [
                {
                    "id": person.annotation_id, "image_id": person.image_id, "category_id": 1, "bbox": list(person.box),
                    "area": person.area, "iscrowd": 0, "num_keypoints": int((person.joints[:, 2] > 0).sum()),
                    "keypoints": person.joints.reshape(-1).tolist(),
                }
                for person in people
            ],
            "categories": [
                {
                    "id": 1, "name": "person", "keypoints": list(COCO_SKELETON.names),
                    "skeleton": [[a + 1, b + 1] for a, b in COCO_SKELETON.bones],
                }
            ],
        }  # fmt: skip


def find_people(world: World, picture: Picture) -> list[tuple[Seen, NDArray[np.float32]]]:
    """Find the persons of a picture that are large enough, and their joints (17, 3), in the order of World.things."""
    figures = [
        figure
        for figure in seen_things(owners(picture, only_figures=True))
        if figure.box[3] >= _LEAST_HEIGHT and figure.area >= _LEAST_AREA
    ]
    joints = seen_joints(world, picture, figures)
    return [(figure, own) for figure, own in zip(figures, joints, strict=True) if (own[:, 2] == 2).any()]


def _render(scenes: Scenes, length: int) -> Arrays:
    """Render scenes until they have `length` persons.

    images: uint8 (I, H, W, 3), the scenes that have one; numbers: int64 (I,), which they are. Of the persons: picture:
    int64 (N,), row of images; joints: float32 (N, 17, 3); boxes: int64 (N, 4); areas: int64 (N,), pixels.
    """
    images: list[NDArray[np.uint8]] = []
    numbers: list[int] = []
    picture_rows: list[int] = []
    found: list[tuple[Seen, NDArray[np.float32]]] = []
    number = 0
    while len(found) < length:
        world, random = scenes.draw(number)
        picture = scenes.picture(world, random)
        people = find_people(world, picture)[: length - len(found)]
        if people:
            picture_rows += [len(images)] * len(people)
            images.append(picture.image)
            numbers.append(number)
            found += people
        number += 1
    return {
        "images": np.stack(images), "numbers": np.array(numbers, np.int64),
        "picture": np.array(picture_rows, np.int64), "joints": np.stack([joints for _, joints in found]),
        "boxes": np.array([seen.box for seen, _ in found], np.int64),
        "areas": np.array([seen.area for seen, _ in found], np.int64),
    }  # fmt: skip


def _is_whole(arrays: Arrays, length: int, size: tuple[int, int]) -> bool:
    images = arrays.get("images")
    if images is None or images.ndim != 4:
        return False
    count = len(images)
    expected = {
        "images": (np.uint8, (count, *size, 3)), "numbers": (np.int64, (count,)), "picture": (np.int64, (length,)),
        "joints": (np.float32, (length, len(COCO_SKELETON.names), 3)), "boxes": (np.int64, (length, 4)),
        "areas": (np.int64, (length,)),
    }  # fmt: skip
    return all(
        name in arrays and (arrays[name].dtype, arrays[name].shape) == (np.dtype(kind), shape)
        for name, (kind, shape) in expected.items()
    ) and np.array_equal(np.unique(arrays["picture"]), np.arange(count))
