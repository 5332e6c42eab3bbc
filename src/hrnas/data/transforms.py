"""From a read image to the network's input: augmentation for training, plain resizing for evaluation, normalisation.

Source: method.md, rows Cityscapes (scale 0.5-2, crop, flip, photometric) and ADE20K (keep ratio). Scale 1 is the
evaluation scale: the whole image resized to the evaluation size, each axis by its own factor if not told otherwise.

B batch, H height, W width of the network's input; h, w those of the image as read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageStat

from hrnas.errors import InputError
from hrnas.structures import IGNORED

MEAN: Final = (123.675, 116.28, 103.53)
"""Mean RGB of ImageNet, 0..255."""
STD: Final = (58.395, 57.12, 57.375)
"""Standard deviation of ImageNet's RGB, 0..255."""

_MOST_OBJECTS: Final = 100
"""Of a class in a cloud: far more find no place where a lidar's points are."""
_PADDING: Final = tuple(round(part) for part in MEAN)
_LUMA: Final = np.array([0.299, 0.587, 0.114])
_TO_YIQ: Final = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_FROM_YIQ: Final = np.linalg.inv(_TO_YIQ)


@dataclass(frozen=True, kw_only=True)
class AugmentOptions:
    """How training samples are varied; None is the task's own value. All of it off: `AugmentOptions.none()`.

    A task uses some of these and refuses the others (`tasks.task.settled`).

    scale: range of the random scale, drawn uniformly; 1 is evaluation's, 2 shows a quarter of the area, 0.5 pads it; of
    a point cloud the factor on all lengths.
    flip: probability of a left-right flip.
    rotation: degrees by which a person is turned, the standard deviation, never by more than twice of it; degrees by
    which a point cloud is turned at most in either direction, drawn uniformly.
    half_body: probability with which a person is cropped to the upper or the lower half of the body.
    area: range of the share of a picture that the crop of a class picture covers; [1, 1] shows what evaluation sees.
    ratio: range of that crop's width / height, relative to the input's.
    photometric: probability with which each of the four changes below is applied.
    brightness: colours are multiplied by a factor drawn from 1 - brightness .. 1 + brightness.
    contrast: distance to the picture's mean grey is multiplied by a factor from 1 - contrast .. 1 + contrast.
    saturation: distance to each pixel's own grey is multiplied by a factor from 1 - saturation .. 1 + saturation.
    hue: colours turn by up to this part of the colour circle in either direction, at unchanged luma (0.5 = any).
    objects: how many objects of each class a point cloud is filled up to with objects of other clouds, in the classes'
    order; empty: none of any class.
    """

    scale: tuple[float, float] | None = None
    flip: float | None = None
    rotation: float | None = None
    half_body: float | None = None
    area: tuple[float, float] | None = None
    ratio: tuple[float, float] | None = None
    photometric: float | None = None
    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    hue: float | None = None
    objects: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, (least, most) in {"scale": (0.1, 10.0), "area": (0.01, 1.0), "ratio": (0.1, 10.0)}.items():
            ends = getattr(self, name)
            if ends is not None and not least <= ends[0] <= ends[1] <= most:
                raise InputError(
                    f"{name} is {ends[0]}..{ends[1]}; it must be two numbers within {least:g}..{most:g}, the smaller"
                    " one first."
                )
        limits = {"hue": 0.5, "rotation": 180.0}
        for name in ("flip", "rotation", "half_body", "photometric", "brightness", "contrast", "saturation", "hue"):
            value, limit = getattr(self, name), limits.get(name, 1.0)
            if value is not None and not 0 <= value <= limit:
                raise InputError(f"{name} is {value}; it must be within 0..{limit:g}.")
        if self.objects is not None:
            object.__setattr__(self, "objects", tuple(self.objects))  # a list from Python
        for number in self.objects or ():
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= _MOST_OBJECTS:
                raise InputError(f"objects has {number}; it must be whole numbers within 0..{_MOST_OBJECTS}.")

    @classmethod
    def none(cls) -> "AugmentOptions":
        """Return the options under which training sees what evaluation sees (or a crop of it), whatever the task."""
        return cls(**OFF)


OFF: Final[dict[str, Any]] = {
    "scale": (1.0, 1.0),
    "flip": 0.0,
    "rotation": 0.0,
    "half_body": 0.0,
    "area": (1.0, 1.0),
    "photometric": 0.0,
    "objects": (),
}
"""Each of these turns one change off; with them the others have nothing to change."""

PHOTOMETRIC: Final[Mapping[str, Any]] = {
    "photometric": 0.5,
    "brightness": 0.25,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.05,
}
"""What `vary_colors` uses, with the values a task has where it has no reason for others."""

SEGMENTATION: Final[Mapping[str, Any]] = {"scale": (0.5, 2.0), "flip": 0.5, **PHOTOMETRIC}
"""What the training view of an image and its mask uses, with its defaults (method: row Cityscapes)."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSize:
    """To what size whole images are resized for evaluation, where that is not the input size of training.

    keep_ratio: one factor for both axes, the largest with which the longer side is at most the larger of height and
    width, and the shorter side at most the smaller (512x2048: a shorter side of 512, or less where the longer one would
    be above 2048).
    """

    height: int
    width: int
    keep_ratio: bool = False

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise InputError(f"evaluation.size is {self.height}x{self.width}; both sides need at least 1 pixel.")

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Return the (H, W) that an image of this height and width is resized to; halves of pixels are rounded up."""
        if not self.keep_ratio:
            return self.height, self.width
        longer, shorter = max(self.height, self.width), min(self.height, self.width)
        factor = min(longer / max(height, width), shorter / min(height, width))
        return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def training_view(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    input_size: tuple[int, int],
    options: AugmentOptions,
    rng: np.random.Generator,
    evaluation_size: EvaluationSize | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a random view of an image (h, w, 3) and its mask (h, w): uint8 (H, W, 3) and (H, W), aligned.

    options: settled. Scale 1 is the size that evaluation resizes this image to: `evaluation_size`, else the input's.
    The scaled image is cropped where it is larger than the input and placed at random where it is smaller; there the
    image is padded with MEAN and the mask with IGNORED. One resize from a box of the source does scale and crop.
    """
    height, width = input_size
    h, w = mask.shape
    assert options.scale is not None
    assert options.flip is not None
    scale = rng.uniform(*options.scale)
    # Where the scaled image (its size in input pixels) lies against the input: negative when it sticks out, positive
    # when there is padding. Whole pixels, so that image and mask are cut at the same lines.
    whole = evaluation_size.of(h, w) if evaluation_size else input_size
    tall, wide = max(1, round(whole[0] * scale)), max(1, round(whole[1] * scale))
    top = int(rng.integers(min(0, height - tall), max(0, height - tall), endpoint=True))
    left = int(rng.integers(min(0, width - wide), max(0, width - wide), endpoint=True))
    flip = rng.random() < options.flip

    # The part of the input that shows image, and the box of the source that it shows.
    place = (max(0, left), max(0, top), min(width, left + wide), min(height, top + tall))
    box = (
        (place[0] - left) * w / wide,
        (place[1] - top) * h / tall,
        (place[2] - left) * w / wide,
        (place[3] - top) * h / tall,
    )
    size = (place[2] - place[0], place[3] - place[1])
    view = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box=box)
    target = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST, box=box)
    view = vary_colors(view, options, rng)

    if size != (width, height):
        shown, labelled = view, target
        view = Image.new("RGB", (width, height), _PADDING)
        view.paste(shown, place[:2])
        target = Image.new("L", (width, height), IGNORED)
        target.paste(labelled, place[:2])
    if flip:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        target = target.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(view), np.array(target)


def evaluation_view(
    image: NDArray[np.uint8], input_size: tuple[int, int], evaluation_size: EvaluationSize | None = None
) -> NDArray[np.uint8]:
    """Return the whole image (h, w, 3) resized to the input size, uint8 (H, W, 3), bilinear and anti-aliased.

    With an evaluation size (H, W) is that of this image under it.
    """
    height, width = evaluation_size.of(*image.shape[:2]) if evaluation_size else input_size
    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Turn uint8 images (B, 3, H, W) into the network's float32 input, same shape and device, channels_last.

    Subtracts ImageNet's mean colour and divides by its standard deviation; padding thus becomes almost zero.
    """
    scale = torch.tensor(STD, device=images.device).reciprocal().view(1, 3, 1, 1)
    shift = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1) * scale
    return images.to(torch.float32, memory_format=torch.channels_last).mul_(scale).sub_(shift)


def vary_colors(image: Image.Image, options: AugmentOptions, rng: np.random.Generator) -> Image.Image:
    """Vary brightness, contrast, saturation and hue of an RGB picture, as one affine map of its colours.

    options: settled, with those of PHOTOMETRIC.
    """
    assert options.photometric is not None
    # Always the same number of draws, so that one option's value does not change what the others draw.
    chosen = rng.random(4) < options.photometric
    ranges = np.array([options.brightness, options.contrast, options.saturation, options.hue], dtype=float)
    drawn = rng.uniform(-1, 1, 4) * ranges
    if not (chosen & (drawn != 0)).any():
        return image
    brightness, contrast, saturation, hue = np.where(chosen, drawn, 0.0)

    matrix = np.eye(3) * (1 + brightness)
    angle = 2 * np.pi * hue
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    matrix = _FROM_YIQ @ turn @ _TO_YIQ @ matrix
    grey = np.tile(_LUMA, (3, 1))
    matrix = ((1 + saturation) * np.eye(3) - saturation * grey) @ matrix
    mean = _LUMA @ (matrix @ np.array(ImageStat.Stat(image).mean))
    matrix = matrix * (1 + contrast)
    offset = np.full((3, 1), -contrast * mean)
    return image.convert("RGB", tuple(np.hstack([matrix, offset]).ravel().tolist()))
