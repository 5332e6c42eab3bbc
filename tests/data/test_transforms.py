"""Training and evaluation views: image and mask stay aligned, options do what their docstrings say."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hrnas.data import transforms
from hrnas.data.class_views import CLASSIFICATION
from hrnas.data.scene_views import SCENES
from hrnas.data.transforms import (
    MEAN,
    SEGMENTATION,
    STD,
    AugmentOptions,
    EvaluationSize,
    evaluation_view,
    normalize,
)
from hrnas.errors import InputError
from hrnas.structures import IGNORED
from hrnas.tasks.task import settled

GEOMETRY = AugmentOptions(photometric=0.0)
COLORS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)], np.uint8)
PADDING = np.round(MEAN)


class Sample(NamedTuple):
    image: np.ndarray
    mask: np.ndarray


def training_view(
    sample: Sample, input_size: tuple[int, int], options: AugmentOptions, rng: np.random.Generator,
    evaluation_size: EvaluationSize | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    own = settled(options, SEGMENTATION, "segmentation", "augment")
    return transforms.training_view(sample.image, sample.mask, input_size, own, rng, evaluation_size)


def blocks(height: int, width: int, seed: int, block: int = 24) -> Sample:
    """Return a sample of random blocks whose colour says their label."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, len(COLORS), (-(-height // block), -(-width // block)), np.uint8)
    mask = np.kron(coarse, np.ones((block, block), np.uint8))[:height, :width]
    return Sample(image=COLORS[mask], mask=mask)


def interior(target: np.ndarray, margin: int) -> np.ndarray:
    """Return where all pixels up to `margin` away have the same label."""
    same = np.ones(target.shape, bool)
    for down in range(-margin, margin + 1):
        for right in range(-margin, margin + 1):
            moved = np.roll(target, (down, right), (0, 1))
            same &= moved == target
    same[:margin] = same[-margin:] = same[:, :margin] = same[:, -margin:] = False
    return same


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(40, 200),
    width=st.integers(40, 200),
    input_size=st.tuples(st.integers(48, 96), st.integers(48, 96)),
    seed=st.integers(0, 2**32 - 1),
)
def test_image_and_target_stay_aligned(height: int, width: int, input_size: tuple[int, int], seed: int) -> None:
    image, target = training_view(blocks(height, width, seed), input_size, GEOMETRY, np.random.default_rng(seed))
    assert image.shape == (*input_size, 3)
    assert target.shape == input_size
    assert image.dtype == target.dtype == np.uint8
    assert set(np.unique(target)) <= {*range(len(COLORS)), IGNORED}

    expected = np.vstack([COLORS, np.zeros((IGNORED - len(COLORS), 3)), PADDING])[target]
    # Bilinear filtering mixes colours over one pixel of whichever of source and view is the coarser.
    zoom = 2 * max(input_size[0] / height, input_size[1] / width)
    inside = interior(target, max(2, int(np.ceil(zoom)) + 1))
    assert np.abs(image[inside] - expected[inside]).max(initial=0) <= 1


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("source", [(90, 120), (180, 240), (360, 500)])
def test_image_and_target_agree_to_a_fraction_of_a_pixel(axis: int, source: tuple[int, int]) -> None:
    """An edge's place in the image (sum over a line) and in the target (count) differ by rounding alone: zero mean."""
    options = AugmentOptions(photometric=0.0, flip=0.0)
    rng = np.random.default_rng(5)
    shifts = []
    for _ in range(150):
        edge = int(rng.integers(source[axis] // 3, source[axis] * 2 // 3))
        mask = np.zeros(source, np.uint8)
        np.moveaxis(mask, axis, 0)[edge:] = 1
        image, target = training_view(
            Sample(image=np.repeat(mask[..., None] * np.uint8(255), 3, axis=2), mask=mask),
            (90, 120), options, rng,
        )  # fmt: skip
        soft = np.where(target == IGNORED, 0, image[..., 0] / 255).sum(axis=axis)
        hard = np.where(target == IGNORED, 0, target).sum(axis=axis)
        line = hard.argmax()  # a line of the image itself, not of the padding
        shifts.append(soft[line] - hard[line])
    assert np.abs(shifts).max() < 1.05
    assert abs(np.mean(shifts)) < 0.08


def test_scale_one_shows_the_whole_image() -> None:
    sample = blocks(100, 140, 3)
    rng = np.random.default_rng(0)
    image, target = training_view(sample, (50, 70), AugmentOptions.none(), rng)
    assert np.array_equal(image, evaluation_view(sample.image, (50, 70)))
    assert np.array_equal(target, sample.mask[1::2, 1::2])


def test_small_scales_pad_and_large_ones_crop() -> None:
    sample = Sample(image=np.full((50, 70, 3), 255, np.uint8), mask=np.zeros((50, 70), np.uint8))
    places = set()
    for seed in range(30):
        small = AugmentOptions(scale=(0.5, 0.5), photometric=0.0)
        image, target = training_view(sample, (50, 70), small, np.random.default_rng(seed))
        assert (target == 0).sum() == 25 * 35
        assert np.array_equal(np.unique(image[target == IGNORED], axis=0), [PADDING])
        places.add(tuple(np.argwhere(target == 0)[0]))
        large = AugmentOptions(scale=(2.0, 2.0), photometric=0.0)
        assert (training_view(sample, (50, 70), large, np.random.default_rng(seed))[1] == 0).all()
    assert len(places) > 20


@pytest.mark.parametrize("axis", [0, 1])
def test_a_crop_is_a_window_of_the_image(axis: int) -> None:
    """At the scale at which a pixel of the input is one of the source, a crop holds neighbouring pixels."""
    numbers = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    numbers = numbers.T if axis == 0 else numbers
    sample = Sample(image=np.repeat(numbers[..., None], 3, axis=2), mask=numbers)
    options = AugmentOptions(scale=(2.0, 2.0), photometric=0.0, flip=0.0)
    for seed in range(20):
        image, target = training_view(sample, (100, 100), options, np.random.default_rng(seed))
        assert (np.diff(target.astype(int), axis=axis) == 1).all()
        assert np.array_equal(image[..., 0], target)


def test_every_part_of_the_image_is_shown_and_half_of_the_views_are_flipped() -> None:
    columns = np.tile(np.arange(200, dtype=np.uint8), (100, 1))
    sample = Sample(image=np.zeros((100, 200, 3), np.uint8), mask=columns)
    seen = np.zeros(200, int)
    flipped = 0
    for seed in range(400):
        options = AugmentOptions(scale=(2.0, 2.0), photometric=0.0)
        target = training_view(sample, (50, 100), options, np.random.default_rng(seed))[1]
        seen[target[0]] += 1
        flipped += int(target[0, 0]) > int(target[0, -1])
    assert (seen > 0).all()
    assert 160 < flipped < 240


def test_scales_are_drawn_from_their_range() -> None:
    sample = Sample(image=np.zeros((64, 64, 3), np.uint8), mask=np.zeros((64, 64), np.uint8))
    options = AugmentOptions(scale=(0.5, 1.0), photometric=0.0)
    shares = [
        np.sqrt((training_view(sample, (64, 64), options, np.random.default_rng(seed))[1] == 0).mean())
        for seed in range(200)
    ]
    assert 0.49 < min(shares) < 0.53
    assert 0.97 < max(shares) <= 1
    assert 0.72 < np.mean(shares) < 0.78  # uniform: the middle of the range


def photo(**options: Any) -> AugmentOptions:
    return AugmentOptions(**({"scale": (1.0, 1.0), "flip": 0.0, "photometric": 1.0, **OFF} | options))


OFF = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


def views(image: np.ndarray, options: AugmentOptions, count: int = 40) -> np.ndarray:
    sample = Sample(image=image, mask=np.zeros(image.shape[:2], np.uint8))
    return np.stack(
        [training_view(sample, image.shape[:2], options, np.random.default_rng(seed))[0] for seed in range(count)]
    ).astype(float)


def test_brightness_multiplies() -> None:
    factors = views(np.full((8, 8, 3), (100, 50, 150), np.uint8), photo(brightness=0.3))[:, 0, 0] / (100, 50, 150)
    assert np.ptp(factors, axis=1).max() < 0.02
    assert 0.69 <= factors.min() < 0.75
    assert 1.25 < factors.max() <= 1.31


def test_contrast_keeps_the_mean_grey() -> None:
    image = np.full((8, 8, 3), 80, np.uint8)
    image[4:] = 120
    seen = views(image, photo(contrast=0.5))
    assert np.abs(seen.mean(axis=(1, 2, 3)) - 100).max() < 1
    spread = seen[:, 7, 0, 0] - seen[:, 0, 0, 0]
    assert 19 <= spread.min() < 25
    assert 55 < spread.max() <= 61


@pytest.mark.parametrize("option", ["saturation", "hue"])
def test_saturation_and_hue_keep_luma_and_greys(option: str) -> None:
    luma = np.array([0.299, 0.587, 0.114])
    grey = np.full((8, 8, 3), 90, np.uint8)
    assert np.abs(views(grey, photo(**{option: 0.3})) - 90).max() <= 1
    colour = np.full((8, 8, 3), (120, 90, 100), np.uint8)
    seen = views(colour, photo(**{option: 0.3}))[:, 0, 0]
    assert np.abs(seen @ luma - (120, 90, 100) @ luma).max() < 1
    assert np.ptp(seen, axis=0).max() > 10


def test_half_a_turn_of_hue_is_the_opposite_colour() -> None:
    colour = np.full((8, 8, 3), (120, 90, 100), np.uint8)
    luma = 0.299 * 120 + 0.587 * 90 + 0.114 * 100
    seen = views(colour, photo(hue=0.5), count=300)[:, 0, 0]
    opposite = 2 * luma - np.array([120, 90, 100])
    assert np.abs(seen - opposite).max(axis=1).min() <= 1.5


def test_photometric_changes_leave_geometry_and_padding_alone() -> None:
    sample = blocks(100, 140, 3)
    for seed in range(20):
        plain = training_view(sample, (60, 60), GEOMETRY, np.random.default_rng(seed))
        vivid = training_view(sample, (60, 60), AugmentOptions(photometric=1.0), np.random.default_rng(seed))
        assert np.array_equal(plain[1], vivid[1])
        assert np.array_equal(plain[0][plain[1] == IGNORED], vivid[0][plain[1] == IGNORED])
        assert not np.array_equal(plain[0], vivid[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (2.0, 0.5)}, "scale is 2.0..0.5"),
        ({"scale": (0.0, 1.0)}, "scale is 0.0..1.0"),
        ({"flip": 1.5}, "flip is 1.5; it must be within 0..1"),
        ({"photometric": -0.1}, "photometric is -0.1"),
        ({"brightness": 1.1}, "brightness is 1.1"),
        ({"contrast": float("nan")}, "contrast is nan"),
        ({"saturation": -1.0}, "saturation is -1.0"),
        ({"hue": 0.6}, "hue is 0.6; it must be within 0..0.5"),
        ({"rotation": 181.0}, "rotation is 181.0; it must be within 0..180"),
        ({"half_body": 2.0}, "half_body is 2.0; it must be within 0..1"),
        ({"area": (0.0, 1.0)}, "area is 0.0..1.0; it must be two numbers within 0.01..1"),
        ({"area": (0.5, 1.1)}, "area is 0.5..1.1"),
        ({"ratio": (2.0, 1.0)}, "ratio is 2.0..1.0"),
        ({"objects": (15, -1)}, r"objects has -1; it must be whole numbers within 0..100"),
        ({"objects": (101,)}, "objects has 101"),
        ({"objects": (1.5, 2)}, "objects has 1.5"),
        ({"objects": (True,)}, "objects has True"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AugmentOptions(**options)


def test_a_task_fills_in_its_own_values_and_refuses_what_it_does_not_use() -> None:
    own = settled(AugmentOptions(flip=0.25, hue=0.0), SEGMENTATION, "segmentation", "augment")
    assert vars(own) == {
        "scale": (0.5, 2.0), "flip": 0.25, "rotation": None, "half_body": None, "area": None, "ratio": None,
        "photometric": 0.5, "brightness": 0.25, "contrast": 0.4, "saturation": 0.4, "hue": 0.0,
        "objects": None,
    }  # fmt: skip
    assert settled(own, SEGMENTATION, "segmentation", "augment") == own
    for name, value in (
        ("rotation", 10.0),
        ("half_body", 0.3),
        ("area", (0.5, 1.0)),
        ("ratio", (1.0, 1.0)),
        ("objects", (1, 1)),
    ):
        with pytest.raises(
            InputError,
            match=rf"augment\.{name} is .*, which means nothing to task segmentation.*it has scale, fl",
        ):
            settled(AugmentOptions(**{name: value}), SEGMENTATION, "segmentation", "augment")
    with pytest.raises(InputError, match=r"augment\.scale is .*, which means nothing to task classification"):
        settled(AugmentOptions(scale=(0.5, 1.0)), CLASSIFICATION, "classification", "augment")


@pytest.mark.parametrize("defaults", [SEGMENTATION, CLASSIFICATION, {"rotation": 45.0, "half_body": 0.3}, SCENES])
def test_no_augmentation_is_a_wish_that_every_task_can_meet(defaults: dict[str, Any]) -> None:
    own = settled(AugmentOptions.none(), defaults, "a task", "augment")
    for name in defaults:
        kept = {
            "scale": (1, 1), "area": (1, 1), "flip": 0, "photometric": 0, "rotation": 0, "half_body": 0, "objects": (),
        }  # fmt: skip
        assert getattr(own, name) == kept.get(name, defaults[name])
    assert {name for name, value in vars(own).items() if value is not None} == set(defaults)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ((683, 512), (683, 512)),  # neither bound is reached twice: the shorter side is 512 already
        ((512, 683), (512, 683)),
        ((256, 341), (512, 682)),
        ((1024, 1366), (512, 683)),
        ((300, 3000), (205, 2048)),  # the longer side binds: 204.8 rounds up
        ((3000, 300), (2048, 205)),
        ((100, 399), (512, 2043)),  # 2042.88
        ((1000, 4001), (512, 2048)),  # 512 and 2048.5: the longer side binds
        ((1, 5000), (1, 2048)),  # never nothing
    ],
)
@pytest.mark.parametrize("order", [(512, 2048), (2048, 512)])
def test_keep_ratio_sizes(order: tuple[int, int], image: tuple[int, int], expected: tuple[int, int]) -> None:
    size = EvaluationSize(height=order[0], width=order[1], keep_ratio=True)
    assert size.of(*image) == expected
    if max(image) < 1500:
        view = evaluation_view(np.zeros((*image, 3), np.uint8), (64, 64), size)
        assert view.shape == (*expected, 3)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 2048), st.integers(1, 2048))
def test_keep_ratio_stays_within_its_bounds_and_touches_one(height: int, width: int, first: int, second: int) -> None:
    tall, wide = EvaluationSize(height=first, width=second, keep_ratio=True).of(height, width)
    sides, bounds = sorted((tall, wide)), sorted((first, second))
    assert 1 <= sides[0] <= bounds[0]
    assert 1 <= sides[1] <= bounds[1]
    assert sides[0] == bounds[0] or sides[1] == bounds[1]
    # Within the rounding of both sides the shape is kept.
    assert abs(tall * width - wide * height) <= max(height, width) * 1.01 or min(tall, wide) == 1


def test_an_evaluation_size_without_keep_ratio_is_taken_as_it_is() -> None:
    image = blocks(101, 77, 0).image
    view = evaluation_view(image, (32, 32), EvaluationSize(height=64, width=96))
    assert np.array_equal(view, evaluation_view(image, (64, 96)))
    with pytest.raises(InputError, match=r"evaluation\.size is 0x96; both sides need at least 1 pixel"):
        EvaluationSize(height=0, width=96)


def test_an_evaluation_size_of_the_inputs_changes_nothing() -> None:
    sample = blocks(90, 121, 1)
    for seed in range(10):
        plain = training_view(sample, (48, 64), AugmentOptions(), np.random.default_rng(seed))
        named = training_view(
            sample, (48, 64), AugmentOptions(), np.random.default_rng(seed), EvaluationSize(height=48, width=64)
        )
        assert all(map(np.array_equal, plain, named))


@pytest.mark.parametrize("keep_ratio", [False, True])
def test_with_an_evaluation_size_scale_one_is_a_crop_of_what_evaluation_sees(keep_ratio: bool) -> None:
    """Of an image that has the evaluation's size already: every crop is a window of it, and all places are shown."""
    sample = blocks(97, 161, 4, block=5)
    size = EvaluationSize(height=161, width=97, keep_ratio=True) if keep_ratio else EvaluationSize(height=97, width=161)
    places = set()
    for seed in range(60):
        image, target = training_view(sample, (64, 96), AugmentOptions.none(), np.random.default_rng(seed), size)
        windows = np.lib.stride_tricks.sliding_window_view(sample.mask, (64, 96))
        found = np.argwhere((windows == target).all(axis=(2, 3)))
        assert len(found) == 1
        top, left = found[0]
        assert np.array_equal(image, sample.image[top : top + 64, left : left + 96])
        places.add((top, left))
    assert len(places) > 40
    assert max(top for top, _ in places) > 28
    assert max(left for _, left in places) > 55


def test_scales_are_of_the_evaluation_size_and_pad_where_the_crop_is_larger() -> None:
    sample = Sample(image=np.full((50, 100, 3), 255, np.uint8), mask=np.zeros((50, 100), np.uint8))
    size = EvaluationSize(height=400, width=64, keep_ratio=True)  # 64 x 128
    half = AugmentOptions(scale=(0.5, 0.5), photometric=0.0)
    image, target = training_view(sample, (60, 60), half, np.random.default_rng(0), size)
    assert (target == 0).sum() == 32 * 60
    assert np.array_equal(np.unique(image[target == IGNORED], axis=0), [PADDING])


def test_evaluation_view_averages_what_it_shrinks() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[::2] = 200
    assert np.abs(evaluation_view(image, (10, 15))[2:-2].astype(int) - 100).max() <= 1
    assert evaluation_view(image, (40, 60)) is image


def test_normalize() -> None:
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    out = normalize(images)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    expected = (images.numpy() - np.array(MEAN).reshape(1, 3, 1, 1)) / np.array(STD).reshape(1, 3, 1, 1)
    assert np.abs(out.numpy() - expected).max() < 1e-5
    padding = torch.tensor(PADDING, dtype=torch.uint8).view(1, 3, 1, 1)
    assert normalize(padding).abs().max() < 0.01
