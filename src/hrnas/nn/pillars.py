"""Pillars: from a point cloud to a map a backbone takes.

B clouds, P points of a cloud, N points that lie in pillars, V pillars, C channels, H rows, W columns of the grid.
Source: PointPillars (Lang et al., CVPR 2019), section 2.1.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrnas.arch.architecture import Architecture, Pillars
from hrnas.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class Pillarized:
    """The points of some clouds, pillar by pillar.

    points: (N, 4), those of a pillar one after the other, in the cloud's order. pillar: int64 (N,), whose they are.
    counts: int64 (V,), points of each pillar, at least 1. places: int64 (3, V), its cloud, row and column, ascending.
    """

    points: Tensor
    pillar: Tensor
    counts: Tensor
    places: Tensor


def pillarize(points: Tensor, pillars: Pillars, most: int) -> Pillarized:
    """Sort the points of clouds (B, P, 4: x, y, z, reflectance), floating, into pillars.

    A point on the lower border of the range is inside, one on the upper outside. Points outside vanish, and rows with
    an inf or nan, so clouds of different lengths are padded with those. Of a pillar the first pillars.points points
    stay, of a cloud the `most` pillars whose first points come first.
    """
    clouds, length, _ = points.shape
    rows, columns, cell = pillars.rows, pillars.columns, pillars.cell
    side = rows * cell / 2
    flat = points.reshape(-1, 4)
    x, y, z, reflectance = flat.unbind(1)
    inside = (x >= 0) & (x < columns * cell) & (y >= -side) & (y < side) & (z >= pillars.bottom) & (z < pillars.top)
    index = (inside & reflectance.isfinite()).nonzero()[:, 0]  # (N,), in the clouds' order
    flat = flat[index]
    # Times the inverse: divided by a number, one in eighty of KITTI's points, which lie on a border to the millimetre,
    # would be in another pillar on a GPU. A point just below the upper border may be rounded onto it.
    column = (flat[:, 0] * (1 / cell)).long().clamp_(max=columns - 1)
    row = ((flat[:, 1] + side) * (1 / cell)).long().clamp_(max=rows - 1)
    keys = (index // length * rows + row) * columns + column
    if clouds * rows * columns < 2**31:
        keys = keys.int()  # is sorted in a quarter of the time
    keys, order = keys.sort(stable=True)
    keys, pillar, counts = torch.unique_consecutive(keys.long(), return_inverse=True, return_counts=True)
    cells = keys % (rows * columns)
    places = torch.stack([keys // (rows * columns), cells // columns, cells % columns])  # (3, V)
    first = counts.cumsum(0) - counts  # (V,)
    stays = torch.arange(len(order), device=order.device) - first[pillar] < pillars.points  # (N,)

    cloud = places[0]
    per_cloud = cloud.bincount(minlength=clouds)
    if (per_cloud > most).any():
        arrival = order[first].argsort()  # pillars in the order of their first points, cloud by cloud
        earlier = per_cloud.cumsum(0) - per_cloud  # (B,), pillars of the clouds before
        accepted = torch.zeros_like(cloud, dtype=torch.bool)
        accepted[arrival] = torch.arange(len(cloud), device=cloud.device) - earlier[cloud] < most
        stays &= accepted[pillar]
        places, counts = places[:, accepted], counts[accepted]
        pillar = (accepted.cumsum(0) - 1)[pillar]
    return Pillarized(
        points=flat[order[stays]], pillar=pillar[stays], counts=counts.clamp_(max=pillars.points), places=places
    )


class PillarNet(nn.Module):
    """Point clouds to a map: a linear layer, batch norm and ReLU for every point, their maximum for every pillar.

    At most pillars.train_pillars pillars of a cloud count in training mode, else pillars.pillars. settings: gives the
    norm's settings.
    """

    def __init__(self, pillars: Pillars, settings: Architecture) -> None:
        super().__init__()
        self.pillars = pillars
        self.linear = nn.Linear(pillars.FEATURES, pillars.channels, bias=False)
        # Of maps (N, C, 1, 1), for which synchronize_norms has a substitute.
        self.norm = nn.BatchNorm2d(pillars.channels, momentum=settings.norm_momentum, eps=settings.norm_eps)

    def forward(self, points: Tensor) -> Tensor:
        """Map clouds (B, P, 4), float32, padded as pillarize has it, to (B, C, rows, columns), channels_last.

        Row 0 is at the lowest y, column 0 at x = 0. Places without points are 0. Raises InputError for another shape.
        """
        if points.ndim != 3 or points.shape[2] != 4:
            got = "x".join(map(str, points.shape))
            raise InputError(f"The input is of shape {got}; clouds, (B, P, 4), are needed. Give such.")
        settings = self.pillars
        found = pillarize(points, settings, settings.train_pillars if self.training else settings.pillars)
        # In bfloat16 a point 60 m ahead would be moved by up to 12 cm.
        with torch.autocast(points.device.type, enabled=False):
            pooled = self._pooled(found)  # (V, C)
        grid = pooled.new_zeros(len(points), settings.rows, settings.columns, settings.channels)
        grid[*found.places] = pooled
        return grid.permute(0, 3, 1, 2)

    def _pooled(self, found: Pillarized) -> Tensor:
        """Return the feature vector (V, C) of every pillar."""
        # The gradient of a weight in this layout takes a tenth of the time (benchmarks/pillars.py).
        x = features(found, self.pillars) @ self.linear.weight.t().contiguous()  # (N, C)
        x = self._normalized(x[:, :, None, None]).flatten(1)
        # The maximum of ReLUs is the ReLU of the maximum, and there are fewer pillars than points.
        return F.relu(torch.segment_reduce(x, "max", lengths=found.counts, unsafe=True))

    def _normalized(self, x: Tensor) -> Tensor:
        norm = self.norm
        if norm.training and len(x) < 2 and type(norm) is nn.BatchNorm2d:
            # So few have no variance: as in evaluation, and the running statistics stay.
            return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
        normalized: Tensor = norm(x)
        return normalized


def features(found: Pillarized, pillars: Pillars) -> Tensor:
    """Return the features (N, 9) of the points, as Pillars.FEATURES names them."""
    xyz = found.points[:, :3]
    means = torch.segment_reduce(xyz, "mean", lengths=found.counts, unsafe=True)  # (V, 3)
    _, row, column = found.places
    middles = torch.stack([column + 0.5, row + (0.5 - pillars.rows / 2)], dim=1).to(xyz) * pillars.cell  # (V, 2)
    around = torch.cat([means, middles], dim=1)[found.pillar]  # (N, 5)
    return torch.cat([found.points, xyz - around[:, :3], xyz[:, :2] - around[:, 3:]], dim=1)
