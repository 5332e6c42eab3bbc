"""The contact sheet: some pictures of every split, each beside its labels, over a legend of the classes or joints."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hrnas.data.description import DataDescription, Split
from hrnas.data.looks import Look, look_through
from hrnas.data.pictures import IGNORED_COLOR, UNKNOWN_COLOR, legend
from hrnas.data.skeletons import LEGEND
from hrnas.errors import InputError

_USUAL_TILE: Final = 168
_USUAL_COLUMNS: Final = 4
GAP: Final = 10
CAPTION: Final = 18
HEADER: Final = 30
_WIDTH: Final = _USUAL_COLUMNS * 2 * _USUAL_TILE + (_USUAL_COLUMNS + 1) * GAP
_GREY: Final = (200, 200, 200)

Pair = tuple[NDArray[np.uint8] | None, NDArray[np.uint8] | None]


def contact_sheet(description: DataDescription, path: Path, per_split: int = 8) -> Path:
    """Write a PNG with up to `per_split` pictures of each split, evenly spread over it; return its path.

    What cannot be read is shown as a grey tile; pixels whose value no class covers are magenta, void is black.
    """
    rows: list[Image.Image] = []
    names, colors = list(description.names), list(description.colors)
    if description.skeleton is not None:
        names, colors = [name for name, _ in LEGEND], [color for _, color in LEGEND]
    if description.ignore or None in (description.label_map or {}).values():
        names, colors = [*names, "ignored"], [*colors, IGNORED_COLOR]
    for split in description.split_names:
        picture, looks = _split_rows(description, split, per_split)
        rows.append(picture)
        if any(look.unknown for look in looks) and UNKNOWN_COLOR not in colors:
            names.append("value no class covers")
            colors.append(UNKNOWN_COLOR)
    rows.append(legend(names, colors, _WIDTH))
    sheet = Image.new("RGB", (_WIDTH, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, format="PNG")
    return path


def _split_rows(description: DataDescription, split: Split, per_split: int) -> tuple[Image.Image, list[Look]]:
    """Return the header and the tiles of one split, and what they show."""
    font, small = ImageFont.load_default(size=16), ImageFont.load_default(size=11)
    try:
        readers, _ = look_through(description, split)
    except InputError as error:
        picture = Image.new("RGB", (_WIDTH, HEADER), "white")
        ImageDraw.Draw(picture).text((GAP, HEADER / 2), f"{split}: {error}", fill="red", font=small, anchor="lm")
        return picture, []
    chosen = np.linspace(0, len(readers) - 1, min(per_split, len(readers))).round().astype(int)
    looks = [readers[index]() for index in chosen]
    pairs = [_pictures(look) for look in looks]
    columns = _USUAL_COLUMNS // max((look.room for look in looks), default=1)
    wide = (_WIDTH - (columns + 1) * GAP) // columns // 2
    tall = _tile_height(looks, pairs, wide)
    num_rows = -(-len(looks) // columns)
    picture = Image.new("RGB", (_WIDTH, HEADER + num_rows * (tall + CAPTION + GAP)), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((GAP, HEADER / 2), f"{split} · {len(readers)} pictures", fill="black", font=font, anchor="lm")
    for number, (look, pair) in enumerate(zip(looks, pairs, strict=True)):
        left = GAP + number % columns * (2 * wide + GAP)
        top = HEADER + number // columns * (tall + CAPTION + GAP)
        picture.paste(_pair_tile(pair, (tall, wide), is_photo=look.is_photo), (left, top))
        size = "" if look.image is None else f"  {look.image.shape[1]}x{look.image.shape[0]}"
        name = look.name if len(look.name) <= 40 else f"…{look.name[-39:]}"
        draw.text((left, top + tall + CAPTION / 2), name + size, fill="black", font=small, anchor="lm")
    return picture, looks


def _pictures(look: Look) -> Pair:
    """Return what is shown of a picture, and its labels."""
    return look.shown() if look.shown else look.image, look.labels() if look.labels else None


def _tile_height(looks: list[Look], pairs: list[Pair], wide: int) -> int:
    """Return a height at which the typical image fills a tile's width, and so do labels that are a photo as well."""
    ratios = []
    for look, pair in zip(looks, pairs, strict=True):
        shown = [part for part in (pair if look.is_photo else pair[:1]) if part is not None]
        ratios += [max(part.shape[0] / part.shape[1] for part in shown)] if shown else []
    return round(wide * min(1.5, max(0.5, float(np.median(ratios))))) if ratios else wide


def _pair_tile(pair: Pair, size: tuple[int, int], *, is_photo: bool) -> Image.Image:
    """Return image and labels side by side, each fitted into a tile of size (H, W)."""
    tall, wide = size
    tile = Image.new("RGB", (2 * wide, tall), _GREY)
    image, labels = pair
    for column, (picture, method) in enumerate(
        (
            (image, Image.Resampling.BILINEAR),
            (labels, Image.Resampling.BILINEAR if is_photo else Image.Resampling.NEAREST),
        )
    ):
        left = column * wide
        if picture is None:
            font = ImageFont.load_default(size=12)
            middle = (left + wide / 2, tall / 2)
            ImageDraw.Draw(tile).text(middle, "cannot be read", fill="red", font=font, anchor="mm")
            continue
        factor = min(wide / picture.shape[1], tall / picture.shape[0])
        fitted = Image.fromarray(picture).resize(
            (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor))), method
        )
        tile.paste(fitted, (left + (wide - fitted.width) // 2, (tall - fitted.height) // 2))
    return tile
