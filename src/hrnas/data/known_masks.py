"""Segmentation sets that need only a path: where their files are and what their label values mean."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hrnas.data import ade20k, camvid, cityscapes
from hrnas.data.description import Split, SplitFolders, SplitList, SplitSource
from hrnas.data.pictures import RGB


@dataclass(frozen=True, kw_only=True)
class KnownMasks:
    """A known segmentation set; its fields are DataDescription's.

    check_layout: raises InputError for a folder that is none.
    """

    check_layout: Callable[[Path], None]
    splits: Mapping[Split, SplitSource]
    names: tuple[str, ...]
    colors: tuple[RGB, ...]
    ignore: tuple[int, ...]
    label_map: Mapping[int, int | None] | None = None


KNOWN_MASKS: Final = {
    "ade20k": KnownMasks(
        check_layout=ade20k.check_layout,
        splits={
            split: SplitFolders(images=images, labels=labels) for split, (images, labels) in ade20k.FOLDERS.items()
        },
        names=ade20k.NAMES,
        colors=ade20k.COLORS,
        ignore=(),
        label_map=ade20k.LABEL_MAP,
    ),
    "camvid": KnownMasks(
        check_layout=camvid.check_layout,
        splits={
            "train": SplitList(list="train.txt"),
            "validation": SplitList(list="val.txt"),
            "test": SplitList(list="test.txt"),
        },
        names=camvid.NAMES,
        colors=camvid.COLORS,
        ignore=(camvid.VOID,),
    ),
    "cityscapes": KnownMasks(
        check_layout=cityscapes.check_layout,
        splits={
            split: SplitFolders(
                images=images,
                labels=labels,
                image_suffix=cityscapes.SUFFIXES[0],
                label_suffix=cityscapes.SUFFIXES[1],
            )
            for split, (images, labels) in cityscapes.FOLDERS.items()
        },
        names=cityscapes.NAMES,
        colors=cityscapes.COLORS,
        ignore=(),
        label_map=cityscapes.LABEL_MAP,
    ),
}
