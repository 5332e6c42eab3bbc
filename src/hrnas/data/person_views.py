"""From a person in a picture to the network's input and back: a similarity transform around the person's box.

Points are (x, y) in pixels and count from the middle of the first pixel; boxes count from its left upper corner.
Source: method.md, row COCO pose (half body, rotation 45, scale .35), with the probabilities, the limits on rotation and
the padding that are usual for top-down pose (Sun et al., CVPR 2019, section 4.1).

H height, W width of the network's input; h, w those of the image as it was read; K joints.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hrnas.data.joint_names import lower_body
from hrnas.data.transforms import MEAN, AugmentOptions, vary_colors
from hrnas.structures import Person, Sample, Skeleton

PADDING: Final = 1.25
"""What a view shows, as a multiple of the person's box."""
_HALF_PADDING: Final = 1.5
"""The same for half a body, whose box is that of its joints alone."""
_HALF_JOINTS: Final = 8
"""Labelled joints from which on a person may be cut to half a body."""
_ROTATED: Final = 0.6
"""Probability of a rotation."""
_FILL: Final = tuple(round(part) for part in MEAN)

Points = NDArray[np.floating[Any]]
Transform = NDArray[np.float64]
Box = tuple[float, float, float, float]


def image_to_input(
    box: Box,
    input_size: tuple[int, int],
    *,
    padding: float = PADDING,
    zoom: float = 1.0,
    degrees: float = 0.0,
    flip: bool = False,
) -> Transform:
    """Return the matrix (2, 3) that takes points of the image to points of the input.

    The padded box, made longer on one side to the input's width / height, fills the input; then the view is magnified
    by `zoom` and turned (clockwise as seen) around its middle, and mirrored left to right.
    """
    height, width = input_size
    x, y, wide, tall = box
    shown = padding * max(wide, tall * width / height)  # pixels of the image across the input's width
    scale = zoom * width / shown
    angle = np.deg2rad(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if flip:
        turn[0] = -turn[0]
    middle = np.array([x + wide / 2 - 0.5, y + tall / 2 - 0.5])
    goal = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.hstack([turn, (goal - turn @ middle)[:, None]])


def inverted(transform: Transform) -> Transform:
    """Return the matrix (2, 3) of the way back."""
    back = np.linalg.inv(transform[:, :2])
    return np.hstack([back, -back @ transform[:, 2:]])


def moved(points: Points, transform: Transform) -> NDArray[np.float64]:
    """Return points (..., 2) after a transform."""
    return points @ transform[:, :2].T + transform[:, 2]


def evaluation_view(sample: Sample[Person], input_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return what evaluation sees of a person, uint8 (H, W, 3): the padded box."""
    return np.array(seen(sample.content, image_to_input(sample.truth.box, input_size), input_size))


def training_view(
    sample: Sample[Person],
    input_size: tuple[int, int],
    options: AugmentOptions,
    rng: np.random.Generator,
    skeleton: Skeleton,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return a random view of a person, uint8 (H, W, 3), and its joints in input pixels, float32 (K, 3): x, y, weight.

    The weight is 1 of a joint that is labelled and within the input, else 0. What a view shows is divided by the
    scale; its inverse is drawn from a normal distribution around 1, cut off at the range and with the range as its
    standard deviation. The rotation is drawn from one with `rotation` as its standard deviation, cut off at twice that.
    """
    assert options.scale is not None
    assert options.rotation is not None
    assert options.half_body is not None
    assert options.flip is not None
    # Always the same number of draws, so that one option's value does not change what the others draw.
    halved, upper, turned, mirrored = rng.random(4)
    shown, angle = rng.standard_normal(2)
    person = sample.truth
    half = half_body_box(person, skeleton, is_upper=upper < 0.5) if halved < options.half_body else None
    least, most = 1 / options.scale[1], 1 / options.scale[0]
    factor = float(np.clip(1 + shown * (most - 1 if shown > 0 else 1 - least), least, most))
    degrees = options.rotation * float(np.clip(angle, -2, 2)) if turned < _ROTATED else 0.0
    flip = bool(mirrored < options.flip)
    transform = image_to_input(
        half or person.box,
        input_size,
        padding=_HALF_PADDING if half else PADDING,
        zoom=1 / factor,
        degrees=degrees,
        flip=flip,
    )
    view = vary_colors(seen(sample.content, transform, input_size), options, rng)
    return np.array(view), _moved_joints(person, transform, input_size, skeleton if flip else None)


def half_body_box(person: Person, skeleton: Skeleton, *, is_upper: bool) -> Box | None:
    """Return the box of the upper or lower labelled joints; the other half where that has fewer than three.

    Upper and lower is what the joints' names say, else the half of this person's joints that is higher in the image.
    None where fewer than 8 joints are labelled, and where no half has an extent.
    """
    labelled = np.flatnonzero(person.joints[:, 2] > 0)
    if len(labelled) < _HALF_JOINTS:
        return None
    named = lower_body(skeleton.names)
    if named is not None:
        lower = np.isin(labelled, named)
    else:
        lower = np.argsort(np.argsort(person.joints[labelled, 1], kind="stable")) >= len(labelled) // 2
    chosen = labelled[~lower if is_upper else lower]
    if len(chosen) < 3:
        chosen = labelled[lower if is_upper else ~lower]
    points = person.joints[chosen, :2].astype(float)
    if len(points) < 3 or not (np.ptp(points, axis=0) > 0).all():
        return None
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return left, top, right - left + 1, bottom - top + 1  # the pixels of the joints included


def _moved_joints(
    person: Person, transform: Transform, input_size: tuple[int, int], mirror: Skeleton | None
) -> NDArray[np.float32]:
    """Return joints in input pixels (K, 3); mirror: the skeleton whose pairs change places."""
    labelled = person.joints[:, 2] > 0
    points = moved(person.joints[:, :2].astype(float), transform)
    inside = ((points > -0.5) & (points < np.array(input_size[::-1]) - 0.5)).all(axis=1)
    weight = labelled & inside
    joints = np.hstack([np.where(weight[:, None], points, 0), weight[:, None]]).astype(np.float32)
    if mirror:
        for pair in mirror.flip_pairs:
            joints[list(pair)] = joints[list(pair[::-1])]
    return joints


def seen(image: NDArray[np.uint8], transform: Transform, input_size: tuple[int, int]) -> Image.Image:
    """Return what of an image (h, w, 3) a transform brings into the input, bilinear, padded with MEAN.

    Pillow's affine transform takes single pixels and would alias where the input is smaller, so the part that is seen
    is resized to the input's resolution first. Both steps count from corners, as Pillow does.
    """
    height, width = input_size
    corners = np.array([[-0.5, -0.5], [width - 0.5, -0.5], [-0.5, height - 0.5], [width - 0.5, height - 0.5]])
    reach = moved(corners, inverted(transform)) + 0.5
    limits = np.array(image.shape[1::-1])
    low, high = np.clip(reach.min(axis=0), 0, limits), np.clip(reach.max(axis=0), 0, limits)
    first, last = np.floor(low).astype(int), np.ceil(high).astype(int)
    if (last <= first).any():
        return Image.new("RGB", (width, height), _FILL)
    part = Image.fromarray(image[first[1] : last[1], first[0] : last[0]])
    scale = float(np.sqrt(abs(np.linalg.det(transform[:, :2]))))
    start, stretch = first.astype(float), np.ones(2)
    if scale < 1:
        size = np.maximum(1, np.rint((high - low) * scale)).astype(int)
        part = part.resize(
            (int(size[0]), int(size[1])), Image.Resampling.BILINEAR, box=(*(low - first), *(high - first))
        )
        start, stretch = low, size / (high - low)
    back = inverted(transform)
    # The input's corner coordinates -> its points -> the image's points -> its corner coordinates -> those of the part.
    linear = back[:, :2] * stretch[:, None]
    shift = (back[:, :2] @ np.array([-0.5, -0.5]) + back[:, 2] + 0.5 - start) * stretch
    data = (*linear[0], shift[0], *linear[1], shift[1])
    return part.transform(
        (width, height), Image.Transform.AFFINE, tuple(map(float, data)), Image.Resampling.BILINEAR, fillcolor=_FILL
    )
