"""Toy City as a data set: worlds drawn by number, rendered once, kept in a cache."""

import os
import tempfile
import zipfile
from pathlib import Path
from random import Random
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from hrnas.cache import cache_folder
from hrnas.data.toycity.placing import make_world
from hrnas.data.toycity.render import render
from hrnas.data.toycity.world import NAMES
from hrnas.errors import InputError, did_you_mean
from hrnas.structures import Mask, Sample

VERSION: Final = 1
"""Part of every sample's seed and of every cache file's name: raise it when a change alters any pixel."""

_SPLITS: Final = {"train": 256, "validation": 64, "test": 64}
_SMALLEST: Final = 16

U8 = NDArray[np.uint8]


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
        self, split: str, *, size: tuple[int, int] = (96, 128), length: int | None = None, seed: int = 0,
        cache: Path | None = None,
    ) -> None:  # fmt: skip
        if split not in _SPLITS:
            raise InputError(f"Unknown split '{split}' of Toy City. {did_you_mean(split, _SPLITS)}")
        if min(size) < _SMALLEST:
            raise InputError(
                f"Toy City size is {size[0]}x{size[1]}; height and width must be at least {_SMALLEST} pixels. "
                "Give a larger size, such as 96x128."
            )
        if length is not None and length < 1:
            raise InputError(f"Toy City length is {length}; at least 1 sample is needed. Give a larger length or none.")
        self.names = NAMES
        self.colors = self.COLORS
        self.split = split
        self.size = size
        self.seed = seed
        length = _SPLITS[split] if length is None else length
        file = (cache or cache_folder()) / (f"toycity-v{VERSION}-seed{seed}-{split}-{size[0]}x{size[1]}-{length}.npz")
        stored = _load(file, length, size)
        if stored is None:
            stored = self._render(length)
            _store(file, *stored)
        self._images, self._masks = stored

    def __len__(self) -> int:
        return len(self._images)

    def pictures(self) -> list[list[int]]:
        """Return the samples of each picture: one."""
        return [[index] for index in range(len(self))]

    def read(self, index: int) -> Sample[Mask]:
        """Return sample `index`, 0..len-1: image (H, W, 3) and mask (H, W). Raises IndexError past the end."""
        if not 0 <= index < len(self):
            raise IndexError(f"Toy City's {self.split} split has samples 0..{len(self) - 1}, got {index}.")
        return Sample(
            image=self._images[index].copy(), truth=self._masks[index].copy(), name=f"{self.split}-{index:05d}"
        )

    def _render(self, length: int) -> tuple[U8, U8]:
        """Render the first `length` samples: images (length, H, W, 3) and masks (length, H, W)."""
        images = np.empty((length, *self.size, 3), np.uint8)
        masks = np.empty((length, *self.size), np.uint8)
        for i in range(length):
            # A text as seed: Python hashes it with SHA-512, so that no two splits or samples come near each other.
            random = Random(f"toycity {VERSION} {self.seed} {self.split} {i}")
            images[i], masks[i] = render(make_world(random), *self.size, random)
        return images, masks


def _load(file: Path, length: int, size: tuple[int, int]) -> tuple[U8, U8] | None:
    """Read a rendered split; None when there is none, or none that is whole."""
    try:
        # Opened here: of a file that is no archive numpy would leave its own handle open.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            images, masks = arrays["images"], arrays["masks"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    whole = (
        images.dtype == masks.dtype == np.uint8
        and images.shape == (length, *size, 3)
        and masks.shape == (length, *size)
        and masks.max() < len(NAMES)
    )
    return (images, masks) if whole else None


def _store(file: Path, images: U8, masks: U8) -> None:
    """Write a rendered split under a temporary name, then rename it: nobody ever sees half a file."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=file.stem, suffix=".tmp")
    except OSError:
        return  # an unwritable cache costs the next start a rendering, nothing else
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, images=images, masks=masks)
        os.replace(temporary, file)
    except OSError:  # a full disk
        Path(temporary).unlink(missing_ok=True)
