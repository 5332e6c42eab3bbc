"""Toy City as a set of single things to be told apart: crops of the rendered scenes, with a class each."""

from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from hrnas.data.toycity.render import Picture
from hrnas.data.toycity.scenes import Arrays, Scenes, check_length
from hrnas.data.toycity.seen import Box, Seen, owners, seen_things
from hrnas.data.toycity.world import World
from hrnas.structures import Sample

LABELS: Final = 1
"""Part of every cache file's name: raise it when a change alters the choice of crops or their edges."""

_CLASSES: Final[dict[str, tuple[str, ...]]] = {
    "car": ("hatchback", "saloon", "suv"),
    "van": ("van",),
    "lorry": ("lorry",),
    "bus": ("bus",),
    "person": ("plain", "coat", "bag", "hat"),
    "cyclist": ("bicycle",),
    "tree": ("round",),
    "conifer": ("conifer",),
    "lamp": ("lamp", "mast"),
    "sign": ("sign",),
    "building": ("flat", "gable", "shop"),
}
"""The kinds of things in each class; no kind is in two."""
_CLASS_OF: Final = {kind: index for index, kinds in enumerate(_CLASSES.values()) for kind in kinds}

_SIZE: Final = (192, 256)
_LENGTHS: Final = {"train": 880, "validation": 220, "test": 220}
_LEAST_AREA: Final = 100  # pixels
_LEAST_SIDE: Final = 20  # pixels, of the longer side
_MARGIN: Final = 0.1  # of the box's sides, at each side
_NARROWEST: Final = 0.5  # shorter side against the longer
_PER_SCENE: Final = 2  # of a class; more, and the few streets it is large in would be all of it


class ToyCityCrops:
    """Crops of the things of rendered street scenes, each with its class; nothing is downloaded.

    Scene i of a split is scene i of `ToyCity`. A crop is the box of a thing's pixels, a tenth wider at each side, its
    shorter side at least half of the longer, within the scene; so sizes vary. Things are taken of which at least
    100 pixels are seen, that the scene's left and right edge do not cut, and that are the largest in their crop,
    buildings behind not counted; at most two of a class and scene, until every class has its share: sample i has class
    i modulo 11. The constructor reads the split from the cache, or renders it: about 70 ms a scene of 192x256 on one
    core, two crops in each.

    split: "train", "validation" or "test", which share no world.
    size: height and width of the scenes in pixels.
    length: number of crops; 880, 220 and 220 when not given. The first samples are the same at any length.
    seed, cache: as in `ToyCity`.

    Raises InputError for an unknown split, a size below 64 pixels or a length below 1.
    """

    NAMES: ClassVar[tuple[str, ...]] = tuple(_CLASSES)
    COLORS: ClassVar[tuple[tuple[int, int, int], ...]] = (
        (20, 30, 200), (0, 130, 230), (90, 60, 160), (0, 190, 200), (220, 20, 60), (255, 120, 0), (40, 120, 35),
        (0, 80, 60), (250, 200, 30), (230, 110, 180), (110, 110, 110),
    )  # fmt: skip
    """RGB of each class, for pictures."""

    def __init__(
        self, split: str, *, size: tuple[int, int] = _SIZE, length: int | None = None, seed: int = 0,
        cache: Path | None = None,
    ) -> None:  # fmt: skip
        scenes = Scenes(split, size=size, seed=seed, smallest=64, usual=_SIZE)
        length = check_length(_LENGTHS[split] if length is None else length)
        self.names = self.NAMES
        self.colors = self.COLORS
        self.split = split
        self.size = size
        self.seed = seed
        arrays = scenes.kept(f"toycity-crops{LABELS}", length, cache, is_whole=_is_whole, make=_render)
        self._pixels, self._sizes = arrays["pixels"], arrays["sizes"]
        self._ends = np.cumsum(3 * self._sizes.prod(axis=1))

    def __len__(self) -> int:
        return len(self._sizes)

    def read(self, index: int) -> Sample[int]:
        """Return crop `index`, 0..len-1: image (H, W, 3) and class. Raises IndexError past the end."""
        if not 0 <= index < len(self):
            raise IndexError(f"Toy City's {self.split} split has crops 0..{len(self) - 1}, got {index}.")
        height, width = self._sizes[index].tolist()
        end = int(self._ends[index])
        image = self._pixels[end - 3 * height * width : end].reshape(height, width, 3).copy()
        label = index % len(_CLASSES)
        return Sample(content=image, truth=label, name=self._name(index))

    def pictures(self) -> dict[str, list[int]]:
        """Return the samples of each picture by its name: one each."""
        return {self._name(index): [index] for index in range(len(self))}

    def _name(self, index: int) -> str:
        return f"{self.split}-{self.NAMES[index % len(_CLASSES)]}-{index:05d}"


def find_crops(world: World, picture: Picture) -> list[tuple[int, Box, Seen]]:
    """Find what may be cropped from a picture: class, edges of the crop and the thing, the largest first."""
    height, width = picture.mask.shape
    is_building = np.array([thing.category == "building" for thing in world.things])
    owner = owners(picture)
    found = []
    for seen in seen_things(owner):
        label = _CLASS_OF.get(world.things[seen.row].kind)
        left, _, wide, high = seen.box
        is_cut = left == 0 or left + wide == width
        if label is None or is_cut or seen.area < _LEAST_AREA or max(wide, high) < _LEAST_SIDE:
            continue
        edges = _widen(seen.box, height, width)
        shown = owner[edges[1] : edges[1] + edges[3], edges[0] : edges[0] + edges[2]]
        areas = np.bincount(shown[shown >= 0], minlength=len(world.things))
        if not is_building[seen.row]:  # a building behind is the ground on which others are seen
            areas[is_building] = 0
        if areas.max() == areas[seen.row]:
            found.append((label, edges, seen))
    return sorted(found, key=lambda one: -one[2].area)


def _widen(box: Box, height: int, width: int) -> Box:
    """Return the edges of the crop about a box, within the picture."""
    left, top, wide, high = box
    across, down = (1 + 2 * _MARGIN) * wide, (1 + 2 * _MARGIN) * high
    across, down = max(across, _NARROWEST * down), max(down, _NARROWEST * across)
    x0, x1 = (round(left + wide / 2 + sign * across / 2) for sign in (-1, 1))
    y0, y1 = (round(top + high / 2 + sign * down / 2) for sign in (-1, 1))
    x0, x1, y0, y1 = max(x0, 0), min(x1, width), max(y0, 0), min(y1, height)
    return x0, y0, x1 - x0, y1 - y0


def _render(scenes: Scenes, length: int) -> Arrays:
    """Render scenes until every class has its crops.

    pixels: uint8, those of all crops one after another; sizes: int64 (N, 2), height and width of each crop.
    """
    wanted = [len(range(label, length, len(_CLASSES))) for label in range(len(_CLASSES))]
    crops: list[list[NDArray[np.uint8]]] = [[] for _ in _CLASSES]
    number = 0
    while missing := {label for label, crop in enumerate(crops) if len(crop) < wanted[label]}:
        world, random = scenes.draw(number)
        number += 1
        # A world is drawn in a tenth of the time that its picture takes.
        if missing.isdisjoint({_CLASS_OF.get(thing.kind) for thing in world.things}):
            continue
        picture = scenes.picture(world, random)
        taken = [0] * len(_CLASSES)
        for label, (left, top, wide, high), _ in find_crops(world, picture):
            if taken[label] < _PER_SCENE and len(crops[label]) < wanted[label]:
                taken[label] += 1
                crops[label].append(picture.image[top : top + high, left : left + wide])
    images = [crops[index % len(_CLASSES)][index // len(_CLASSES)] for index in range(length)]
    return {
        "pixels": np.concatenate([image.reshape(-1) for image in images]),
        "sizes": np.array([image.shape[:2] for image in images], np.int64),
    }


def _is_whole(arrays: Arrays, length: int, _size: tuple[int, int]) -> bool:
    return (
        {"pixels", "sizes"} <= arrays.keys()
        and (arrays["pixels"].dtype, arrays["sizes"].dtype) == (np.dtype(np.uint8), np.dtype(np.int64))
        and arrays["sizes"].shape == (length, 2)
        and arrays["sizes"].min() > 0
        and arrays["pixels"].shape == (3 * arrays["sizes"].prod(axis=1).sum(),)
    )
