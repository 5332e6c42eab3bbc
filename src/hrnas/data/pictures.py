"""Pictures of masks: class colours, overlays, legends. Pillow and numpy only.

H height, W width in pixels.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hrnas.structures import IGNORED

RGB = tuple[int, int, int]

IGNORED_COLOR: RGB = (0, 0, 0)
UNKNOWN_COLOR: RGB = (255, 0, 255)
"""Shown where a mask holds an index that is neither a class nor IGNORED."""


def colorize(mask: NDArray[np.uint8], colors: Sequence[RGB]) -> NDArray[np.uint8]:
    """Return the picture (H, W, 3) of class indices (H, W): void black, an index without a colour magenta."""
    return _palette(colors)[mask]


def overlay(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], colors: Sequence[RGB], opacity: float = 0.55
) -> NDArray[np.uint8]:
    """Blend a mask's colours (H, W) over an RGB image (H, W, 3); pixels that are IGNORED show the image alone."""
    if image.shape[:2] != mask.shape:
        raise ValueError(f"Image of {image.shape[:2]} and mask of {mask.shape}; their sizes must agree.")
    blended = image * np.float32(1 - opacity) + colorize(mask, colors) * np.float32(opacity)
    return np.where((mask == IGNORED)[..., None], image, (blended + 0.5).astype(np.uint8))


def side_by_side(panels: Sequence[NDArray[np.uint8]], gap: int = 4) -> Image.Image:
    """Return pictures (H, W, 3) of one size as one, beside each other on white."""
    height, width = panels[0].shape[:2]
    sheet = Image.new("RGB", ((width + gap) * len(panels) - gap, height), "white")
    for index, panel in enumerate(panels):
        sheet.paste(Image.fromarray(panel), (index * (width + gap), 0))
    return sheet


def name_tile(name: str, color: RGB, size: int = 168) -> NDArray[np.uint8]:
    """Return a square picture with a class's colour and name, broken into lines."""
    font = ImageFont.load_default(size=16)
    picture = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, size, 24), fill=color)
    lines = [""]
    for word in name.replace("_", " ").split():
        if lines[-1] and font.getlength(f"{lines[-1]} {word}") > size - 16:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    draw.multiline_text((8, 34), "\n".join(lines), fill="black", font=font)
    return np.array(picture)


def legend(names: Sequence[str], colors: Sequence[RGB], width: int) -> Image.Image:
    """Return an RGB picture `width` pixels wide: a colour field and the name of each class, flowing over rows."""
    font = ImageFont.load_default(size=14)
    swatch, gap, row = 14, 8, 24
    places: list[tuple[int, int]] = []
    x = y = gap
    for name in names:
        wide = swatch + gap + round(font.getlength(name)) + 2 * gap
        if x > gap and x + wide > width:
            x, y = gap, y + row
        places.append((x, y))
        x += wide
    picture = Image.new("RGB", (width, y + row), "white")
    draw = ImageDraw.Draw(picture)
    for (x, y), name, color in zip(places, names, colors, strict=True):
        draw.rectangle((x, y, x + swatch, y + swatch), fill=color, outline="black")
        draw.text((x + swatch + gap, y + swatch / 2), name, fill="black", font=font, anchor="lm")
    return picture


@cache
def default_palette(num_colors: int) -> tuple[RGB, ...]:
    """Return distinct colours, the same ones every time: each is the one farthest from those before it.

    Distance is Euclidean in OKLab (Ottosson 2020), where equal steps look equal; black (void), white (paper) and
    magenta (unknown) count as taken.
    """
    levels = np.linspace(0, 255, 9).round().astype(int)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness = _oklab(grid)[:, 0]
    grid = grid[(lightness > 0.35) & (lightness < 0.93)]  # what is almost black or white reads as void or paper
    lab = _oklab(grid)
    taken = _oklab(np.array([IGNORED_COLOR, (255, 255, 255), UNKNOWN_COLOR]))
    nearest = np.linalg.norm(lab[:, None] - taken[None], axis=-1).min(axis=1)
    colors: list[RGB] = []
    for _ in range(num_colors):
        best = int(nearest.argmax())
        red, green, blue = (int(part) for part in grid[best])
        colors.append((red, green, blue))
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[best], axis=-1))
    return tuple(colors)


def _palette(colors: Sequence[RGB]) -> NDArray[np.uint8]:
    """Return the table (256, 3) from index to colour."""
    table = np.empty((256, 3), np.uint8)
    table[:] = UNKNOWN_COLOR
    table[: len(colors)] = np.asarray(colors, np.uint8).reshape(-1, 3)
    table[IGNORED] = IGNORED_COLOR
    return table


def _oklab(rgb: NDArray[np.int_]) -> NDArray[np.float64]:
    """Convert sRGB in 0..255 (N, 3) to OKLab (N, 3)."""
    unit = rgb / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    to_lms = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    lab: NDArray[np.float64] = np.cbrt(linear @ to_lms.T) @ to_lab.T
    return lab
