"""The numbered scenes that all of Toy City's sets are taken from, and the cache that keeps what was taken."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

from hrnas.cache import Arrays, cache_folder, load_arrays, store_arrays
from hrnas.data.toycity.placing import make_world
from hrnas.data.toycity.render import Picture, render
from hrnas.data.toycity.world import World
from hrnas.errors import InputError, did_you_mean

VERSION: Final = 1
"""Part of every scene's seed and of every cache file's name: raise it when a change alters any pixel."""

SPLITS: Final = ("train", "validation", "test")


class Scenes:
    """The scenes of a split: worlds drawn by number, the same for every set and every size.

    Raises InputError for an unknown split, or a height or width below `smallest` pixels; `usual` is a size to propose.
    """

    def __init__(
        self, split: str, *, size: tuple[int, int], seed: int, smallest: int, usual: tuple[int, int]
    ) -> None:  # fmt: skip
        check_split(split)
        if min(size) < smallest:
            raise InputError(
                f"Toy City size is {size[0]}x{size[1]}; height and width must be at least {smallest} pixels. "
                f"Give a larger size, such as {usual[0]}x{usual[1]}."
            )
        self.split = split
        self.size = size
        self.seed = seed

    def draw(self, number: int) -> tuple[World, Random]:
        """Return world `number` and the random numbers that go on to its camera."""
        # A text as seed: Python hashes it with SHA-512, so that no two splits or samples come near each other.
        random = Random(f"toycity {VERSION} {self.seed} {self.split} {number}")
        return make_world(random), random

    def picture(self, world: World, random: Random) -> Picture:
        """Take the picture of a world from `draw`."""
        return render(world, *self.size, random)

    def kept(
        self,
        kind: str,
        length: int,
        cache: Path | None,
        *,
        is_whole: Callable[[Arrays, int, tuple[int, int]], bool],
        make: "Callable[[Scenes, int], Arrays]",
    ) -> Arrays:
        """Return the arrays of the set `kind` of `length` samples, from the cache, or made and put there.

        is_whole: of what the cache holds, for this length and size.
        """
        name = f"{kind}-v{VERSION}-seed{self.seed}-{self.split}-{self.size[0]}x{self.size[1]}-{length}.npz"
        file = (cache or cache_folder()) / name
        arrays = load_arrays(file)
        if not is_whole(arrays, length, self.size):
            arrays = make(self, length)
            store_arrays(file, arrays)
        return arrays


def check_split(split: str) -> None:
    """Raise InputError for a split that Toy City does not have."""
    if split not in SPLITS:
        raise InputError(f"Unknown split '{split}' of Toy City. {did_you_mean(split, SPLITS)}")


def check_length(length: int) -> int:
    """Return a number of samples that is at least 1; raise InputError for another."""
    if length < 1:
        raise InputError(f"Toy City length is {length}; at least 1 sample is needed. Give a larger length or none.")
    return length
