"""Classification sets kept as a folder for each class: finding the images, and reading them.

H height, W width in pixels.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hrnas.data.decoding import IMAGE_ENDINGS, read_image
from hrnas.data.pictures import RGB
from hrnas.errors import InputError
from hrnas.structures import Sample


@dataclass(frozen=True, kw_only=True)
class ClassSet:
    """A split of image files with a class each, opened. images: (file, class index, name), by class, then by name."""

    images: Sequence[tuple[Path, int, str]]
    names: tuple[str, ...]
    colors: tuple[RGB, ...]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Sample[int]:
        """Decode image `index`, uint8 (H, W, 3). Raises InputError naming the file."""
        file, label, name = self.images[index]
        return Sample(content=read_image(file), truth=label, name=name)

    def pictures(self) -> dict[str, list[int]]:
        """Return the samples of each picture by its name: one."""
        return {name: [index] for index, (_, _, name) in enumerate(self.images)}


def class_folders(folder: Path) -> tuple[str, ...]:
    """Return the names of the folders in a split's folder, sorted: its classes. Raises InputError where it has none."""
    names = _folders_in(folder)
    if len(names) < 2:
        raise InputError(
            f"{folder} holds {len(names)} class folder{'s' * (len(names) != 1)}; at least 2 are needed, each with the "
            "images of one class. Sort the images into folders, or mend 'path'."
        )
    return names


def find_images(folder: Path, folders: Sequence[str], split: str) -> list[tuple[Path, int, str]]:
    """Return (file, class index, name) for each image below a split's class folders, hidden ones left out.

    The name is the path below the split's folder, without the ending where that leaves it unique.
    Raises InputError when a class folder is missing, empty or unknown, naming it.
    """
    present = _folders_in(folder)
    if unknown := sorted(set(present) - set(folders)):
        raise InputError(
            f"{folder} of split '{split}' has the class folder '{unknown[0]}', which is not among the {len(folders)} "
            "classes of the training split or of 'names'. Remove it, or add it there."
        )
    found: list[tuple[Path, int]] = []
    for index, name in enumerate(folders):
        if name not in present:
            raise InputError(
                f"Class folder {folder / name} of split '{split}' does not exist. Add it with images of the class, or "
                "take the class out of the other splits and of 'names'."
            )
        images = sorted(
            file
            for file in (folder / name).rglob("*")
            if file.suffix.lower() in IMAGE_ENDINGS
            and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        )
        if not images:
            raise InputError(
                f"Class folder {folder / name} of split '{split}' is empty: it holds no image "
                f"({', '.join(sorted(IMAGE_ENDINGS))}). Add images, or take the class out of every split."
            )
        found += [(file, index) for file in images]
    paths = [file.relative_to(folder) for file, _ in found]
    stems = Counter(path.with_suffix("") for path in paths)
    return [
        (file, index, (path.with_suffix("") if stems[path.with_suffix("")] == 1 else path).as_posix())
        for (file, index), path in zip(found, paths, strict=True)
    ]


def _folders_in(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise InputError(f"Folder {folder} does not exist; it must hold a folder for each class. Mend 'path'.")
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
