"""Views of persons: where points go, that pictures go there too, and what augmentation may do."""

import numpy as np
import pytest
from numpy.typing import NDArray

from hrnas.data.coco_joints import COCO_SKELETON
from hrnas.data.person_views import (
    evaluation_view,
    half_body_box,
    image_to_input,
    inverted,
    moved,
    seen,
    training_view,
)
from hrnas.data.transforms import AugmentOptions
from hrnas.structures import Person, Sample, Skeleton
from people import skeleton


def options(**changes: object) -> AugmentOptions:
    """Return options that are all off, but for the changes."""
    off = {
        "scale": (1.0, 1.0), "flip": 0.0, "rotation": 0.0, "half_body": 0.0, "photometric": 0.0, "brightness": 0.0,
        "contrast": 0.0, "saturation": 0.0, "hue": 0.0,
    }  # fmt: skip
    return AugmentOptions(**off | changes)  # type: ignore[arg-type]


def sample(image: NDArray[np.uint8], box: tuple[float, ...], joints: list[list[float]]) -> Sample[Person]:
    x, y, width, height = box
    truth = Person(
        box=(x, y, width, height),
        joints=np.array(joints, np.float32),
        area=None,
        image_id=1,
        annotation_id=1,
        score=1.0,
        index=0,
    )
    return Sample(content=image, truth=truth, name="x")


def peak(image: NDArray[np.uint8]) -> tuple[float, float]:
    """Return the centre (x, y) of what stands out from a dark picture."""
    bright = np.clip(image[..., 0].astype(float) - 30, 0, None)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return float((bright * x).sum() / bright.sum()), float((bright * y).sum() / bright.sum())


def dot(place: tuple[float, float], size: tuple[int, int], sigma: float) -> NDArray[np.uint8]:
    """Return a dark picture with a soft bright dot around a point; what is padded is no brighter than that."""
    y, x = np.mgrid[: size[0], : size[1]]
    bright = 200 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * sigma**2))
    return np.repeat(bright[..., None], 3, axis=2).round().astype(np.uint8)


@pytest.mark.parametrize("input_size", [(64, 48), (61, 47), (256, 192), (48, 64)])
def test_there_and_back(input_size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-50, 900, (500, 2))
    for degrees, flip, zoom in ((0, False, 1), (33, False, 0.7), (-80, True, 1.4)):
        forth = image_to_input((100.2, 50.7, 211.0, 97.3), input_size, zoom=zoom, degrees=degrees, flip=flip)
        assert np.abs(moved(moved(points, forth), inverted(forth)) - points).max() < 1e-4


def test_the_padded_box_fills_the_input() -> None:
    """A box of 40 x 30 in an input of 64 x 48 pixels (height x width): its height 30 has room, its width fills it."""
    forth = image_to_input((10, 20, 40, 30), (64, 48))
    # The padded box is 50 wide, from 5 to 55 as corners count; the same as points: 4.5 to 54.5.
    corners = moved(np.array([[4.5, 34.5], [54.5, 34.5], [29.5, 34.5]]), forth)
    assert corners == pytest.approx(np.array([[-0.5, 31.5], [47.5, 31.5], [23.5, 31.5]]))
    tall = moved(np.array([[29.5, 9.5], [29.5, 59.5]]), image_to_input((20, 15, 20, 40), (64, 48)))
    assert tall[:, 1] == pytest.approx([-0.5, 63.5])  # 40 x 1.25 pixels from row 10 to row 60


@pytest.mark.parametrize("input_size", [(64, 48), (61, 47)])
@pytest.mark.parametrize(("degrees", "flip", "zoom"), [(0, False, 1), (0, True, 1), (40, False, 1.2), (-70, True, 0.8)])
@pytest.mark.parametrize("size", [24, 77, 400])
def test_a_dot_lands_where_its_joint_does(
    input_size: tuple[int, int], degrees: float, flip: bool, zoom: float, size: int
) -> None:
    """Enlarged (24), about as it is (77) and reduced several times (400)."""
    # The picture has a dark frame three times its size, so that nothing of the padding is seen.
    box = (1.3 * size, 1.2 * size, 0.45 * size, 0.6 * size)
    forth = image_to_input(box, input_size, zoom=zoom, degrees=degrees, flip=flip)
    joint = np.array([1.47 * size, 1.43 * size])
    view = np.array(seen(dot((joint[0], joint[1]), (3 * size, 3 * size), max(1.0, size / 30)), forth, input_size))
    assert peak(view) == pytest.approx(moved(joint, forth), abs=0.06)


def test_an_evaluation_view_that_is_the_image_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    whole = evaluation_view(sample(image, (3, 4, 24, 32), [[0, 0, 0]] * 5), (40, 30))
    assert (whole == image).all()


def test_reducing_does_not_alias() -> None:
    """Stripes of three pixels, reduced twelve and ten times, become grey; single pixels taken from them would not."""
    image = np.zeros((480, 480, 3), np.uint8)
    image[:, np.arange(480) // 3 % 2 == 0] = 255
    view = evaluation_view(sample(image, (48, 48, 384, 384), [[0, 0, 0]] * 5), (40, 40))
    assert np.abs(view.astype(int) - 127).max() < 25
    rng = np.random.default_rng(3)
    turned, _ = training_view(
        sample(image, (160, 160, 160, 160), [[0, 0, 0]] * 5), (20, 20), options(rotation=30.0), rng, skeleton()
    )
    assert np.abs(turned.astype(int) - 127).max() < 40


def test_a_box_beyond_the_image_shows_padding() -> None:
    image = np.full((20, 20, 3), 255, np.uint8)
    view = evaluation_view(sample(image, (40, 40, 10, 10), [[0, 0, 0]] * 5), (16, 16))
    assert (view == (124, 116, 104)).all()


def test_joints_outside_or_without_label_have_no_weight() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    joints = [[50, 50, 2], [40, 60, 1], [45, 45, 0], [5, 50, 2], [29.6, 29.6, 2]]
    plain = sample(image, (34, 34, 32, 32), joints)
    _, found = training_view(plain, (40, 40), options(), np.random.default_rng(0), skeleton())
    # The view shows the image from 30 to 70 as corners count, in its own size.
    assert found.tolist() == [[20, 20, 1], [10, 30, 1], [0, 0, 0], [0, 0, 0], [pytest.approx(-0.4, abs=1e-5)] * 2 + [1]]


def test_a_flip_exchanges_the_pairs() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    joints = [[10, 5, 2], [12, 10, 2], [20, 11, 2], [0, 0, 0], [22, 30, 2]]
    plain = sample(image, (4, 4, 32, 32), joints)
    _, found = training_view(plain, (40, 40), options(flip=1.0), np.random.default_rng(0), skeleton())
    assert found.tolist() == [[29, 5, 1], [19, 11, 1], [27, 10, 1], [17, 30, 1], [0, 0, 0]]


def test_what_is_drawn_follows_the_options() -> None:
    """2,000 draws of scale and rotation against the distributions they are drawn from."""
    image = np.zeros((8, 8, 3), np.uint8)
    joints = [[3, 3, 2], [3.5, 3, 2], [3, 3.2, 2], [3.3, 3.3, 2], [3, 3, 2]]
    one = sample(image, (1, 1, 6, 6), joints)
    rng = np.random.default_rng(0)
    chosen = options(scale=(1 / 1.35, 1 / 0.65), rotation=20.0)
    zooms, angles = [], []
    for _ in range(2000):
        _, found = training_view(one, (30, 30), chosen, rng, skeleton())
        x, y = found[1, :2] - found[0, :2]
        zooms.append(np.hypot(x, y) / (0.5 * 30 / 7.5))
        angles.append(np.rad2deg(np.arctan2(y, x)))
    shown, degrees = 1 / np.array(zooms), np.array(angles)
    assert (shown.min(), shown.max()) == (pytest.approx(0.65, abs=1e-4), pytest.approx(1.35, abs=1e-4))
    # A normal distribution is beyond one standard deviation, where it is cut off, in 0.317 of all cases.
    assert np.mean((shown < 0.6501) | (shown > 1.3499)) == pytest.approx(0.317, abs=0.03)
    assert np.abs(degrees).max() == pytest.approx(40, abs=0.01)
    assert np.mean(np.abs(degrees) > 1e-3) == pytest.approx(0.6, abs=0.03)
    assert degrees[np.abs(degrees) > 1e-3].std() == pytest.approx(20 * 0.96, abs=1.0)  # 0.96: cut off at two


def test_one_options_value_does_not_change_what_the_others_draw() -> None:
    image = np.zeros((30, 30, 3), np.uint8)
    one = sample(image, (5, 5, 20, 20), [[15, 15, 2], [10, 12, 2], [20, 12, 2], [12, 22, 2], [18, 22, 2]])
    views = [
        training_view(one, (32, 32), options(scale=(0.8, 1.25), half_body=half), np.random.default_rng(5), skeleton())[
            1
        ]
        for half in (0.0, 1.0)
    ]
    assert (views[0] == views[1]).all()  # five joints are no half body


def test_half_bodies_are_those_of_the_names() -> None:
    joints = np.zeros((17, 3), np.float32)
    joints[:11] = [[20 + index, 10 + index, 2] for index in range(11)]
    joints[11:] = [[20 + index, 60 + index, 1] for index in range(6)]
    person = sample(np.zeros((100, 100, 3), np.uint8), (0, 0, 50, 90), joints.tolist()).truth
    assert half_body_box(person, COCO_SKELETON, is_upper=True) == (20, 10, 11, 11)
    assert half_body_box(person, COCO_SKELETON, is_upper=False) == (20, 60, 6, 6)
    few = joints.copy()
    few[:9] = 0  # two of the upper body are no half: the lower one is taken; eight joints are the fewest
    person = sample(np.zeros((100, 100, 3), np.uint8), (0, 0, 50, 90), few.tolist()).truth
    assert half_body_box(person, COCO_SKELETON, is_upper=True) == (20, 60, 6, 6)
    few[16] = 0
    person = sample(np.zeros((100, 100, 3), np.uint8), (0, 0, 50, 90), few.tolist()).truth
    assert half_body_box(person, COCO_SKELETON, is_upper=True) is None


def test_half_bodies_are_by_height_where_names_say_nothing() -> None:
    plain = Skeleton(names=tuple("abcdefgh"), flip_pairs=(), bones=(), sigmas=(0.1,) * 8)
    joints = [[index, 70 - 10 * index, 2] for index in range(8)]
    person = sample(np.zeros((100, 100, 3), np.uint8), (0, 0, 50, 90), joints).truth
    assert half_body_box(person, plain, is_upper=True) == (4, 0, 4, 31)
    assert half_body_box(person, plain, is_upper=False) == (0, 40, 4, 31)
