"""Toy City as a set of street scenes with masks: rendered once, kept in a cache."""

from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from hrnas.data.toycity.scenes import Arrays, Scenes, check_length
from hrnas.data.toycity.world import NAMES
from hrnas.structures import Mask, Sample

_SIZE: Final = (96, 128)
_LENGTHS: Final = {"train": 256, "validation": 64, "test": 64}


class ToyCity:
    """Rendered street scenes with a class for every pixel; nothing is downloaded.

    Sample i of a split is a function of the seed, the split, i and the size alone. The constructor reads the split from
    the cache, or renders it, which takes about 27 ms an image of 96x128 on one core.

    split: "train", "validation" or "test", which share no world.
    size: height and width in pixels. The same sample of two sizes shows the same world from the same place.
    length: number of samples; 256, 64 and 64 when not given.
    seed: another seed makes another city.
    cache: folder for the rendered splits; $HRNAS_CACHE, $XDG_CACHE_HOME/hrnas or ~/.cache/hrnas when not given.
        A folder that cannot be written to is done without.

    Raises InputError for an unknown split, a size below 16 pixels or a length below 1.
    """

    NAMES: ClassVar[tuple[str, ...]] = NAMES
    COLORS: ClassVar[tuple[tuple[int, int, int], ...]] = (
        (128, 64, 128), (244, 35, 232), (152, 251, 152), (110, 110, 110), (70, 130, 180), (40, 120, 35), (250, 200, 30),
        (20, 30, 200), (220, 20, 60), (255, 120, 0),
    )  # fmt: skip
    """RGB of each class, for overlays."""

    def __init__(
        self, split: str, *, size: tuple[int, int] = _SIZE, length: int | None = None, seed: int = 0,
        cache: Path | None = None,
    ) -> None:  # fmt: skip
        scenes = Scenes(split, size=size, seed=seed, smallest=16, usual=_SIZE)
        length = check_length(_LENGTHS[split] if length is None else length)
        self.names = NAMES
        self.colors = self.COLORS
        self.split = split
        self.size = size
        self.seed = seed
        arrays = scenes.kept("toycity", length, cache, is_whole=_is_whole, make=_render)
        self._images, self._masks = arrays["images"], arrays["masks"]

    def __len__(self) -> int:
        return len(self._images)

    def pictures(self) -> dict[str, list[int]]:
        """Return the samples of each picture by its name: one."""
        return {f"{self.split}-{index:05d}": [index] for index in range(len(self))}

    def read(self, index: int) -> Sample[Mask]:
        """Return sample `index`, 0..len-1: image (H, W, 3) and mask (H, W). Raises IndexError past the end."""
        if not 0 <= index < len(self):
            raise IndexError(f"Toy City's {self.split} split has samples 0..{len(self) - 1}, got {index}.")
        return Sample(
            content=self._images[index].copy(), truth=self._masks[index].copy(), name=f"{self.split}-{index:05d}"
        )


def _render(scenes: Scenes, length: int) -> Arrays:
    """Render the first `length` scenes: images (length, H, W, 3) and masks (length, H, W)."""
    images = np.empty((length, *scenes.size, 3), np.uint8)
    masks = np.empty((length, *scenes.size), np.uint8)
    for i in range(length):
        picture = scenes.picture(*scenes.draw(i))
        images[i], masks[i] = picture.image, picture.mask
    return {"images": images, "masks": masks}


def _is_whole(arrays: Arrays, length: int, size: tuple[int, int]) -> bool:
    return (
        {"images", "masks"} <= arrays.keys()
        and arrays["images"].dtype == arrays["masks"].dtype == np.uint8
        and arrays["images"].shape == (length, *size, 3)
        and arrays["masks"].shape == (length, *size)
        and arrays["masks"].max() < len(NAMES)
    )
