"""Heatmaps: what a target is, and that decoding gives the joints back."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hrnas.tasks.heatmaps import STRIDE, Decoder, located, mirrored, targets_of

SIZE = (24, 20)  # H', W' of the maps
SIGMA = 2.0


def joints_at(points: Tensor, weight: float = 1.0) -> Tensor:
    """Return joints (1, K, 3) at points (K, 2) of the maps."""
    inputs = points * STRIDE + (STRIDE - 1) / 2
    return torch.cat([inputs, torch.full((len(points), 1), weight)], 1)[None]


def everywhere(number: int, margin: float, seed: int = 0) -> Tensor:
    """Return random points of the maps, down to `margin` from their edges (0: the very edge of the input)."""
    torch.manual_seed(seed)
    sides = torch.tensor([SIZE[1], SIZE[0]])
    return torch.rand(number, 2) * (sides - 2 * margin) + margin - 0.5


def errors(points: Tensor, decoder: Decoder, noise: float = 0.0) -> Tensor:
    """Return how far off decoding is on each axis, in pixels of the map."""
    maps = targets_of(joints_at(points), SIZE, SIGMA)
    maps = maps + noise * torch.randn(maps.shape, generator=torch.Generator().manual_seed(1))
    found = located(maps, decoder, SIGMA)[0]
    return ((found[:, :2] - (STRIDE - 1) / 2) / STRIDE - points).abs()


def test_a_target_is_a_gaussian_in_the_middle_of_the_pixels_it_stands_for() -> None:
    """A joint between input pixels 5 and 6 is in the middle of pixel 1 of the map, which stands for 4 to 7."""
    joints = torch.tensor([[[5.5, 13.5, 1.0], [5.5, 13.5, 0.0]]])
    maps = targets_of(joints, SIZE, SIGMA)
    assert maps.shape == (1, 2, *SIZE)
    assert maps[0, 0, 3, 1] == 1
    assert maps[0, 0, 3, 3] == pytest.approx(np.exp(-4 / 8))
    assert maps[0, 0, 2, 2] == pytest.approx(np.exp(-2 / 8))
    assert not maps[0, 1].any()


def test_the_mirror_image_of_a_target_is_the_target_of_the_mirrored_joints() -> None:
    joints = joints_at(everywhere(5, 0))
    width = SIZE[1] * STRIDE
    turned = joints.clone()
    turned[..., 0] = width - 1 - turned[..., 0]
    turned = turned[:, [0, 2, 1, 4, 3]]
    pairs = ((1, 2), (3, 4))
    maps = targets_of(joints, SIZE, SIGMA)
    torch.testing.assert_close(mirrored(targets_of(turned, SIZE, SIGMA), pairs), maps, atol=2e-6, rtol=0)
    assert (mirrored(mirrored(maps, pairs), pairs) == maps).all()


def test_the_usual_decoder_gives_joints_back_up_to_the_border() -> None:
    """Far within the quarter of a pixel that is asked for; in the outermost pixels too."""
    assert errors(everywhere(3000, 0), "parabola").max() < 1e-4


@pytest.mark.parametrize(("decoder", "margin", "limit"), [("quarter", 1.0, 0.2501), ("dark", 9.0, 1e-3)])
def test_the_other_decoders_give_joints_back_away_from_the_border(
    decoder: Decoder, margin: float, limit: float
) -> None:
    assert errors(everywhere(3000, margin), decoder).max() < limit


@pytest.mark.parametrize("decoder", ["parabola", "dark"])
def test_a_longish_peak_that_lies_askew_is_found_as_well(decoder: Decoder) -> None:
    """Its logarithm is a parabola with a term in x y."""
    y, x = torch.meshgrid(torch.arange(SIZE[0]).double(), torch.arange(SIZE[1]).double(), indexing="ij")
    x, y = x - 9.4, y - 11.7
    maps = torch.exp(-(0.20 * x * x + 0.12 * y * y + 0.2 * x * y))[None, None]
    found = (located(maps, decoder, SIGMA)[0, 0, :2] - (STRIDE - 1) / 2) / STRIDE
    assert found.tolist() == pytest.approx([9.4, 11.7], abs=2e-3)


@pytest.mark.parametrize(("decoder", "limit"), [("quarter", 0.501), ("dark", 1.01)])
def test_at_the_border_the_other_decoders_are_worse(decoder: Decoder, limit: float) -> None:
    """The quarter has no neighbour to go by; smoothing of the dark decoder sees nothing beyond the border."""
    assert 0.25 < errors(everywhere(3000, 0), decoder).max() < limit


def test_under_noise_the_usual_decoder_is_the_best_near_a_border_and_near_the_best_inside() -> None:
    edge = everywhere(3000, 0)
    edge = edge[(edge[:, 0] < 2) | (edge[:, 1] < 2)]
    inside = everywhere(1500, 7)
    of_edge = {decoder: float(errors(edge, decoder, 0.02).mean()) for decoder in ("parabola", "dark", "quarter")}
    of_inside = {decoder: float(errors(inside, decoder, 0.02).mean()) for decoder in ("parabola", "dark", "quarter")}
    assert of_edge["parabola"] < 0.4 * min(of_edge["dark"], of_edge["quarter"])
    assert of_inside["parabola"] < 0.2 * of_inside["quarter"]
    assert of_inside["parabola"] < 2 * of_inside["dark"]


@pytest.mark.parametrize("decoder", ["parabola", "dark", "quarter"])
def test_maps_that_are_no_peak_give_finite_points_near_their_maximum(decoder: Decoder) -> None:
    flat = torch.zeros(1, 4, *SIZE)
    flat[0, 1] = -1
    flat[0, 2] = torch.randn(SIZE, generator=torch.Generator().manual_seed(0)) * 1e-8
    flat[0, 3, 5, 6] = 1e-30
    found = located(flat, decoder, SIGMA)[0]
    assert found.isfinite().all()
    places = flat[0].flatten(1).argmax(1)
    peaks = torch.stack([places % SIZE[1], places // SIZE[1]], 1) * STRIDE + (STRIDE - 1) / 2
    assert (found[:, :2] - peaks).abs().max() <= STRIDE
    assert found[:, 2].tolist() == pytest.approx(flat[0].flatten(1).amax(1).tolist())
