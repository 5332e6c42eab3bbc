"""Heatmaps of joints: a Gaussian at each as the target, and reading the joints off again, finer than a pixel.

A pixel of a map stands for STRIDE x STRIDE pixels of the input and lies in their middle, so for a map's point u and
an input's point x, both counting from the middle of the first pixel, x = STRIDE * u + (STRIDE - 1) / 2. The mirror
image of a target is therefore the target of the mirrored joints, with no shift.

B batch, K joints, H, W size of the input, H', W' of the maps.
"""

import math
from collections.abc import Sequence
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

STRIDE: Final = 4

Decoder = Literal["parabola", "dark", "quarter"]

_SMALLEST: Final = 1e-10
_RADIUS: Final = 2
"""Of the window of the parabola, in pixels of the map."""
_FLOOR: Final = 0.05
"""Share of the maximum from which on a pixel counts for the parabola; its logarithm is mostly noise below."""


def targets_of(joints: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """Return a Gaussian of height 1 at each joint, float32 (B, K, H', W'), on the device of the joints.

    joints: float32 (B, K, 3): x, y in input pixels, weight; a joint of weight 0 has an empty map.
    size: (H', W'). sigma: in pixels of the maps.
    """
    points = (joints[..., :2] - (STRIDE - 1) / 2) / STRIDE
    across = _gaussian(points[..., 0], size[1], sigma)  # (B, K, W')
    down = _gaussian(points[..., 1], size[0], sigma)  # (B, K, H')
    down = down * (joints[..., 2:] > 0)
    return down[..., :, None] * across[..., None, :]


def mirrored(maps: Tensor, flip_pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Return maps (B, K, H', W') of mirror images as those of the images: mirrored, and the pairs exchanged."""
    order = list(range(maps.shape[1]))
    for first, second in flip_pairs:
        order[first], order[second] = order[second], order[first]
    return maps.flip(3)[:, order]


def located(maps: Tensor, decoder: Decoder, sigma: float) -> Tensor:
    """Return the joints in maps (B, K, H', W'), float64 (B, K, 3): x, y in input pixels, and the map's maximum.

    decoder: parabola: the peak of the parabola through the logarithms of the 5x5 pixels around the maximum, by least
    squares weighted with the squared values. dark: Taylor's expansion of the logarithm of the map smoothed with the
    target's Gaussian (Zhang et al., CVPR 2020, section 3.2). quarter: a quarter of a pixel from the maximum towards the
    larger neighbour. sigma: the target's, in pixels of the maps.
    """
    batch, num_joints, height, width = maps.shape
    flat = maps.detach().reshape(-1, height, width).double()
    values, places = flat.flatten(1).max(1)
    peaks = torch.stack([places % width, places // width], 1)  # (B * K, 2) x, y
    offsets = {"parabola": _parabola, "dark": _dark, "quarter": _quarter}[decoder](flat, peaks, sigma)
    # Half a pixel is the most a maximum can be off; noise asks for more now and then, a whole one is allowed.
    points = (peaks + offsets.clamp(-1, 1)) * STRIDE + (STRIDE - 1) / 2
    return torch.cat([points, values[:, None]], 1).view(batch, num_joints, 3)


def _gaussian(points: Tensor, length: int, sigma: float) -> Tensor:
    """Return exp(-(i - p)^2 / (2 sigma^2)) for the pixels i of a line, (..., length)."""
    pixels = torch.arange(length, device=points.device, dtype=points.dtype)
    return torch.exp(-((pixels - points[..., None]) ** 2) / (2 * sigma**2))


def _around(maps: Tensor, middles: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Return the squares of 2 radius + 1 pixels around points (N, 2) of maps (N, H', W'), and which lie in the map."""
    height, width = maps.shape[1:]
    steps = torch.arange(-radius, radius + 1, device=maps.device)
    x = middles[:, 0, None, None] + steps[None, None, :]
    y = middles[:, 1, None, None] + steps[None, :, None]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    rows = torch.arange(len(maps), device=maps.device)[:, None, None]
    return maps[rows, y.clamp(0, height - 1), x.clamp(0, width - 1)], inside


def _quarter(maps: Tensor, peaks: Tensor, _sigma: float) -> Tensor:
    values, inside = _around(maps, peaks, 1)
    # Where a neighbour is missing, at a border, nothing says which way to go.
    x = torch.sign(values[:, 1, 2] - values[:, 1, 0]) * (inside[:, 1, 2] & inside[:, 1, 0])
    y = torch.sign(values[:, 2, 1] - values[:, 0, 1]) * (inside[:, 2, 1] & inside[:, 0, 1])
    return torch.stack([x, y], 1) / 4


def _dark(maps: Tensor, peaks: Tensor, sigma: float) -> Tensor:
    radius = math.ceil(3 * sigma)
    kernel = _gaussian(torch.tensor([float(radius)], device=maps.device).double(), 2 * radius + 1, sigma)
    kernel = kernel / kernel.sum()
    smooth = F.conv2d(maps[:, None], kernel.view(1, 1, 1, -1), padding=(0, radius))
    smooth = F.conv2d(smooth, kernel.view(1, 1, -1, 1), padding=(radius, 0))[:, 0]
    # The paper scales the map back to its maximum, which changes no derivative of the logarithm.
    values, inside = _around(smooth.clamp_min(_SMALLEST).log(), peaks, 1)
    gradient = torch.stack([values[:, 1, 2] - values[:, 1, 0], values[:, 2, 1] - values[:, 0, 1]], 1) / 2
    xx = values[:, 1, 2] - 2 * values[:, 1, 1] + values[:, 1, 0]
    yy = values[:, 2, 1] - 2 * values[:, 1, 1] + values[:, 0, 1]
    xy = (values[:, 2, 2] - values[:, 2, 0] - values[:, 0, 2] + values[:, 0, 0]) / 4
    return torch.where(inside.flatten(1).all(1)[:, None], _peak(gradient, xx, yy, xy), 0)


def _parabola(maps: Tensor, peaks: Tensor, _sigma: float) -> Tensor:
    values, inside = _around(maps, peaks, _RADIUS)
    share = values / values[:, _RADIUS, _RADIUS, None, None].clamp_min(_SMALLEST)
    counts = inside & (share > _FLOOR)
    weights = torch.where(counts, share**2, 0).flatten(1)
    logs = share.clamp_min(_FLOOR).log().flatten(1)
    steps = torch.arange(-_RADIUS, _RADIUS + 1, device=maps.device).double()
    y, x = (grid.flatten() for grid in torch.meshgrid(steps, steps, indexing="ij"))
    terms = torch.stack([torch.ones_like(x), x, y, x * x / 2, y * y / 2, x * y], 1)  # (25, 6)
    # A little on the diagonal keeps the equations solvable where few pixels count; those maps' offset stays small.
    normal = torch.einsum("ti,nt,tj->nij", terms, weights, terms) + 1e-6 * torch.eye(6, device=maps.device).double()
    found = torch.linalg.solve(normal, torch.einsum("ti,nt,nt->ni", terms, weights, logs))
    return _peak(found[:, 1:3], found[:, 3], found[:, 4], found[:, 5])


def _peak(gradient: Tensor, xx: Tensor, yy: Tensor, xy: Tensor) -> Tensor:
    """Return where a parabola has its maximum (N, 2), from its derivatives at 0; 0 where it has none."""
    determinant = xx * yy - xy * xy
    has_peak = (determinant > 1e-9) & (xx < 0)
    x = (xy * gradient[:, 1] - yy * gradient[:, 0]) / determinant
    y = (xy * gradient[:, 0] - xx * gradient[:, 1]) / determinant
    return torch.where(has_peak[:, None], torch.stack([x, y], 1), 0)
