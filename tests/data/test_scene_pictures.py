"""Pictures of scenes: what is where, fronts, truth and found told apart, what reaches behind the camera."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from data.small_scenes import CAMERA, CAR, SIZE, boxes3d
from hrnas.data.kitti_frames import NEAREST, projected_boxes, to_image, to_objects
from hrnas.data.scene_pictures import GROUND, bird_view, camera_view
from hrnas.geometry.boxes import bev_corners, corners
from hrnas.structures import Boxes3D

COLORS = ((64, 128, 255), (255, 96, 64), (64, 200, 96))
NAMES = ("Car", "Pedestrian", "Cyclist")
EMPTY = np.zeros((0, 4), np.float32)
HEIGHT = 1000
ASIDE = 20.0
ZOOM = HEIGHT / (69.12 + 3)
MIDDLE = round(2 * ASIDE * ZOOM) / 2

AHEAD = (15.0, -2.0, -0.9, 3.9, 1.6, 1.6, 0.2)
ACROSS = (15.0, -3.0, -0.9, 3.9, 1.6, 1.6, np.pi / 2)


def place(x: float, y: float) -> tuple[int, int]:
    """Return the row and column of the pixel from above that shows a place."""
    return int((69.12 - x) * ZOOM), int(MIDDLE - y * ZOOM)


def differs(picture: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (picture.astype(int) != other).any(axis=-1)


def above(truth: Boxes3D | None, found: Boxes3D | None, *, cloud: np.ndarray = EMPTY, **given: Any) -> np.ndarray:
    return bird_view(cloud, truth, found, COLORS, reach=(69.12, ASIDE), **given)


@cache
def blank(*, names: Any = ()) -> np.ndarray:
    return above(None, None, names=names)


def is_bluish(pixel: np.ndarray) -> bool:
    red, _, blue = pixel.astype(int)
    return bool(blue > red + 60)


def test_a_point_is_where_it_is_and_has_the_colour_of_its_height() -> None:
    found = {}
    for x, y, z in ((20.0, 10.0, -1.7), (20.0, 10.0, 0.8), (50.0, -18.0, -1.7), (-2.0, 0.5, 0.0)):
        picture = above(None, None, cloud=np.array([[x, y, z, 0.5]], np.float32))
        changed = np.argwhere(differs(picture, blank()))
        row, column = place(x, y)
        assert np.abs(changed - (row, column)).max() <= 1, "3x3 pixels around it"
        found[x, y, z] = picture[row, column].astype(int)
    low, high = found[20.0, 10.0, -1.7], found[20.0, 10.0, 0.8]
    assert np.abs(low - found[50.0, -18.0, -1.7]).max() < 40
    assert low[2] > low[0] + 40, "what is low is blue"
    assert high[0] > high[2] + 40, "what is high is yellow"


def test_points_out_of_reach_are_left_out() -> None:
    away = np.array([(80, 0, 0, 0), (-5, 0, 0, 0), (10, 20.5, 0, 0), (10, -20.5, 0, 0), (1e6, 1e6, 0, 0)], np.float32)
    assert np.array_equal(above(None, None, cloud=away), blank())


@pytest.mark.parametrize("reach", [(69.12, 39.68), (20.0, 40.0)])
@pytest.mark.parametrize("height", [301, 500])
def test_the_sizes_of_pictures(reach: tuple[float, float], height: int) -> None:
    picture = bird_view(EMPTY, None, boxes3d(CAR), COLORS, reach=reach, height=height, names=NAMES)
    assert picture.dtype == np.uint8
    assert picture.shape == (height, round(2 * reach[1] * height / (reach[0] + 3)), 3)


def test_a_found_box_from_above_has_its_outline_and_a_line_to_the_front() -> None:
    picture = above(None, boxes3d(AHEAD))
    changed = differs(picture, blank())
    outline = bev_corners(np.array([AHEAD]))[0]
    for start, end in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        for share in np.linspace(0, 1, 30):
            assert is_bluish(picture[place(*(start + share * (end - start)))])
    x, y, *_, yaw = AHEAD
    direction = np.array([np.cos(yaw), np.sin(yaw)])
    ahead, behind = (np.array([x, y]) + sign * 0.75 * AHEAD[3] * direction for sign in (1, -1))
    assert changed[place(*ahead)], "the line leads ahead of the box"
    assert not changed[place(*behind)]
    rows, columns = np.nonzero(changed)
    low, high = outline.min(axis=0), outline.max(axis=0)
    assert (rows.max(), columns.min()) == pytest.approx(place(low[0], high[1]), abs=3)


def test_truth_and_found_are_told_apart() -> None:
    box = boxes3d(AHEAD)
    found, true = above(None, box), above(box, None)
    assert not (found.min(axis=-1) > 170).any(), "nothing white"
    assert (true.min(axis=-1) > 170).sum() > 30
    outline = bev_corners(box.boxes)[0]
    side = np.array([true[place(*(outline[0] + share * (outline[1] - outline[0])))] for share in np.linspace(0, 1, 99)])
    bright = side.min(axis=1) > 150
    assert 20 < bright.sum() < 85, "dashes and gaps"
    assert np.count_nonzero(np.diff(bright)) >= 6
    middle = place(AHEAD[0] - 1, AHEAD[1] - 0.4)
    assert is_bluish(true[middle]), "a true box has its class's colour within"


def test_classes_have_their_colours() -> None:
    for label, channel in ((0, 2), (1, 0), (2, 1)):
        picture = above(None, boxes3d(AHEAD, labels=[label]))
        changed = picture[differs(picture, blank())]
        assert (changed.argmax(axis=1) == channel).mean() > 0.95


def test_names_are_written_in_a_legend_and_beside_found_boxes() -> None:
    legend = differs(blank(names=NAMES), blank())
    rows, columns = np.nonzero(legend)
    assert rows.min() > 0.8 * HEIGHT
    assert columns.max() < 0.3 * legend.shape[1]
    box = boxes3d(AHEAD)
    with_found, with_truth = (above(*pair, names=NAMES) for pair in ((None, box), (box, None)))
    plain = above(None, box), above(box, None)
    row, column = place(AHEAD[0], AHEAD[1])
    beside = slice(row - 15, row + 15), slice(column + 30, column + 80)
    assert differs(with_found, plain[0])[beside].sum() > 25
    assert not differs(with_truth, plain[1])[beside].any()


def texts(*boxes: Any, scores: float = 0.5) -> np.ndarray:
    """Return where a picture from above has text beside its boxes."""
    found = boxes3d(*boxes)
    found = Boxes3D(boxes=found.boxes, labels=found.labels, scores=np.full(len(found), scores))
    words = differs(above(None, found, names=NAMES), above(None, found)) & ~differs(
        above(None, boxes3d(), names=NAMES), above(None, boxes3d())
    )
    words[[row for metres in (20, 40, 60) for row in range(*band(metres))], int(MIDDLE) : int(MIDDLE) + 50] = False
    return words


def band(metres: int) -> tuple[int, int]:
    """Return the rows in which a ring's distance stands."""
    row = place(metres, 0)[0]
    return row - 20, row + 20


def test_texts_keep_clear_of_other_boxes_and_texts() -> None:
    """A row of boxes side by side: the text beside the left one would lie on the next."""
    pair = ((30.0, 11.0, 0, 4, 2, 2, 0.0), (30.0, 8.0, 0, 4, 2, 2, 0.0))
    alone, both = texts(pair[0]), texts(*pair)
    right = place(30.0, 10.0)[1]
    assert np.nonzero(alone)[1].min() >= right, "a text stands at the right of its box"
    left = place(30.0, 12.0)[1]
    columns = np.nonzero(both)[1]
    assert columns.min() < left, "or at its left, where that is free and the right is not"
    assert not ((columns > left) & (columns < place(30.0, 7.0)[1])).any()
    assert columns.max() > place(30.0, 7.0)[1]


@pytest.mark.parametrize("place", [(0.0, 0.0), (69.0, 19.5), (69.0, -19.5), (-2.9, 19.5)])
def test_texts_stay_in_the_picture(place: tuple[float, float]) -> None:
    words = texts((*place, 0, 4, 2, 2, 1.0))
    assert words.sum() > 50
    assert not words[[0, -1]].any()
    assert not words[:, [0, -1]].any()


def test_boxes_out_of_reach_change_nothing() -> None:
    away = boxes3d((90.0, 0.0, 0, 4, 2, 2, 0.0), (20.0, 60.0, 0, 4, 2, 2, 0.0), (-9.0, 0.0, 0, 4, 2, 2, 0.0))
    assert np.array_equal(above(away, away, names=NAMES), above(boxes3d(), boxes3d(), names=NAMES))  # fmt: skip


def camera(truth: Boxes3D | None, found: Boxes3D | None, **given: Any) -> np.ndarray:
    return camera_view(None, truth, found, CAMERA, COLORS, image_size=SIZE, **given)


@pytest.mark.parametrize(
    "box", [AHEAD, ACROSS, (30.0, 5.0, -1.0, 0.8, 0.6, 1.7, -2.5), (8.0, 5.0, -0.9, 4.0, 2.0, 1.5, 1.0)]
)
def test_a_box_in_the_image_fills_its_box_in_two_dimensions(box: Any) -> None:
    """The camera of these scenes is not tilted against the lidar, so that both have the same upright boxes."""
    found = boxes3d(box)
    rows, columns = np.nonzero(differs(camera(None, found), np.array(GROUND)))
    objects = to_objects(found, NAMES, CAMERA, SIZE)
    expected = projected_boxes(objects, CAMERA, SIZE)[0]
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == pytest.approx(expected, abs=2.5)


@pytest.mark.parametrize("is_truth", [False, True])
@pytest.mark.parametrize("box", [
    AHEAD,
    (1.0, 1.5, -0.9, 4.0, 1.6, 1.5, 0.1),  # its rear end is behind the camera
    (1.0, 1.5, -0.9, 4.0, 1.6, 1.5, 3.2),  # its front is
    (3.0, -2.0, -0.9, 9.0, 1.6, 1.5, 0.5),
    (1.0, 0.0, -0.08, 4.0, 0.04, 0.04, 0.02),  # around the camera, so that it is seen up to the nearest
])  # fmt: skip
def test_edges_are_drawn_as_far_as_they_lie_ahead(box: Any, is_truth: bool) -> None:
    boxes = boxes3d(box)
    picture = camera(boxes if is_truth else None, None if is_truth else boxes)
    drawn = differs(picture, np.array(GROUND))
    ends = corners(boxes.boxes)[0]
    pairs = [(a, b) for a in range(8) for b in range(a) if (a % 4 == b % 4) or (a // 4 == b // 4 and (a - b) % 2)]
    assert len(pairs) == 12
    samples = np.concatenate([ends[a] + np.linspace(0, 1, 20_000)[:, None] * (ends[b] - ends[a]) for a, b in pairs])
    column, row, depth = to_image(samples, CAMERA).T
    ahead = depth > NEAREST
    column, row = np.floor(column[ahead]).astype(int), np.floor(row[ahead]).astype(int)
    near = np.zeros((SIZE[0] + 20, SIZE[1] + 20), bool)  # with a margin of 10
    around = (column >= -5) & (row >= -5) & (column < SIZE[1] + 5) & (row < SIZE[0] + 5)
    for across in range(-3, 4):
        for down in range(-3, 4):
            near[row[around] + 10 + down, column[around] + 10 + across] = True
    within = (column >= 0) & (row >= 0) & (column < SIZE[1]) & (row < SIZE[0])
    assert within.sum() > 1000
    assert drawn[row[within], column[within]].mean() > (0.4 if is_truth else 0.98)
    # Nothing else is drawn but the front, where it lies ahead as a whole.
    front = to_image(ends[[0, 3, 4, 7]], CAMERA)
    if (front[:, 2] > NEAREST).all():
        (left, top), (right, bottom) = front[:, :2].min(axis=0).clip(-10), front[:, :2].max(axis=0).clip(-10)
        near[int(top) + 10 : int(bottom) + 11, int(left) + 10 : int(right) + 11] = True
    else:
        assert (front[:, 2] < NEAREST).all()
    assert np.argwhere(drawn & ~near[10:-10, 10:-10]).tolist() == []


def test_the_front_is_filled_and_the_far_side_faint() -> None:
    picture = camera(None, boxes3d(ACROSS)).astype(int)
    solid = corners(np.array([ACROSS]))[0]
    front, rear = (
        to_image(solid[face].mean(axis=0, keepdims=True), CAMERA)[0] for face in ([0, 3, 4, 7], [1, 2, 5, 6])
    )
    assert (picture[int(front[1]), int(front[0])] != GROUND).any()
    assert (picture[int(rear[1]), int(rear[0])] == GROUND).all()
    # Of the upright edges that of the front's far side is hidden by the box itself.
    visible, hidden = (to_image(solid[[low, low + 4]].mean(axis=0, keepdims=True), CAMERA)[0] for low in (0, 2))
    shades = [picture[int(row), int(column) - 2 : int(column) + 3, 2].max() for column, row, _ in (visible, hidden)]
    assert shades[0] > 200 > shades[1] + 40


def test_what_lies_behind_or_beside_changes_nothing() -> None:
    away = boxes3d((-10.0, 0.0, -1, 4, 2, 2, 0.0), (5.0, 40.0, -1, 4, 2, 2, 0.0))
    assert not differs(camera(away, away, names=NAMES), np.array(GROUND)).any()


def test_an_image_lies_below_and_stays_as_it_was() -> None:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    image.flags.writeable = False
    picture = camera_view(image, boxes3d(AHEAD), boxes3d(AHEAD), CAMERA, COLORS, names=NAMES)
    changed = differs(picture, image)
    assert 500 < changed.sum() < 0.1 * changed.size
    assert np.array_equal(camera_view(image, None, boxes3d(), CAMERA, COLORS), image)


def test_what_is_near_lies_over_what_is_far() -> None:
    near, far = (10.0, 0.0, -0.9, 1.0, 2.0, 1.6, np.pi), (20.0, 1.5, -0.9, 1.0, 2.0, 6.0, np.pi)
    # Where an upright edge of the far box passes behind the upper edge of the near one.
    column = int(to_image(np.array([[19.5, 0.5, 0]]), CAMERA)[0, 0])
    edge = int(to_image(np.array([[9.5, 0.5, -0.1]]), CAMERA)[0, 1])
    row = edge - 2 + int(camera(None, boxes3d(near))[edge - 2 : edge + 3, column, 2].argmax())
    assert camera(None, boxes3d(far, labels=[1]))[row, column, 0] > 150
    for boxes in (boxes3d(near, far, labels=[0, 1]), boxes3d(far, near, labels=[1, 0])):
        red, _, blue = camera(None, boxes)[row, column].astype(int)
        assert blue > red + 60


def test_without_an_image_the_points_are_shown() -> None:
    points = np.array([(10, 2, -1.7, 0), (20, -3, 1.0, 0), (-10, 0, 0, 0), (5, 30, 0, 0)], np.float32)
    drawn = np.argwhere(differs(camera(None, None, cloud=points), np.array(GROUND)))
    places = to_image(points[:2], CAMERA)[:, 1::-1]
    distances = np.abs(drawn[:, None] + 0.5 - places[None]).max(axis=2)
    assert (distances.min(axis=1) < 2).all()
    assert (distances.min(axis=0) < 2).all()


def test_names_stand_by_found_boxes_in_the_image() -> None:
    plain, named = camera(None, boxes3d(AHEAD)), camera(None, boxes3d(AHEAD), names=NAMES)
    assert differs(plain, named).sum() > 50
    assert np.array_equal(camera(boxes3d(AHEAD), None), camera(boxes3d(AHEAD), None, names=NAMES))
