"""Boxes for images without labels: by file name or path, and what is wrong with a file, in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from hrnas.data.boxes import read_boxes
from hrnas.errors import InputError

IMAGES = [Path("a/x.png"), Path("b/x.png"), Path("b/y.png")]


def write(folder: Path, plain: Any) -> Path:
    file = folder / "boxes.json"
    file.write_text(plain if isinstance(plain, str) else json.dumps(plain))
    return file


def test_an_image_is_named_by_its_path_or_by_a_name_of_its_own(tmp_path: Path) -> None:
    file = write(tmp_path, {"a/x.png": [[1, 2, 3, 4]], "y.png": [[0, 0, 5, 5], [1, 1, 2, 2.5]]})
    assert read_boxes(file, IMAGES) == {IMAGES[0]: [(1, 2, 3, 4)], IMAGES[2]: [(0, 0, 5, 5), (1, 1, 2, 2.5)]}


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"x.png": [[1, 2, 3, 4]]}, r"'x\.png'.* 2 images"),
        ({"z.png": [[1, 2, 3, 4]]}, r"boxes for 'z\.png'"),
        ({"y.png": []}, "has no list of boxes"),
        ({"y.png": [[1, 2, 3]]}, r"the box \[1, 2, 3\]"),
        ({"y.png": [[1, 2, 0, 4]]}, "with a positive area"),
        ({"y.png": [[1, 2, 10**400, 4]]}, "with a positive area"),
        ({"y.png": [1, 2, 3, 4]}, "the box 1"),
        ([{"image_id": 1, "bbox": [1, 2, 3, 4]}], "is list; a mapping is needed"),
        ("not json", "cannot be read as JSON"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, plain: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_boxes(write(tmp_path, plain), IMAGES)
    assert "\n" not in str(error.value)
