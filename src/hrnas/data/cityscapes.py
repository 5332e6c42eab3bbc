"""The Cityscapes layout: what `dataset: cityscapes` in a data.yaml stands for.

    PATH/leftImg8bit/{train,val}/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png
    PATH/gtFine/{train,val}/CITY/CITY_SEQUENCE_FRAME_gtFine_labelIds.png

as the archives leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip unpack; other files of gtFine are not needed.
There is no test split: the masks that are handed out with it hold no class anywhere, so that a score on it would say
nothing. `hrnas predict` reads its images.
Source: github.com/mcordts/cityscapesScripts, the table of labels.
"""

from pathlib import Path
from typing import Final, NamedTuple

from hrnas.data.layout import check_folders
from hrnas.data.pictures import RGB


class Label(NamedTuple):
    """One label: its value in a labelIds file, its name, its class index or None for void, its colour."""

    value: int
    name: str
    class_index: int | None
    color: RGB


LABELS: Final = (
    Label(0, "unlabeled", None, (0, 0, 0)),
    Label(1, "ego vehicle", None, (0, 0, 0)),
    Label(2, "rectification border", None, (0, 0, 0)),
    Label(3, "out of roi", None, (0, 0, 0)),
    Label(4, "static", None, (0, 0, 0)),
    Label(5, "dynamic", None, (111, 74, 0)),
    Label(6, "ground", None, (81, 0, 81)),
    Label(7, "road", 0, (128, 64, 128)),
    Label(8, "sidewalk", 1, (244, 35, 232)),
    Label(9, "parking", None, (250, 170, 160)),
    Label(10, "rail track", None, (230, 150, 140)),
    Label(11, "building", 2, (70, 70, 70)),
    Label(12, "wall", 3, (102, 102, 156)),
    Label(13, "fence", 4, (190, 153, 153)),
    Label(14, "guard rail", None, (180, 165, 180)),
    Label(15, "bridge", None, (150, 100, 100)),
    Label(16, "tunnel", None, (150, 120, 90)),
    Label(17, "pole", 5, (153, 153, 153)),
    Label(18, "polegroup", None, (153, 153, 153)),
    Label(19, "traffic light", 6, (250, 170, 30)),
    Label(20, "traffic sign", 7, (220, 220, 0)),
    Label(21, "vegetation", 8, (107, 142, 35)),
    Label(22, "terrain", 9, (152, 251, 152)),
    Label(23, "sky", 10, (70, 130, 180)),
    Label(24, "person", 11, (220, 20, 60)),
    Label(25, "rider", 12, (255, 0, 0)),
    Label(26, "car", 13, (0, 0, 142)),
    Label(27, "truck", 14, (0, 0, 70)),
    Label(28, "bus", 15, (0, 60, 100)),
    Label(29, "caravan", None, (0, 0, 90)),
    Label(30, "trailer", None, (0, 0, 110)),
    Label(31, "train", 16, (0, 80, 100)),
    Label(32, "motorcycle", 17, (0, 0, 230)),
    Label(33, "bicycle", 18, (119, 11, 32)),
    Label(-1, "license plate", None, (0, 0, 142)),
)
"""All labels. -1 is not drawn in the masks; a file of 8 bits into which someone drew it holds 255."""

_CLASSES: Final = tuple(label for label in LABELS if label.class_index is not None)

NAMES: Final = tuple(label.name for label in _CLASSES)

COLORS: Final = tuple(label.color for label in _CLASSES)

LABEL_MAP: Final = {label.value % 256: label.class_index for label in LABELS}
"""File value -> class index, None = void: a `label_map` that covers every value of the set; nothing is in `ignore`."""

FOLDERS: Final = {
    "train": ("leftImg8bit/train", "gtFine/train"),
    "validation": ("leftImg8bit/val", "gtFine/val"),
}
"""The folders of images and of masks of each split."""

SUFFIXES: Final = ("_leftImg8bit", "_gtFine_labelIds")
"""What follows the name, CITY_SEQUENCE_FRAME, in the stem of an image and of its mask."""


def check_layout(path: Path) -> None:
    """Raise InputError naming the folders that `path` lacks to be the Cityscapes folder."""
    check_folders(
        path,
        [folder for kind in zip(*FOLDERS.values(), strict=True) for folder in kind],
        known="Cityscapes",
        below="cityscapes",
        remedy="the folder into which leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip were unpacked",
    )
