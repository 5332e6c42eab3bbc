"""The data doctor: reads a whole data set and collects what is wrong with it.

What it counts is the task's: pixels, images or objects by class, people by labelled joint. K classes or joints.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np

from hrnas.data.coco_keypoints import sigma_warning
from hrnas.data.decoding import UNKNOWN_REMEDY, describe_unknown
from hrnas.data.description import DataDescription, Split
from hrnas.data.folders import Pairing
from hrnas.data.looks import COUNTED, Doubt, Look, look_through
from hrnas.data.pictures import RGB
from hrnas.errors import InputError

MOSTLY_IGNORED: Final = 0.5
"""Share of ignored pixels from which on the doctor asks whether `ignore` is meant so."""

Progress = Callable[[Split, int, int], None]
"""Called after each picture with (split, pictures read so far, pictures to read)."""


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

    num_pictures: images with labels; num_read: those read in full and without a fault of the files themselves.
    sizes: number of images by (H, W). counts: one per class or joint; scored: how many of
    these a score counts. total: what a count can be at most. ignored: pixels that are void.
    unknown: label values no class covers. broken, mismatched: one line per file or pair, naming it.
    missing_masks: images without a mask; unused_masks: masks without an image. doubts: what is likely unmeant, how
    often it was seen, and in which picture first. fault: why the split cannot be opened at all, if so.
    """

    split: Split
    num_pictures: int = 0
    num_read: int = 0
    sizes: Mapping[tuple[int, int], int] = field(default_factory=dict)
    counts: tuple[int, ...] = ()
    scored: tuple[int, ...] = ()
    total: int = 0
    ignored: int = 0
    unknown: tuple[UnknownValue, ...] = ()
    broken: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    missing_masks: tuple[Path, ...] = ()
    unused_masks: tuple[Path, ...] = ()
    doubts: tuple[tuple[Doubt, int, str], ...] = ()
    fault: str | None = None

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of each class or joint in the total, 0..1."""
        return tuple(count / max(1, self.total) for count in self.counts)

    @property
    def ignored_share(self) -> float:
        """Share of ignored pixels, 0..1."""
        return self.ignored / max(1, self.total)


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What the doctor found.

    counted: what was counted by class or joint, in words.
    splits: one entry per split that the description has, in the order train, validation, test.
    repeated: pairs ("train: name", "test: name") of images that are one and the same picture.
    problems: what would stop a search, one line each with the remedy. warnings: what will not, but is likely unmeant.
    """

    counted: str
    names: tuple[str, ...]
    colors: tuple[RGB, ...]
    splits: tuple[SplitExamination, ...]
    repeated: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def examine(description: DataDescription, limit: int | None = None, progress: Progress | None = None) -> Examination:
    """Read every split in full, or the first `limit` pictures of each, and report all that is found.

    Never stops early.
    """
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
        counted=COUNTED[description.task],
        names=description.names,
        colors=description.colors,
        splits=tuple(splits),
        repeated=tuple(repeated),
        problems=tuple(problems),
        warnings=tuple(_warnings(description, splits, repeated)),
    )


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
    """Look at the pictures of one split; `seen` and `repeated` carry what all splits have in common."""
    sizes: Counter[tuple[int, int]] = Counter()
    counts, scored = np.zeros((2, len(description.names)), np.int64)
    total = ignored = 0
    unknown_pixels: Counter[int] = Counter()
    unknown_files: Counter[int] = Counter()
    examples: dict[int, str] = {}
    broken: list[str] = []
    mismatched: list[str] = []
    doubts: Counter[Doubt] = Counter()
    doubted: dict[Doubt, str] = {}
    num_read = 0
    to_read = looks if limit is None else looks[:limit]
    for number, read in enumerate(to_read, 1):
        look = read()
        if look.image is not None:
            sizes[look.image.shape[0], look.image.shape[1]] += 1
        # Pixels rather than bytes of the file: the same picture stored again in another format is found as well.
        if (content := look.image if look.content is None else look.content) is not None and content.size:
            digest = blake2b(content.tobytes(), digest_size=16, key=repr(content.shape).encode()).digest()
            place = f"{split}: {look.name}"
            if seen.setdefault(digest, place) != place:
                repeated.append((seen[digest], place))
        if look.counts is not None:
            counts += look.counts
            scored += look.counts if look.scored is None else look.scored
            total, ignored = total + look.total, ignored + look.ignored
        for value, count in look.unknown.items():
            unknown_pixels[value] += count
            unknown_files[value] += 1
            examples.setdefault(value, look.name)
        doubts.update(look.doubts)
        for doubt in look.doubts:
            doubted.setdefault(doubt, look.name)
        broken += look.broken
        mismatched += [look.mismatch] if look.mismatch else []
        num_read += not look.broken and look.mismatch is None
        if progress:
            progress(split, number, len(to_read))
    return SplitExamination(
        split=split,
        num_pictures=len(looks),
        num_read=num_read,
        sizes=dict(sizes.most_common()),
        counts=tuple(int(count) for count in counts),
        scored=tuple(int(count) for count in scored),
        total=total,
        ignored=ignored,
        unknown=tuple(
            UnknownValue(value=value, pixels=count, files=unknown_files[value], example=examples[value])
            for value, count in unknown_pixels.most_common()
        ),
        broken=tuple(broken),
        mismatched=tuple(mismatched),
        missing_masks=pairing.missing if pairing else (),
        unused_masks=pairing.unused if pairing else (),
        doubts=tuple((doubt, count, doubted[doubt]) for doubt, count in doubts.items()),
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
    if found.num_read and not any(found.counts):
        yield f"{split}: nothing is labelled; all is ignored or unknown. Check the labels, ignore and label_map."


def _warnings(
    description: DataDescription, splits: Sequence[SplitExamination], repeated: Sequence[tuple[str, str]]
) -> Iterator[str]:
    """Yield what would not stop a search but is likely unmeant."""
    counted, names, skeleton = COUNTED[description.task], description.names, description.skeleton
    for found in splits:
        if found.split != "test" and any(found.counts):
            absent = [name for name, count in zip(names, found.counts, strict=True) if count == 0]
            if absent:
                effect = "be learnt" if found.split == "train" else "be scored"
                yield f"{found.split}: no {counted} {', '.join(absent)}, which therefore cannot {effect}."
        of_names = zip(names, found.counts, found.scored, strict=False)  # no counts of a split that cannot be opened
        unscored = [name for name, count, scored in of_names if count and not scored]
        if unscored:
            yield (
                f"{found.split}: no {counted} {', '.join(unscored)} counts in any difficulty (height in the image,"
                " occlusion, truncation), so there is no score. See columns 2, 3 and 5 to 8 of the labels."
            )
        if found.ignored_share > MOSTLY_IGNORED:
            yield f"{found.split}: {found.ignored_share:.0%} of the pixels are ignored. Check ignore and label_map."
        if found.unused_masks:
            masks = _count(found.unused_masks, "mask")
            yield f"{found.split}: {masks} without an image, such as {found.unused_masks[0]}."
        for doubt, count, name in found.doubts:
            noun = f"{doubt.noun}{'s' * (count != 1)}"
            yield f"{found.split}: {count} {noun} {doubt.fact}, such as in '{name}'. {doubt.remedy}"
    across = [pair for pair in repeated if pair[0].split(":")[0] != pair[1].split(":")[0]]
    within = [pair for pair in repeated if pair not in across]
    if skeleton is not None and (line := sigma_warning(skeleton)):
        yield line
    if across:
        yield (
            f"{_count(across, 'picture')} in more than one split, such as '{across[0][0]}' = '{across[0][1]}'; scores"
            " on them say nothing about new pictures. Keep each in one split."
        )
    if within:
        yield f"{_count(within, 'picture')} twice in a split, such as '{within[0][0]}' = '{within[0][1]}'."


def _count(items: Sequence[object], what: str) -> str:
    return f"{len(items)} {what}{'s' * (len(items) != 1)}"
