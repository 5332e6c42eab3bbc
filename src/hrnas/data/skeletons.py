"""Pictures of people: bones and joints over an image.

h, w size of the image; K joints.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hrnas.data.joint_names import Side, parse_names
from hrnas.data.pictures import RGB
from hrnas.structures import Skeleton

_COLORS: Final[dict[Side | None, RGB]] = {"left": (40, 200, 90), "right": (255, 90, 60), None: (255, 205, 40)}
"""The person's own left and right, and the middle of the body."""
LEGEND: Final = tuple((f"{side or 'middle'} of the body", color) for side, color in _COLORS.items())
"""What the colours mean."""
_BOX_COLOR: Final = (255, 255, 255)
_FINER: Final = 3
"""Lines are drawn so many times larger and resized: Pillow's have no smooth edges."""
_LAYER: Final = 4_000_000
"""Most pixels of the layer they are drawn on, so that it stays within some ten megabytes."""


def draw_people(
    image: NDArray[np.uint8],
    skeleton: Skeleton,
    joints: Sequence[NDArray[np.floating[Any]]],
    boxes: Sequence[tuple[float, float, float, float]],
) -> NDArray[np.uint8]:
    """Return an image (h, w, 3) with people over it: bones, joints as dots, hidden ones hollow, and boxes.

    joints: (K, 3) of each person: x, y counting from the middle of the first pixel, and visibility (0: not drawn,
    1: hidden, 2: visible). boxes: x, y, width, height.
    """
    height, width = image.shape[:2]
    sides = [joint.side for joint in parse_names(skeleton.names)]
    finer = max(1, min(_FINER, int((_LAYER / (height * width)) ** 0.5)))
    layer = Image.new("RGBA", (width * finer, height * finer))
    draw = ImageDraw.Draw(layer)
    thick = max(1.0, min(height, width) / 150) * finer
    for x, y, wide, tall in boxes:
        corners = [finer * part for part in (x, y, x + wide, y + tall)]
        draw.rectangle(corners, outline=(*_BOX_COLOR, 160), width=round(thick / 2))
    for person in joints:
        places = [tuple(map(float, (point[:2] + 0.5) * finer)) for point in person]
        for first, second in skeleton.bones:
            if person[first, 2] > 0 and person[second, 2] > 0:
                side = sides[first] if sides[first] == sides[second] else None
                draw.line([places[first], places[second]], fill=(*_COLORS[side], 255), width=round(thick))
        for (across, down), side, visibility in zip(places, sides, person[:, 2], strict=True):
            if visibility > 0:
                color, radius = (*_COLORS[side], 255), 1.4 * thick
                around = (across - radius, down - radius, across + radius, down + radius)
                if visibility == 1:
                    draw.ellipse(around, outline=color, fill=(0, 0, 0, 120), width=round(thick * 0.7))
                else:
                    draw.ellipse(around, fill=color, outline=(0, 0, 0, 255), width=round(thick * 0.35))
    small = layer.resize((width, height), Image.Resampling.BOX)
    return np.array(Image.alpha_composite(Image.fromarray(image).convert("RGBA"), small).convert("RGB"))
