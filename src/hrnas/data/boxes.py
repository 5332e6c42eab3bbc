"""A file of boxes for images without labels."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hrnas.errors import InputError, did_you_mean

Box = tuple[float, float, float, float]


def read_boxes(file: Path, images: Sequence[Path]) -> dict[Path, list[Box]]:
    """Return the boxes x, y, width, height in pixels of each image.

    images: those the boxes can be of, in the file by their path as given here, or by the file's name where that is of
    one alone. Raises InputError for another shape of file, or boxes of another image.
    """
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON ({error}). Give a file of image name -> boxes.") from None
    if not isinstance(plain, dict):
        raise InputError(
            f'{file} is {type(plain).__name__}; a mapping is needed: {{"photo.jpg": [[x, y, width, height]]}}.'
        )
    counts = Counter(image.name for image in images)
    places = {image.name: image for image in images} | {str(image): image for image in images}
    boxes: dict[Path, list[Box]] = {}
    for name, entries in plain.items():
        if counts[name] > 1:
            raise InputError(
                f"{file} has boxes for '{name}', which {counts[name]} images are called. Give their paths."
            )
        if name not in places:
            raise InputError(
                f"{file} has boxes for '{name}', which is not among the images. {did_you_mean(name, places)}"
            )
        if not isinstance(entries, list) or not entries:
            raise InputError(f"{file}: '{name}' has no list of boxes; give at least one, or leave the image out.")
        boxes[places[name]] = [_box(file, name, entry) for entry in entries]
    return boxes


def _box(file: Path, name: str, entry: object) -> Box:
    is_box = (
        isinstance(entry, list)
        and len(entry) == 4
        and all(
            isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < 1e9 for number in entry
        )
    )
    if not is_box or entry[2] <= 0 or entry[3] <= 0:  # type: ignore[index]
        raise InputError(f"{file}: '{name}' has the box {entry}; [x, y, width, height] with a positive area is needed.")
    x, y, width, height = map(float, entry)  # type: ignore[call-overload]
    return x, y, width, height
