"""Toy City's drives as files in KITTI's layout: a split kept in the cache, or a whole set for whoever wants one."""

import errno
import json
import os
import tempfile
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from PIL import Image

from hrnas.cache import cache_folder
from hrnas.data.description import SPLITS, Split, SplitKitti
from hrnas.data.kitti import KittiSet, find_frames
from hrnas.data.kitti_classes import CLASSES, COLORS, TYPES
from hrnas.data.kitti_files import write_calibration, write_objects, write_points
from hrnas.data.progress import ShowProgress, unseen
from hrnas.data.toycity.drives import Recording, draw_recording
from hrnas.data.toycity.scenes import VERSION, check_length, check_split
from hrnas.errors import InputError

LABELS: Final = 2
"""Part of every cached split's name: raise it when a change alters any point, label or choice of objects."""
LENGTHS: Final[dict[Split, int]] = {"train": 256, "validation": 64, "test": 64}
"""Frames of each split where no number is given."""

_LISTS: Final[dict[Split, str]] = {"train": "train", "validation": "val", "test": "test"}
_CONTENTS: Final = "contents.json"
_FILES: Final = (("velodyne", "bin"), ("calib", "txt"), ("label_2", "txt"), ("image_2", "png"))


def open_toycity_scenes(
    split: Split,
    *,
    length: int | None = None,
    seed: int = 0,
    cache: Path | None = None,
    progress: ShowProgress = unseen,
) -> KittiSet:
    """Open a split of Toy City's drives: points, calibration, boxes in space and image; nothing is downloaded.

    Frame i of a split is a function of the seed, the split and i alone. The split's files lie in a folder of their own
    in the cache, about 0.8 MB a frame; where it is not there, or not whole, they are made, in about 0.25 s a frame on
    one core.

    split: "train", "validation" or "test", which share no world.
    length: number of frames; 256, 64 and 64 when not given. The first frames are the same at any length.
    seed: another seed makes another city.
    cache: folder for the splits; $HRNAS_CACHE, $XDG_CACHE_HOME/hrnas or ~/.cache/hrnas when not given.
    progress: shows how far it is while frames are made.

    Raises InputError for an unknown split, a length below 1 or a cache that cannot be written to.
    """
    check_split(split)
    length = check_length(LENGTHS[split] if length is None else length)
    folder = (cache or cache_folder()) / f"toycity-drives{LABELS}-v{VERSION}-seed{seed}-{split}-{length}"
    if not _is_whole(folder, split, length):
        try:
            _make(folder, split, length, seed, progress)
        except OSError as error:
            raise InputError(
                f"Toy City's drives cannot be written to {folder} ({error.strerror}); they take about"
                f" {0.8 * length:,.0f} MB there. Make room, or name another folder as HRNAS_CACHE."
            ) from None
    source = SplitKitti(kitti="training", list=f"ImageSets/{_LISTS[split]}.txt")
    return KittiSet(
        frames=find_frames(folder, source, split), names=tuple(known.name for known in CLASSES), colors=COLORS,
        classes=CLASSES,
    )  # fmt: skip


def write_kitti_set(
    folder: Path, *, train: int, validation: int, test: int, seed: int = 0, progress: ShowProgress = unseen
) -> Mapping[str, int]:
    """Write Toy City's drives as a set in KITTI's layout, with a data.yaml; return how many objects each type has.

    training/ holds the frames of all splits, numbered through; ImageSets/ the lists train.txt, val.txt, test.txt (where
    there are any) and trainval.txt. The frames are those of `open_toycity_scenes`. The lists and data.yaml are written
    last: a set without them was not finished.

    folder: is made; may be there, but empty. train, validation, test: numbers of frames, of the first two at least 1.

    Raises InputError for a folder with something in it and for a number of frames that is too low.
    """
    counts: dict[Split, int] = {"train": check_length(train), "validation": check_length(validation), "test": test}
    if test < 0:
        raise InputError(f"Toy City length is {test}; a number of frames must be 0 or more. Give 0 for no test split.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there and not an empty folder. Name another, or remove it.")
    drawn = [(split, number) for split in SPLITS for number in range(counts[split])]
    objects: Counter[str] = Counter()
    with progress("Driving through Toy City", len(drawn)) as show:
        for place, (split, number) in enumerate(drawn):
            recording = draw_recording(split, number, seed)
            _write_frame(folder / "training", f"{place:06d}", recording)
            objects.update(recording.objects.types)
            show(place + 1)
    names: dict[str, list[str]] = {_LISTS[split]: [] for split in SPLITS if counts[split]}
    for place, (split, _) in enumerate(drawn):
        names[_LISTS[split]].append(f"{place:06d}")
    _write_lists(folder, names | {"trainval": names["train"] + names["val"]})
    splits = (
        f"{split}: {{kitti: training, list: ImageSets/{_LISTS[split]}.txt}}\n" for split in counts if counts[split]
    )
    classes = ", ".join(known.name for known in CLASSES)
    (folder / "data.yaml").write_text(
        f"task: detection3d\npath: .\n{''.join(splits)}names: [{classes}]\n", encoding="utf-8"
    )
    return {name: objects[name] for name in TYPES if name in objects}


def _make(folder: Path, split: Split, length: int, seed: int, progress: ShowProgress) -> None:
    """Make a split's folder beside its place, then rename it: nobody ever sees half of it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.", suffix=".tmp") as temporary:
        made = Path(temporary) / "made"
        names = [f"{number:06d}" for number in range(length)]
        with progress(f"Driving through Toy City for {split}", length) as show:
            for number, name in enumerate(names):
                _write_frame(made / "training", name, draw_recording(split, number, seed))
                show(number + 1)
        _write_lists(made, {_LISTS[split]: names})
        contents = {name: _sum_of(made / name) for name in _names(split, length)}
        (made / _CONTENTS).write_text(json.dumps(contents), encoding="utf-8")
        _put(made, folder, split, length)


def _put(made: Path, folder: Path, split: Split, length: int) -> None:
    """Rename `made`, which has its parent folder to itself, to `folder`, unless another process was faster."""
    while True:
        try:
            os.rename(made, folder)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        else:
            return
        if _is_whole(folder, split, length):
            return
        try:
            os.rename(folder, made.parent / "damaged")
        except FileNotFoundError:
            continue  # another process has taken it away


def _write_frame(root: Path, name: str, recording: Recording) -> None:
    """Write a frame's files into the folders below root, as KITTI has them."""
    points, calibration, labels, image = (root / part / f"{name}.{ending}" for part, ending in _FILES)
    for file in (points, calibration, labels, image):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_points(points, recording.points)
    write_calibration(calibration, recording.calibration)
    write_objects(labels, recording.objects)
    Image.fromarray(recording.image).save(image, compress_level=1)  # the higher levels take four times as long


def _write_lists(folder: Path, names: Mapping[str, list[str]]) -> None:
    (folder / "ImageSets").mkdir(parents=True, exist_ok=True)
    for which, listed in names.items():
        (folder / "ImageSets" / f"{which}.txt").write_text("".join(f"{name}\n" for name in listed), encoding="ascii")


def _names(split: Split, length: int) -> list[str]:
    """Return the files of a split of so many frames, relative to its folder."""
    frames = [f"training/{part}/{number:06d}.{ending}" for number in range(length) for part, ending in _FILES]
    return [f"ImageSets/{_LISTS[split]}.txt", *frames]


def _sum_of(file: Path) -> int:
    return zlib.crc32(file.read_bytes())


def _is_whole(folder: Path, split: Split, length: int) -> bool:
    """Return whether a folder of the cache has all its files, each as it was written."""
    try:
        contents = json.loads((folder / _CONTENTS).read_text(encoding="utf-8"))
        return list(contents) == _names(split, length) and all(
            _sum_of(folder / name) == crc for name, crc in contents.items()
        )
    except (OSError, ValueError, AttributeError, TypeError):
        return False
