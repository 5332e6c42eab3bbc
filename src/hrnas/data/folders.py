"""Splits kept as files: which mask belongs to which image, and reading the pairs.

H height, W width in pixels.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hrnas.data.decoding import IMAGE_ENDINGS, LabelTable, picture_size, read_image, read_mask
from hrnas.data.description import DataDescription, Split, SplitFolders, SplitList
from hrnas.data.pictures import RGB
from hrnas.errors import InputError
from hrnas.structures import Mask, Sample

MASK_ENDINGS: Final = frozenset({".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm"})
"""Lossless ones only: JPEG invents label values along edges."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One image file and its mask file; name is unique within the split."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """The pairs of a split, and what could not be paired: image files without a mask, mask files without an image."""

    pairs: tuple[Pair, ...]
    missing: tuple[Path, ...] = ()
    unused: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FolderSet:
    """A split of image and mask files, opened: every pair exists and agrees in size (`opening.open_split` checks)."""

    pairs: Sequence[Pair]
    names: tuple[str, ...]
    colors: tuple[RGB, ...]
    labels: LabelTable = field(repr=False)

    def __len__(self) -> int:
        return len(self.pairs)

    def pictures(self) -> dict[str, list[int]]:
        """Return the samples of each picture by its name: one."""
        return {pair.name: [index] for index, pair in enumerate(self.pairs)}

    def read(self, index: int) -> Sample[Mask]:
        """Decode pair `index`: image uint8 (H, W, 3), mask uint8 (H, W). Raises InputError naming the file."""
        pair = self.pairs[index]
        image = read_image(pair.image)
        mask = read_mask(pair.mask, self.labels)
        if image.shape[:2] != mask.shape:
            raise sizes_differ(pair, (image.shape[0], image.shape[1]), (mask.shape[0], mask.shape[1]))
        return Sample(content=image, truth=mask, name=pair.name)


def find_pairs(description: DataDescription, split: Split) -> Pairing:
    """Return which mask belongs to which image, from file names alone, sorted (a list file: in its order).

    Raises InputError when the split has no folder, no list file or no image, or when the pairing is not unique.
    """
    assert description.path is not None, "a set that needs no files has no pairs"
    source = description.splits[split]
    if isinstance(source, SplitList):
        return _listed(description.path, source, split)
    assert isinstance(source, SplitFolders), "not a split of masks"
    return _paired(description.path, source, split)


def check_pair(pair: Pair) -> tuple[int, int]:
    """Return the (H, W) that image and mask share, from their headers. Raises InputError when they differ."""
    image, mask = picture_size(pair.image, "Image"), picture_size(pair.mask, "Mask")
    if image != mask:
        raise sizes_differ(pair, image, mask)
    return image


def sizes_differ(pair: Pair, image: tuple[int, int], mask: tuple[int, int]) -> InputError:
    """Return the error for an image and a mask of different (H, W)."""
    turned = " EXIF orientation may have turned the image: store both upright." if image == mask[::-1] else ""
    return InputError(
        f"Image {pair.image} is {image[1]}x{image[0]} but its mask {pair.mask} is {mask[1]}x{mask[0]} (width x height);"
        f" they must be the same size. Replace one of them, or take the pair out of its split.{turned}"
    )


def _listed(root: Path, source: SplitList, split: Split) -> Pairing:
    file = root / source.list
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The list file {file} of split '{split}' cannot be read. Mend {split}.list.") from error
    pairs: list[Pair] = []
    missing: list[Path] = []
    names: set[str] = set()
    for number, line in enumerate(lines, 1):
        parts = line.split("\t") if "\t" in line else line.split()
        if not parts:
            continue
        if len(parts) != 2:
            raise InputError(
                f"{file}, line {number}: '{line.strip()}' has {len(parts)} parts; it must be 'image mask'."
                " Separate them by a tab where a name holds spaces."
            )
        image, mask = root / parts[0].strip(), root / parts[1].strip()
        name = Path(parts[0].strip()).with_suffix("").as_posix()
        if name in names:
            raise InputError(f"{file}, line {number}: '{parts[0]}' is listed twice. Take one of them out.")
        names.add(name)
        if mask.is_file():
            pairs.append(Pair(name=name, image=image, mask=mask))
        else:
            missing.append(image)
    if not names:
        raise InputError(f"Split '{split}' is empty: {file} lists no pair. Add 'image mask' lines.")
    return Pairing(pairs=tuple(_short_names(pairs)), missing=tuple(missing))


def _paired(root: Path, source: SplitFolders, split: Split) -> Pairing:
    image_folder, mask_folder = root / source.images, root / source.labels
    for key, folder in (("images", image_folder), ("labels", mask_folder)):
        if not folder.is_dir():
            raise InputError(f"Folder {folder} of split '{split}' does not exist. Mend {split}.{key}.")
    if image_folder.resolve() == mask_folder.resolve():
        raise InputError(
            f"Split '{split}' has images and masks in one folder, {image_folder}. Put them in two, or give a list file."
        )
    images = _files(image_folder, IMAGE_ENDINGS, split, source.image_suffix)
    masks = _files(mask_folder, MASK_ENDINGS, split, source.label_suffix)
    if not images:
        raise InputError(
            f"Split '{split}' is empty: {image_folder} holds no image ({_wanted(source.image_suffix, IMAGE_ENDINGS)})."
            f" Add images, or mend {split}.images."
        )
    if not masks:
        raise InputError(
            f"{mask_folder} of split '{split}' holds no mask ({_wanted(source.label_suffix, MASK_ENDINGS)}; JPEG would "
            f"alter label values). Add masks, or mend {split}.labels."
        )
    suffix = "" if source.label_suffix else _common_suffix(images, masks, mask_folder, split)
    pairs = [
        Pair(name=stem, image=image, mask=masks[stem + suffix])
        for stem, image in images.items()
        if stem + suffix in masks
    ]
    used = {pair.mask for pair in pairs}
    return Pairing(
        pairs=tuple(_short_names(pairs)),
        missing=tuple(image for stem, image in images.items() if stem + suffix not in masks),
        unused=tuple(mask for stem, mask in masks.items() if stem.endswith(suffix) and mask not in used),
    )


def _wanted(suffix: str | None, endings: frozenset[str]) -> str:
    return ", ".join(f"*{suffix}{ending}" if suffix else ending for ending in sorted(endings))


def _files(folder: Path, endings: frozenset[str], split: Split, suffix: str | None) -> dict[str, Path]:
    """Return files below a folder, sorted, by their path relative to it without the ending and a given suffix."""
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        relative = file.relative_to(folder)
        if file.suffix.lower() not in endings or any(part.startswith(".") for part in relative.parts):
            continue
        stem = relative.with_suffix("").as_posix()
        if suffix:
            if not stem.endswith(suffix):
                continue
            stem = stem.removesuffix(suffix)
        if stem in found:
            raise InputError(
                f"Split '{split}' holds {found[stem]} and {file}, which differ in their ending alone. Keep one of them."
            )
        found[stem] = file
    return found


def _common_suffix(images: Iterable[str], masks: Iterable[str], mask_folder: Path, split: Split) -> str:
    """Return what follows the image's stem in its mask's stem: the one suffix that serves the most images.

    A suffix is empty or starts with a sign such as "_", so that mask "10" is not taken for image "1".
    """
    stems = set(images)
    served: Counter[str] = Counter()
    for mask in masks:
        for end in range(1, len(mask) + 1):
            suffix = mask[end:]
            if mask[:end] in stems and (not suffix or not suffix[0].isalnum()):
                served[suffix] += 1
    if not served:
        return ""
    most = max(served.values())
    best = sorted(suffix for suffix, count in served.items() if count == most)
    if "" in best or len(best) == 1:
        return best[0]
    shown = ", ".join(f"'{suffix}'" for suffix in best)
    raise InputError(
        f"Split '{split}' has several masks per image in {mask_folder}, ending in {shown}."
        " Keep one kind in that folder, or give a list file of 'image mask' lines."
    )


def _short_names(pairs: list[Pair]) -> list[Pair]:
    """Name pairs by the stem alone where that is unique, else by the relative path: predictions are named after it."""
    stems = [Path(pair.name).name for pair in pairs]
    if len(set(stems)) < len(stems):
        return pairs
    return [Pair(name=stem, image=pair.image, mask=pair.mask) for stem, pair in zip(stems, pairs, strict=True)]
