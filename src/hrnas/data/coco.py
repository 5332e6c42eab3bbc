"""The COCO 2017 layout for people: what `dataset: coco` in a data.yaml stands for.

PATH/annotations/person_keypoints_train2017.json, person_keypoints_val2017.json
PATH/train2017/*.jpg, PATH/val2017/*.jpg          or below PATH/images
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from hrnas.errors import InputError

_PARTS: Final[dict[Literal["train", "validation"], str]] = {"train": "train2017", "validation": "val2017"}


def find_splits(path: Path) -> Iterator[tuple[Literal["train", "validation"], str, str]]:
    """Yield (split, keypoint file, image folder), relative to `path`. Raises InputError naming what it lacks."""
    for split, part in _PARTS.items():
        file = f"annotations/person_keypoints_{part}.json"
        folders = [folder for folder in (part, f"images/{part}") if (path / folder).is_dir()]
        lacking = [file] * (not (path / file).is_file()) + [f"{part}/"] * (not folders)
        if lacking:
            raise InputError(
                f"{path} is not a COCO 2017 folder: it lacks {' and '.join(lacking)}. 'path' must name the folder that "
                "holds annotations/ and the images; for another layout leave out 'dataset' and give train and "
                "validation as {coco: FILE, images: FOLDER}."
            )
        yield split, file, folders[0]
