"""Corners, points in boxes and angles, against shapely and by hand."""

import math

import numpy as np
import pytest
import shapely

from geometry.rectangles import drawn, outline
from hrnas.geometry.boxes import bev_corners, corners, points_in_boxes, wrapped


def test_corners_from_above_are_those_of_the_outline() -> None:
    boxes = drawn(np.random.default_rng(0), 50)
    found = bev_corners(boxes)
    assert found.shape == (50, 4, 2)
    for box, points in zip(boxes, found, strict=True):
        ring = shapely.LinearRing(points)
        assert ring.is_ccw
        assert shapely.Polygon(ring).symmetric_difference(outline(box)).area < 1e-12


def test_corners_begin_at_the_front_left_and_at_the_bottom() -> None:
    box = np.array([[10.0, 5, 1, 4, 2, 1.5, math.pi / 2]])  # the front towards +y, the left towards -x
    flat = [(9, 7), (9, 3), (11, 3), (11, 7)]
    np.testing.assert_allclose(bev_corners(box)[0], flat, atol=1e-12)
    solid = [(*corner, z) for z in (0.25, 1.75) for corner in flat]
    np.testing.assert_allclose(corners(box)[0], solid, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_points_in_boxes_are_those_shapely_finds(dtype: type) -> None:
    rng = np.random.default_rng(1)
    boxes = drawn(rng, 30)
    boxes[:, :2] *= 3
    points = np.concatenate([rng.uniform(-8, 8, (2000, 3)) * (1, 1, 0.4), rng.random((2000, 1))], axis=1).astype(dtype)
    found = points_in_boxes(points, boxes)
    assert found.shape == (30, 2000)
    assert found.dtype == np.bool_
    flat = shapely.points(points[:, :2].astype(float))
    for box, inside in zip(boxes, found, strict=True):
        height = np.abs(points[:, 2].astype(float) - box[2]) <= box[5] / 2
        np.testing.assert_array_equal(inside, shapely.covers(outline(box), flat) & height)
    assert found.any(axis=1).sum() > 20


def test_faces_belong_to_a_box() -> None:
    box = np.array([[1.0, 2, 3, 4, 2, 1, 0]])
    on = np.array([[3, 2, 3], [-1, 2, 3], [1, 3, 3], [1, 1, 3], [1, 2, 3.5], [1, 2, 2.5], [3, 3, 3.5]])
    assert points_in_boxes(on, box).all()
    beyond = box[:, :3] + (on - box[:, :3]) * (1 + 1e-9)
    assert not points_in_boxes(beyond, box).any()
    assert points_in_boxes(np.array([[1.0, 2, 3]]), np.array([[1.0, 2, 3, 0, 0, 0, 0.3]])).all()


def test_no_points_or_no_boxes() -> None:
    assert points_in_boxes(np.zeros((0, 4), np.float32), np.ones((2, 7))).shape == (2, 0)
    assert points_in_boxes(np.zeros((3, 4), np.float32), np.ones((0, 7))).shape == (0, 3)
    assert corners(np.ones((0, 7))).shape == (0, 8, 3)


def test_wrapped_angles_are_the_same_directions_in_half_open_range() -> None:
    rng = np.random.default_rng(2)
    turns = np.arange(-9, 10) * math.pi / 2
    near = [np.nextafter(turns, -100), turns, np.nextafter(turns, 100), turns - 1e-17, turns * (1 + 1e-15)]
    angles = np.concatenate([rng.uniform(-50, 50, 500), *near])
    found = wrapped(angles)
    assert found.min() >= -math.pi
    assert found.max() < math.pi
    np.testing.assert_allclose(np.exp(1j * found), np.exp(1j * angles), atol=1e-13)
    assert wrapped(math.pi) == -math.pi
    assert wrapped(-math.pi) == -math.pi
    # Rounding makes a whole turn of what is just below the lower end.
    assert wrapped(np.nextafter(-math.pi, -4)) < math.pi
    assert wrapped(0.25) == 0.25
    assert wrapped(np.zeros((2, 3))).shape == (2, 3)
