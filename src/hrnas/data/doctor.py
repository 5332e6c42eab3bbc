"""The data doctor: reads a whole data set, collects what is wrong with it, and shows it on one sheet of pictures.

H height, W width in pixels.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hrnas.data.decoding import UNKNOWN_REMEDY, LabelTable, describe_unknown, read_image, read_values
from hrnas.data.description import DataDescription, Split
from hrnas.data.folders import Pair, Pairing, find_pairs, sizes_differ
from hrnas.data.opening import label_table, open_split
from hrnas.data.pictures import RGB
from hrnas.errors import InputError
from hrnas.structures import IGNORED

MOSTLY_IGNORED: Final = 0.5
"""Share of ignored pixels from which on the doctor asks whether `ignore` is meant so."""

Progress = Callable[[Split, int, int], None]
"""Called after each pair with (split, pairs read so far, pairs to read)."""


@dataclass(frozen=True, kw_only=True)
class UnknownValue:
    """A label value that no class covers: in how many pixels and files it was seen, and one of the files."""

    value: int
    pixels: int
    files: int
    example: str


@dataclass(frozen=True, kw_only=True)
class SplitExamination:
    """What was found in one split.

    num_pairs: images with a mask; num_read: those read in full and without a fault of the files themselves.
    sizes: number of images by (H, W). class_pixels: one count per class. ignored_pixels: void.
    unknown: label values no class covers. broken, mismatched: one line per file or pair, naming it.
    missing_masks: images without a mask; unused_masks: masks without an image. fault: why the split cannot be
    opened at all, if so.
    """

    split: Split
    num_pairs: int = 0
    num_read: int = 0
    sizes: Mapping[tuple[int, int], int] = field(default_factory=dict)
    class_pixels: tuple[int, ...] = ()
    ignored_pixels: int = 0
    unknown: tuple[UnknownValue, ...] = ()
    broken: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    missing_masks: tuple[Path, ...] = ()
    unused_masks: tuple[Path, ...] = ()
    fault: str | None = None

    @property
    def num_pixels(self) -> int:
        """Pixels of all masks read."""
        return sum(self.class_pixels) + self.ignored_pixels + sum(value.pixels for value in self.unknown)

    @property
    def class_shares(self) -> tuple[float, ...]:
        """Share of each class in all pixels, ignored ones included, 0..1."""
        return tuple(pixels / max(1, self.num_pixels) for pixels in self.class_pixels)

    @property
    def ignored_share(self) -> float:
        """Share of ignored pixels, 0..1."""
        return self.ignored_pixels / max(1, self.num_pixels)


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What the doctor found.

    splits: one entry per split that the description has, in the order train, validation, test.
    repeated: pairs ("train: name", "test: name") of images that are one and the same picture.
    problems: what would stop a search, one line each with the remedy. warnings: what will not, but is likely unmeant.
    """

    names: tuple[str, ...]
    colors: tuple[RGB, ...]
    splits: tuple[SplitExamination, ...]
    repeated: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Look:
    """One pair as far as it can be read. mask may hold UNKNOWN, whose values `unknown` counts by pixels."""

    name: str
    image: NDArray[np.uint8] | None = None
    mask: NDArray[np.uint8] | None = None
    unknown: Mapping[int, int] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    mismatch: str | None = None


def examine(description: DataDescription, limit: int | None = None, progress: Progress | None = None) -> Examination:
    """Read every split in full, or the first `limit` pairs of each, and report all that is found; never stops early."""
    splits: list[SplitExamination] = []
    seen: dict[bytes, str] = {}
    repeated: list[tuple[str, str]] = []
    for split in description.split_names:
        try:
            looks, pairing = look_through(description, split)
        except InputError as error:
            splits.append(SplitExamination(split=split, fault=str(error)))
            continue
        splits.append(_examine_split(description, split, looks, pairing, limit, progress, seen, repeated))
    problems = [line for found in splits for line in _problems(found)]
    if "validation" not in description.split_names:
        problems.append("The data description has no split 'validation', which a search needs. Add it to data.yaml.")
    return Examination(
        names=description.names,
        colors=description.colors,
        splits=tuple(splits),
        repeated=tuple(repeated),
        problems=tuple(problems),
        warnings=tuple(_warnings(description.names, splits, repeated)),
    )


def look_through(description: DataDescription, split: Split) -> tuple[Sequence[Callable[[], Look]], Pairing | None]:
    """Return a reader for each pair of a split, and how its files were paired (None for a set without files).

    Raises InputError when the split has no files to look at; the readers themselves never raise it.
    """
    if description.toycity is not None:
        scenes = open_split(description, split)

        def scene(index: int) -> Look:
            sample = scenes.read(index)
            return Look(name=sample.name, image=sample.image, mask=sample.mask)

        return [lambda index=index: scene(index) for index in range(len(scenes))], None
    pairing = find_pairs(description, split)
    labels = label_table(description)
    return [lambda pair=pair: _look(pair, labels) for pair in pairing.pairs], pairing


def _look(pair: Pair, labels: LabelTable) -> Look:
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
        mask = labels.apply(values)
        unknown = labels.unknown(values, mask)
    if image is not None and mask is not None and image.shape[:2] != mask.shape:
        mismatch = str(sizes_differ(pair, (image.shape[0], image.shape[1]), (mask.shape[0], mask.shape[1])))
    return Look(name=pair.name, image=image, mask=mask, unknown=unknown, broken=tuple(broken), mismatch=mismatch)


def _examine_split(
    description: DataDescription,
    split: Split,
    looks: Sequence[Callable[[], Look]],
    pairing: Pairing | None,
    limit: int | None,
    progress: Progress | None,
    seen: dict[bytes, str],
    repeated: list[tuple[str, str]],
) -> SplitExamination:
    """Look at the pairs of one split; `seen` and `repeated` carry what all splits have in common."""
    sizes: Counter[tuple[int, int]] = Counter()
    pixels = np.zeros(256, np.int64)
    unknown_pixels: Counter[int] = Counter()
    unknown_files: Counter[int] = Counter()
    examples: dict[int, str] = {}
    broken: list[str] = []
    mismatched: list[str] = []
    num_read = 0
    to_read = looks if limit is None else looks[:limit]
    for number, read in enumerate(to_read, 1):
        look = read()
        if look.image is not None:
            sizes[look.image.shape[0], look.image.shape[1]] += 1
            # Pixels rather than bytes of the file: the same picture stored again in another format is found as well.
            digest = blake2b(look.image.tobytes(), digest_size=16, key=repr(look.image.shape).encode()).digest()
            place = f"{split}: {look.name}"
            if seen.setdefault(digest, place) != place:
                repeated.append((seen[digest], place))
        if look.mask is not None:
            pixels += np.bincount(look.mask.ravel(), minlength=256)
            for value, count in look.unknown.items():
                unknown_pixels[value] += count
                unknown_files[value] += 1
                examples.setdefault(value, look.name)
        broken += look.broken
        mismatched += [look.mismatch] if look.mismatch else []
        num_read += not look.broken and look.mismatch is None
        if progress:
            progress(split, number, len(to_read))
    return SplitExamination(
        split=split,
        num_pairs=len(looks),
        num_read=num_read,
        sizes=dict(sizes.most_common()),
        class_pixels=tuple(int(count) for count in pixels[: description.num_classes]),
        ignored_pixels=int(pixels[IGNORED]),
        unknown=tuple(
            UnknownValue(value=value, pixels=count, files=unknown_files[value], example=examples[value])
            for value, count in unknown_pixels.most_common()
        ),
        broken=tuple(broken),
        mismatched=tuple(mismatched),
        missing_masks=pairing.missing if pairing else (),
        unused_masks=pairing.unused if pairing else (),
    )


def _problems(found: SplitExamination) -> Iterator[str]:
    """Yield what would stop a search in one split."""
    split = found.split
    if found.fault:
        yield found.fault
        return
    if found.missing_masks:
        yield (
            f"{split}: {_count(found.missing_masks, 'image')} without a mask, such as {found.missing_masks[0]}."
            " Add masks of the same stem, or take the images out of the split."
        )
    for files, what in ((found.broken, "broken file"), (found.mismatched, "pair")):
        if files:
            more = " of different sizes" if what == "pair" else ""
            yield f"{split}: {_count(files, what)}{more}, the first: {files[0]}"
    if found.unknown:
        values = describe_unknown({value.value: value.pixels for value in found.unknown})
        yield f"{split}: {values}; see '{found.unknown[0].example}'. {UNKNOWN_REMEDY}"
    if found.num_read and not any(found.class_pixels):
        yield f"{split}: not one pixel has a class; all are ignored or unknown. Check ignore, label_map and the masks."


def _warnings(
    names: Sequence[str], splits: Sequence[SplitExamination], repeated: Sequence[tuple[str, str]]
) -> Iterator[str]:
    """Yield what would not stop a search but is likely unmeant."""
    for found in splits:
        if found.split != "test" and any(found.class_pixels):
            absent = [name for name, count in zip(names, found.class_pixels, strict=True) if count == 0]
            if absent:
                effect = "be learnt" if found.split == "train" else "be scored"
                yield f"{found.split}: no pixel of {', '.join(absent)}, which therefore cannot {effect}."
        if found.ignored_share > MOSTLY_IGNORED:
            yield f"{found.split}: {found.ignored_share:.0%} of the pixels are ignored. Check ignore and label_map."
        if found.unused_masks:
            masks = _count(found.unused_masks, "mask")
            yield f"{found.split}: {masks} without an image, such as {found.unused_masks[0]}."
    across = [pair for pair in repeated if pair[0].split(":")[0] != pair[1].split(":")[0]]
    within = [pair for pair in repeated if pair not in across]
    if across:
        yield (
            f"{_count(across, 'picture')} in more than one split, such as '{across[0][0]}' = '{across[0][1]}'; scores"
            " on them say nothing about new pictures. Keep each in one split."
        )
    if within:
        yield f"{_count(within, 'picture')} twice in a split, such as '{within[0][0]}' = '{within[0][1]}'."


def _count(items: Sequence[object], what: str) -> str:
    return f"{len(items)} {what}{'s' * (len(items) != 1)}"
