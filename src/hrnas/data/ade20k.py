"""The ADE20K layout of the 2016 challenge (150 classes): what `dataset: ade20k` in a data.yaml stands for.

    PATH/images/{training,validation}/ADE_*.jpg
    PATH/annotations/{training,validation}/ADE_*.png

as ADEChallengeData2016.zip unpacks. Masks are grey: 0 is void, value v is class v - 1. There is no test split: its
masks are not handed out.
Source: sceneparsing.csail.mit.edu; names are the first ones of its objectInfo150.
"""

from pathlib import Path
from typing import Final

from hrnas.data.layout import check_folders
from hrnas.data.pictures import default_palette

NAMES: Final = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet",
    "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water",
    "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk",
    "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box", "column", "signboard",
    "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path",
    "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge", "bookcase",
    "blind", "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove", "palm",
    "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus", "towel", "light",
    "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television receiver", "airplane",
    "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet", "poster",
    "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool", "stool",
    "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step", "tank",
    "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture",
    "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen", "plate", "monitor",
    "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip

COLORS: Final = default_palette(len(NAMES))

LABEL_MAP: Final = {0: None, **{index + 1: index for index in range(len(NAMES))}}
"""File value -> class index, None = void: a `label_map` that covers every value of the set; nothing is in `ignore`."""

FOLDERS: Final = {
    "train": ("images/training", "annotations/training"),
    "validation": ("images/validation", "annotations/validation"),
}
"""The folders of images and of masks of each split, paired by stems."""


def check_layout(path: Path) -> None:
    """Raise InputError naming the folders that `path` lacks to be the ADE20K folder."""
    check_folders(
        path,
        [folder for folders in FOLDERS.values() for folder in folders],
        known="ADE20K's 150 classes",
        below="ADEChallengeData2016",
        remedy="the folder ADEChallengeData2016 that ADEChallengeData2016.zip unpacks to",
    )
