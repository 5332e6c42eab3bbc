"""Overlaps of boxes against shapely and by hand."""

import math

import numpy as np
import pytest
import torch

from devices import DEVICES
from geometry.rectangles import Array, drawn, expected
from hrnas.geometry import overlaps
from hrnas.geometry.overlaps import intersection_bev, iou_3d, iou_bev

TURNS = np.arange(-4, 5) * math.pi / 2


def found(a: Array, b: Array, dtype: torch.dtype = torch.float64, device: str = "cpu") -> tuple[Array, Array, Array]:
    one, other = (torch.from_numpy(boxes).to(device, dtype) for boxes in (a, b))
    results = intersection_bev(one, other), iou_bev(one, other), iou_3d(one, other)
    assert all(result.dtype == dtype and result.shape == (len(a), len(b)) for result in results)
    smaller = torch.minimum((one[:, 3] * one[:, 4])[:, None], other[:, 3] * other[:, 4])
    for result, most in zip(results, (smaller, 1, 1), strict=True):
        assert ((result >= 0) & (result <= most)).all()  # not even rounding takes it out
    return tuple(result.double().cpu().numpy() for result in results)


def on_a_lattice(rng: np.random.Generator, count: int) -> Array:
    """Return boxes whose sides lie on each other's, whose corners touch, which contain and cross each other."""
    middles, sizes = rng.integers(-3, 4, (count, 3)) / 2, rng.integers(0, 5, (count, 3)).astype(float)
    return np.concatenate([middles, sizes, rng.choice(TURNS, (count, 1))], axis=1)


def assert_close(a: Array, b: Array, tolerance: float, device: str) -> None:
    for ours, theirs in zip(found(a, b, device=device), expected(a, b), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(3))
def test_random_pairs_are_as_shapely_has_them(seed: int, device: str) -> None:
    rng = np.random.default_rng(seed)
    a, b = drawn(rng, 60), drawn(rng, 50)
    assert 0.2 < (expected(a, b)[0] > 0).mean() < 0.95
    assert_close(a, b, 1e-12, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("jitter", [0, 1e-16, 1e-14, 1e-11, 1e-8, 1e-6])
def test_sides_on_sides_and_corners_on_corners(jitter: float, device: str) -> None:
    rng = np.random.default_rng(1)
    a, b = on_a_lattice(rng, 60), on_a_lattice(rng, 60)
    exact = expected(a, b)  # of the boxes as they are meant: shapely too is led astray by some jitter
    a[:, 6] += rng.uniform(-jitter, jitter, 60)
    b[:, :2] += rng.uniform(-jitter, jitter, (60, 2))
    b[:, 6] += rng.uniform(-jitter, jitter, 60)
    for ours, theirs in zip(found(a, b, device=device), exact, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13 + 30 * jitter)


def test_lattices_turned_together() -> None:
    """Shared sides that are not along an axis, so that rounding moves each of them on its own."""
    rng = np.random.default_rng(2)
    a, b = on_a_lattice(rng, 50), on_a_lattice(rng, 50)
    exact = expected(a, b)
    for angle in rng.uniform(-math.pi, math.pi, 5):
        cosine, sine = math.cos(angle), math.sin(angle)
        for boxes in (a, b):
            boxes[:, :2] = boxes[:, :2] @ np.array([[cosine, sine], [-sine, cosine]])
            boxes[:, 6] += angle
        for ours, theirs in zip(found(a, b), exact, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


UNIT = (0, 0, 0, 1, 1, 1, 0)
CAR = (0, 0, 0, 4, 2, 1.5, 0)


@pytest.mark.parametrize(
    ("one", "other", "area", "flat", "solid"),
    [
        (CAR, CAR, 8, 1, 1),
        (CAR, (0, 0, 0, 4, 2, 1.5, math.pi), 8, 1, 1),
        (CAR, (0, 0, 0, 2, 4, 1.5, math.pi / 2), 8, 1, 1),
        (CAR, (2, 0, 0, 4, 2, 1.5, 0), 4, 1 / 3, 1 / 3),
        (CAR, (0, 0, 0.75, 4, 2, 1.5, 0), 8, 1, 1 / 3),
        (CAR, (0, 0, 1.5, 4, 2, 1.5, 0), 8, 1, 0),  # on top of it
        (CAR, (0, 0, 9, 4, 2, 1.5, 0), 8, 1, 0),
        (CAR, (4, 0, 0, 4, 2, 1.5, 0), 0, 0, 0),  # side on side, outside
        (CAR, (4, 2, 0, 4, 2, 1.5, 0), 0, 0, 0),  # corner on corner
        (CAR, (2 + math.sqrt(0.5), 0, 0, 1, 1, 1, math.pi / 4), 0, 0, 0),  # corner on side
        (CAR, (1.5, 0.5, 0, 1, 1, 1.5, 0), 1, 1 / 8, 1 / 8),  # inside, two sides on sides
        (CAR, (0.3, 0.1, 0, 1, 1, 0.5, 0.4), 1, 1 / 8, 0.5 / 12),  # inside
        (CAR, (0, 0, 0, 4, 2, 1.5, math.pi / 2), 4, 1 / 3, 1 / 3),  # crossing
        (CAR, (0, 0, 0, 40, 0.5, 1.5, math.pi / 2), 1, 1 / 27, 1 / 27),
        (UNIT, (0, 0, 0, 1, 1, 1, math.pi / 4), 2 * math.sqrt(2) - 2, None, None),  # an octagon
        (CAR, (0, 0, 0, 0, 0, 0, 0), 0, 0, 0),
        (CAR, (0, 0, 0, 3, 0, 1, 0.3), 0, 0, 0),
        (CAR, (0, 0, 0, 4, 2, 0, 0), 8, 1, 0),
        ((0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0), 0, 0, 0),
        ((0, 0, 0, 3, 0, 1, 0.3), (0, 0, 0, 3, 0, 1, 0.3), 0, 0, 0),
        (CAR, (100, 0, 0, 4, 2, 1.5, 0), 0, 0, 0),
    ],
)
def test_pairs_by_hand(
    one: tuple[float, ...], other: tuple[float, ...], area: float, flat: float | None, solid: float | None
) -> None:
    a, b = np.array([one], float), np.array([other], float)
    for pair in ((a, b), (b, a)):
        areas, flats, solids = found(*pair)
        assert areas.item() == pytest.approx(area, abs=1e-14)
        assert flat is None or flats.item() == pytest.approx(flat, abs=1e-14)
        assert solid is None or solids.item() == pytest.approx(solid, abs=1e-14)
    assert found(a, b, torch.float32)[0].item() == pytest.approx(area, abs=2e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_box_overlaps_itself_wholly_to_the_last_bit(dtype: torch.dtype, device: str) -> None:
    rng = np.random.default_rng(3)
    boxes = drawn(rng, 200) * ([30, 30, 1, 1, 1, 1, 1])
    _, flat, solid = found(boxes, boxes, dtype, device)
    assert (flat.diagonal() == 1).all()
    assert (solid.diagonal() == 1).all()
    assert flat.max() == solid.max() == 1


@pytest.mark.parametrize(("offset", "tolerance"), [(1e4, 1e-10), (1e7, 1e-7)])
def test_far_from_the_origin(offset: float, tolerance: float) -> None:
    rng = np.random.default_rng(4)
    a, b = drawn(rng, 40), drawn(rng, 40)
    near = expected(a, b)
    a[:, :2] += (offset, -offset)
    b[:, :2] += (offset, -offset)
    for ours, theirs in zip(found(a, b), near, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("device", DEVICES)
def test_single_precision_over_the_range_of_a_lidar(device: str) -> None:
    rng = np.random.default_rng(5)
    a, b = drawn(rng, 60), drawn(rng, 60)
    a[:, :2] += (69, -39)
    b[:, :2] += (69, -39)
    a, b = a.astype(np.float32).astype(float), b.astype(np.float32).astype(float)
    for ours, theirs in zip(found(a, b, torch.float32, device), expected(a, b), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)


def test_pairs_in_parts_are_pairs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    a, b = drawn(rng, 23), drawn(rng, 17)
    at_once = found(a, b)
    for pairs in (1, 17, 40, 390):
        monkeypatch.setattr(overlaps, "PAIRS", pairs)
        for part, whole in zip(found(a, b), at_once, strict=True):
            np.testing.assert_array_equal(part, whole)


@pytest.mark.parametrize("counts", [(0, 3), (3, 0), (0, 0)])
def test_no_boxes_have_no_overlaps(counts: tuple[int, int]) -> None:
    found(*(np.ones((count, 7)) for count in counts))
