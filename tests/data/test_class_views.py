"""Class crops: evaluation shows the middle 7/8, training random crops of the stated area and shape."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from hrnas.data import class_views
from hrnas.data.class_views import CLASSIFICATION, evaluation_crop, training_crop
from hrnas.data.transforms import AugmentOptions
from hrnas.tasks.task import settled

PLAIN: dict[str, Any] = {"photometric": 0.0, "flip": 0.0}


def options(**given: Any) -> AugmentOptions:
    return settled(AugmentOptions(**(PLAIN | given)), CLASSIFICATION, "classification", "augment")


def places(height: int, width: int) -> np.ndarray:
    """Return an image that says of each pixel where it is: red from left to right, green from top to bottom."""
    down, across = np.mgrid[:height, :width]
    red, green = across * 255 / (width - 1), down * 255 / (height - 1)
    return np.stack([red, green, np.zeros_like(red)], axis=-1).round().astype(np.uint8)


@pytest.mark.parametrize(
    ("image", "resized", "corner"),
    [
        ((256, 256), (256, 256), (16, 16)),
        ((375, 500), (256, 341), (16, 58)),  # 341.33 rounded down, as usual; 58.5 rounded to even
        ((500, 375), (341, 256), (58, 16)),
        ((100, 80), (320, 256), (48, 16)),
        ((224, 224), (256, 256), (16, 16)),
        ((1, 40), (256, 10240), (16, 5008)),
    ],
)
def test_the_usual_evaluation_of_imagenet(
    image: tuple[int, int], resized: tuple[int, int], corner: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*image, 3), dtype=np.uint8)
    whole = np.array(Image.fromarray(pixels).resize(resized[::-1], Image.Resampling.BICUBIC))
    expected = whole[corner[0] : corner[0] + 224, corner[1] : corner[1] + 224]
    found = evaluation_crop(pixels, (224, 224))
    assert found.shape == (224, 224, 3)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("input_size", [(64, 64), (96, 96), (32, 48), (48, 32), (7, 5), (1, 1)])
@pytest.mark.parametrize("image", [(50, 90), (90, 50), (64, 64), (3, 5)])
def test_evaluation_shows_the_middle_of_any_input_size(image: tuple[int, int], input_size: tuple[int, int]) -> None:
    view = evaluation_crop(places(*image), input_size)
    assert view.shape == (*input_size, 3)
    if min(*image, *input_size) < 32:
        return
    assert np.abs(view.reshape(-1, 3).mean(0)[:2] - 127.5).max() < 4, "more than half a pixel from the centre"
    spans = np.ptp(view[..., 1], axis=0).max() / 255 * image[0], np.ptp(view[..., 0], axis=1).max() / 255 * image[1]
    scales = spans[0] / input_size[0], spans[1] / input_size[1]
    assert scales[0] == pytest.approx(scales[1], rel=0.05), "both axes by one factor"
    tight = max(spans[0] / image[0], spans[1] / image[1])
    assert tight == pytest.approx(0.875, abs=0.03)


@pytest.mark.parametrize("image", [(60, 90), (90, 60), (41, 200)])
@pytest.mark.parametrize("input_size", [(64, 64), (48, 32)])
def test_training_without_augmentation_is_evaluation(image: tuple[int, int], input_size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*image, 3), dtype=np.uint8)
    off = settled(AugmentOptions.none(), CLASSIFICATION, "classification", "augment")
    for seed in range(3):
        view = training_crop(pixels, input_size, off, np.random.default_rng(seed))
        assert np.array_equal(view, evaluation_crop(pixels, input_size))
    assert not np.array_equal(training_crop(pixels, input_size, options(), np.random.default_rng(0)), view)


def boxes(image: tuple[int, int], input_size: tuple[int, int], count: int, **given: Any) -> np.ndarray:
    """Return (left, top, right, bottom) of drawn crops, in shares of the image, read off the picture itself."""
    pixels = places(*image)
    found = []
    for seed in range(count):
        view = training_crop(pixels, input_size, options(**given), np.random.default_rng(seed)).astype(float)
        found.append([view[:, 0, 0].mean(), view[0, :, 1].mean(), view[:, -1, 0].mean(), view[-1, :, 1].mean()])
    return np.array(found) / 255


def test_areas_and_shapes_are_drawn_from_their_ranges() -> None:
    found = boxes((240, 320), (64, 64), 300, area=(0.1, 0.5), ratio=(0.5, 2.0))
    wide, tall = found[:, 2] - found[:, 0], found[:, 3] - found[:, 1]
    areas, ratios = wide * tall, wide * 320 / (tall * 240)
    assert 0.08 < areas.min() < 0.12
    assert 0.45 < areas.max() < 0.51
    assert areas.mean() == pytest.approx(0.3, abs=0.02)
    assert 0.47 < ratios.min() < 0.6
    assert 1.7 < ratios.max() < 2.15
    assert np.log(ratios).mean() == pytest.approx(0, abs=0.06)
    room = found[(wide < 0.8) & (tall < 0.8)]
    assert room[:, :2].min(axis=0).max() < 0.03, "the left and the upper edge are reached"
    assert room[:, 2:].max(axis=0).min() > 0.97, "the right and the lower edge are reached"


def test_shapes_are_relative_to_the_inputs() -> None:
    found = boxes((300, 300), (32, 64), 50, area=(0.2, 0.2), ratio=(1.0, 1.0))
    wide, tall = found[:, 2] - found[:, 0], found[:, 3] - found[:, 1]
    assert wide / tall == pytest.approx(2, rel=0.04)


def test_where_no_draw_fits_the_largest_centred_crop_is_taken() -> None:
    found = boxes((40, 400), (64, 64), 5, area=(0.9, 0.95), ratio=(0.75, 4 / 3))
    expected = [0.5 - 40 * 4 / 3 / 800, 0, 0.5 + 40 * 4 / 3 / 800, 1]
    assert found == pytest.approx(np.tile(expected, (5, 1)), abs=0.015)
    assert class_views.training_crop(places(2, 2), (8, 8), options(), np.random.default_rng(0)).shape == (8, 8, 3)


def test_half_of_the_views_are_flipped_and_colours_vary() -> None:
    pixels = places(64, 64)
    flipped = varied = 0
    for seed in range(300):
        view, mirrored = (
            training_crop(pixels, (32, 32), options(flip=flip), np.random.default_rng(seed)) for flip in (0.0, 0.5)
        )
        flipped += int(np.array_equal(view[:, ::-1], mirrored))
        vivid = training_crop(pixels, (32, 32), options(photometric=0.5), np.random.default_rng(seed))
        varied += not np.array_equal(view, vivid)
    assert 120 < flipped < 180
    assert varied > 250
