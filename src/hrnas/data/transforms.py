"""From a sample to the network's input: augmentation for training, plain resizing for evaluation, normalisation.

Source: method.md, row Cityscapes (scale 0.5-2, crop, flip, photometric). Scale 1 is the evaluation scale: the whole
image resized to the input size, each axis by its own factor.

B batch, H height, W width of the network's input; h, w those of the image as read.
"""

from dataclasses import dataclass
from typing import Final

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

_PADDING: Final = tuple(round(part) for part in MEAN)
_LUMA: Final = np.array([0.299, 0.587, 0.114])
_TO_YIQ: Final = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_FROM_YIQ: Final = np.linalg.inv(_TO_YIQ)


@dataclass(frozen=True, kw_only=True)
class AugmentOptions:
    """How training samples are varied. All of it off: `AugmentOptions.none()`.

    scale: range of the random scale, drawn uniformly; 1 shows the whole image, 2 a quarter of its area, 0.5 pads it.
    flip: probability of a left-right flip.
    photometric: probability with which each of the four changes below is applied.
    brightness: colours are multiplied by a factor drawn from 1 - brightness .. 1 + brightness.
    contrast: distance to the picture's mean grey is multiplied by a factor from 1 - contrast .. 1 + contrast.
    saturation: distance to each pixel's own grey is multiplied by a factor from 1 - saturation .. 1 + saturation.
    hue: colours turn by up to this part of the colour circle in either direction, at unchanged luma (0.5 = any).
    """

    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    photometric: float = 0.5
    brightness: float = 0.25
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.05

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0.1 <= low <= high <= 10:
            raise InputError(f"scale is {low}..{high}; it must be two numbers within 0.1..10, the smaller one first.")
        limits = {"flip": 1.0, "photometric": 1.0, "brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5}
        for name, limit in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= limit:
                raise InputError(f"{name} is {value}; it must be within 0..{limit:g}.")

    @classmethod
    def none(cls) -> "AugmentOptions":
        """Return the options under which training sees what evaluation sees."""
        return cls(scale=(1.0, 1.0), flip=0.0, photometric=0.0)


@dataclass(frozen=True, kw_only=True)
class EvaluationSize:
    height: int
    width: int
    keep_ratio: bool = False


def training_view(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    input_size: tuple[int, int],
    options: AugmentOptions,
    rng: np.random.Generator,
    evaluation_size: EvaluationSize | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a random view of a sample: image uint8 (H, W, 3) and target uint8 (H, W), aligned with each other.

    The scaled image is cropped where it is larger than the input and placed at random where it is smaller; there the
    image is padded with MEAN and the target with IGNORED. One resize from a box of the source does scale and crop.
    """
    height, width = input_size
    scale = rng.uniform(*options.scale)
    # Where the scaled image (its size in input pixels) lies against the input: negative when it sticks out, positive
    # when there is padding. Whole pixels, so that image and mask are cut at the same lines.
    tall, wide = max(1, round(height * scale)), max(1, round(width * scale))
    top = int(rng.integers(min(0, height - tall), max(0, height - tall), endpoint=True))
    left = int(rng.integers(min(0, width - wide), max(0, width - wide), endpoint=True))
    flip = rng.random() < options.flip

    # The part of the input that shows image, and the box of the source that it shows.
    place = (max(0, left), max(0, top), min(width, left + wide), min(height, top + tall))
    h, w = mask.shape
    box = (
        (place[0] - left) * w / wide,
        (place[1] - top) * h / tall,
        (place[2] - left) * w / wide,
        (place[3] - top) * h / tall,
    )
    size = (place[2] - place[0], place[3] - place[1])
    image = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box=box)
    mask = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST, box=box)
    image = _photometric(image, options, rng)

    if size != (width, height):
        canvas = Image.new("RGB", (width, height), _PADDING)
        canvas.paste(image, place[:2])
        target = Image.new("L", (width, height), IGNORED)
        target.paste(mask, place[:2])
        image, mask = canvas, target
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(image), np.array(mask)


def evaluation_view(
    image: NDArray[np.uint8], input_size: tuple[int, int], evaluation_size: EvaluationSize | None = None
) -> NDArray[np.uint8]:
    """Return the whole image (h, w, 3) resized to the input size, uint8 (H, W, 3), bilinear and anti-aliased."""
    height, width = input_size
    if image.shape[:2] == input_size:
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Turn uint8 images (B, 3, H, W) into the network's float32 input, same shape and device, channels_last.

    Subtracts ImageNet's mean colour and divides by its standard deviation; padding thus becomes almost zero.
    """
    scale = torch.tensor(STD, device=images.device).reciprocal().view(1, 3, 1, 1)
    shift = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1) * scale
    return images.to(torch.float32, memory_format=torch.channels_last).mul_(scale).sub_(shift)


def _photometric(image: Image.Image, options: AugmentOptions, rng: np.random.Generator) -> Image.Image:
    """Vary brightness, contrast, saturation and hue of an RGB picture, as one affine map of its colours."""
    # Always the same number of draws, so that one option's value does not change what the others draw.
    chosen = rng.random(4) < options.photometric
    drawn = rng.uniform(-1, 1, 4) * (options.brightness, options.contrast, options.saturation, options.hue)
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
