"""Colours of masks."""

import numpy as np
import pytest

from hrnas.data.pictures import IGNORED_COLOR, UNKNOWN_COLOR, colorize, default_palette, legend, overlay
from hrnas.structures import IGNORED

COLORS = ((200, 0, 0), (0, 200, 0))
MASK = np.array([[0, 1], [IGNORED, 7]], np.uint8)


def test_colorize() -> None:
    assert colorize(MASK, COLORS).tolist() == [
        [list(COLORS[0]), list(COLORS[1])], [list(IGNORED_COLOR), list(UNKNOWN_COLOR)]
    ]  # fmt: skip


def test_overlay_blends_and_leaves_ignored_pixels_alone() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    seen = overlay(image, MASK, COLORS, opacity=0.25)
    assert seen.dtype == np.uint8
    assert seen[0].tolist() == [[125, 75, 75], [75, 125, 75]]
    assert seen[1, 0].tolist() == [100, 100, 100]
    with pytest.raises(ValueError, match="sizes must agree"):
        overlay(image[:1], MASK, COLORS)


def test_the_default_palette_is_distinct_and_stable() -> None:
    palette = default_palette(254)
    assert len(set(palette)) == 254
    assert default_palette(5) == palette[:5]
    distances = np.abs(np.array(palette[:20])[:, None] - np.array(palette[:20])[None]).sum(axis=-1)
    assert distances[~np.eye(20, dtype=bool)].min() >= 60


def test_the_legend_holds_every_colour_within_its_width() -> None:
    palette = default_palette(40)
    picture = legend([f"class number {index}" for index in range(40)], palette, 400)
    assert picture.width == 400
    seen = {tuple(color) for color in np.unique(np.array(picture).reshape(-1, 3), axis=0).tolist()}
    assert seen >= set(palette)
