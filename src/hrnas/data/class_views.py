"""Views of class pictures: a random crop for training, the centre for evaluation.

Source: method.md, row ImageNet (bicubic); the crops are the usual ones of that set: of random area and shape (Szegedy
et al. 2015), and the middle 7/8 of the picture.

H height, W width of the network's input; h, w those of the image as read.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hrnas.data.transforms import PHOTOMETRIC, AugmentOptions, vary_colors

CLASSIFICATION: Final[Mapping[str, Any]] = {"area": (0.25, 1.0), "ratio": (3 / 4, 4 / 3), "flip": 0.5, **PHOTOMETRIC}
"""What the training view of a class picture uses, with its defaults."""

CENTER: Final = 0.875
"""What evaluation shows of the shorter side: 224 of 256 pixels."""

_TRIES: Final = 10


def training_crop(
    image: NDArray[np.uint8], input_size: tuple[int, int], options: AugmentOptions, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return a random crop of an image (h, w, 3) resized to the input, uint8 (H, W, 3), bicubic and anti-aliased.

    options: settled. The crop's share of the area is drawn uniformly, its width / height relative to the
    input's with a uniform logarithm, its place uniformly; where ten draws do not fit into the image, it is the largest
    centred crop of the nearest shape. An area of (1, 1) gives `evaluation_crop`.
    """
    assert options.flip is not None
    assert options.area is not None
    assert options.ratio is not None
    # Always the same number of draws, so that one option's value does not change what the others draw.
    areas = rng.uniform(*options.area, _TRIES)
    low, high = options.ratio
    ratios = np.exp(rng.uniform(np.log(low), np.log(high), _TRIES))
    place = rng.random(2)
    flip = rng.random() < options.flip
    if options.area == (1.0, 1.0):
        view = Image.fromarray(evaluation_crop(image, input_size))
    else:
        height, width = input_size
        shape = width / height
        box = _crop_box(image.shape[:2], areas, ratios * shape, (low * shape, high * shape), place)
        view = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box=box)
    view = vary_colors(view, options, rng)
    if flip:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(view)


def evaluation_crop(image: NDArray[np.uint8], input_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the middle of an image (h, w, 3) at the input's size, uint8 (H, W, 3), bicubic and anti-aliased.

    The image is resized by one factor, so that it just covers the input's size / 0.875, rounded to whole pixels (for a
    square input its shorter side is that long); the other side is rounded down. Then the centre is cut out.
    """
    height, width = input_size
    h, w = image.shape[:2]
    cover_h, cover_w = round(height / CENTER), round(width / CENTER)
    if cover_h * w <= cover_w * h:  # the width is the tight side
        tall, wide = max(cover_h, h * cover_w // w), cover_w
    else:
        tall, wide = cover_h, max(cover_w, w * cover_h // h)
    top, left = round((tall - height) / 2), round((wide - width) / 2)
    whole = Image.fromarray(image).resize((wide, tall), Image.Resampling.BICUBIC)
    return np.array(whole.crop((left, top, left + width, top + height)))


def _crop_box(
    size: tuple[int, ...],
    areas: NDArray[np.float64],
    ratios: NDArray[np.float64],
    limits: tuple[float, float],
    place: NDArray[np.float64],
) -> tuple[float, float, float, float]:
    """Return (left, top, right, bottom) of the first crop that fits into an image of size (h, w).

    areas: shares of the image; ratios: width / height, within limits; place: in 0..1, from the top and from the left.
    """
    h, w = size
    wides, talls = np.sqrt(areas * h * w * ratios).round(), np.sqrt(areas * h * w / ratios).round()
    fitting = np.flatnonzero((wides >= 1) & (wides <= w) & (talls >= 1) & (talls <= h))
    if len(fitting):
        wide, tall = int(wides[fitting[0]]), int(talls[fitting[0]])
        top, left = int(place[0] * (h - tall + 1)), int(place[1] * (w - wide + 1))
        return left, top, left + wide, top + tall
    low, high = limits
    ratio = min(max(w / h, low), high)
    fitted_w, fitted_h = min(w, h * ratio), min(h, w / ratio)
    return (w - fitted_w) / 2, (h - fitted_h) / 2, (w + fitted_w) / 2, (h + fitted_h) / 2
