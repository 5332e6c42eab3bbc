"""Overlap of boxes in space: intersections seen from above, intersection over union from above (BEV) and in space.

M, N boxes, Q pairs of boxes. A box is x, y, z of its middle, length, width, height, yaw (the angle of the length from
+x towards +y), in metres and radians; finite, its sizes not negative. Tensors are of float32 or float64, on any device.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

PAIRS: Final = 1 << 16
"""Pairs that are looked at together: what bounds the memory of many boxes."""


def intersection_bev(a: Tensor, b: Tensor) -> Tensor:
    """Return the area (M, N) that boxes a (M, 7) and b (N, 7) share seen from above, in square metres."""
    return _of_near_pairs(a, b, _shared_areas)


def iou_bev(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union (M, N) of boxes a (M, 7) and b (N, 7) from above; 0 of two without area."""
    return _of_near_pairs(a, b, _area_shares)


def iou_3d(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union (M, N) of boxes a (M, 7) and b (N, 7); 0 of two without volume."""
    return _of_near_pairs(a, b, _volume_shares)


def _of_near_pairs(a: Tensor, b: Tensor, measure: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return measure(one of each pair (Q, 7), the other (Q, 7)) -> (Q,) as (M, N), 0 for pairs that cannot overlap.

    Most pairs of a scene lie far apart; the rectangles around them along x and y tell at a fraction of the cost.
    """
    assert a.ndim == b.ndim == 2, "boxes are (M, 7)"
    assert a.shape[1] == b.shape[1] == 7, "boxes are (M, 7)"
    measured = a.new_zeros(len(a), len(b))
    reach_a, reach_b = _reaches(a), _reaches(b)
    rows = max(1, PAIRS // max(1, len(b)))
    for start in range(0, len(a), rows):
        part = slice(start, start + rows)
        apart = (a[part, None, :2] - b[None, :, :2]).abs_()  # (rows, N, 2)
        near = (apart < reach_a[part, None] + reach_b[None]).all(dim=2)
        one, other = near.nonzero(as_tuple=True)  # (Q,)
        measured[one + start, other] = measure(a[one + start], b[other])
    return measured


def _reaches(boxes: Tensor) -> Tensor:
    """Return half the sides (M, 2) of the rectangles around the boxes along x and y."""
    cosine, sine = boxes[:, 6].cos().abs(), boxes[:, 6].sin().abs()
    length, width = boxes[:, 3] / 2, boxes[:, 4] / 2
    return torch.stack([length * cosine + width * sine, length * sine + width * cosine], dim=1)


def _shared_areas(a: Tensor, b: Tensor) -> Tensor:
    """Return the area (Q,) each box of a (Q, 7) shares with its partner in b (Q, 7) seen from above.

    b's outline is clipped to a, in a's frame, where a is |x| <= length / 2, |y| <= width / 2. At each x the part of b
    from y0 to y1 has clamp(y1) - clamp(y0) of its length in a. So the shared area is the integral of -clamp(y) dx along
    b's outline, counter-clockwise, over x within a. No corner is sorted and no side told from another, so nothing
    depends on which of two touching sides rounding puts in front.
    """
    cosine, sine = a[:, 6].cos(), a[:, 6].sin()
    dx, dy = (b[:, :2] - a[:, :2]).unbind(1)
    x, y = cosine * dx + sine * dy, cosine * dy - sine * dx
    turn = b[:, 6] - a[:, 6]
    cosine, sine = turn.cos() / 2, turn.sin() / 2
    ahead, left = b[:, 3:4].T, b[:, 4:5].T  # (1, Q)
    along = ahead.new_tensor([[1], [-1], [-1], [1]]) * ahead  # (4, Q), twice the corners in b's frame
    across = ahead.new_tensor([[1], [1], [-1], [-1]]) * left
    x0 = x + along * cosine - across * sine  # (4, Q), the corners counter-clockwise; a side goes from one to the next
    y0 = y + along * sine + across * cosine
    x1, y1 = x0.roll(-1, 0), y0.roll(-1, 0)

    limit_x, limit_y = a[:, 3] / 2, a[:, 4] / 2
    begin, end = x0.clamp(-limit_x, limit_x), x1.clamp(-limit_x, limit_x)  # x where the clipped side begins and ends
    run, rise = x1 - x0, y1 - y0
    run = torch.where(run == 0, 1, run)  # such a side has no share: begin == end
    y_begin, y_end = y0 + (begin - x0) / run * rise, y0 + (end - x0) / run * rise
    areas = ((begin - end) * _mean_clamped(y_begin, y_end, limit_y)).sum(dim=0)
    return areas.clamp_(min=0).minimum(a[:, 3] * a[:, 4]).minimum(b[:, 3] * b[:, 4])


def _mean_clamped(y0: Tensor, y1: Tensor, limit: Tensor) -> Tensor:
    """Return the mean of clamp(y, -limit, limit) for y from y0 to y1, evenly: of the parts below, within and above."""
    low, high = torch.minimum(y0, y1), torch.maximum(y0, y1)
    clamped_low, clamped_high = low.clamp(-limit, limit), high.clamp(-limit, limit)
    below = high.minimum(-limit) - low.minimum(-limit)
    above = high.maximum(limit) - low.maximum(limit)
    within = clamped_high - clamped_low
    total = below + within + above
    middle = (clamped_low + clamped_high) / 2
    mean = (within * middle + (above - below) * limit) / torch.where(total == 0, 1, total)
    return torch.where(total == 0, middle, mean)


def _area_shares(a: Tensor, b: Tensor) -> Tensor:
    shared = _shared_areas(a, b)
    return _share(shared, a[:, 3] * a[:, 4] + b[:, 3] * b[:, 4] - shared)


def _volume_shares(a: Tensor, b: Tensor) -> Tensor:
    z, height = torch.stack([a[:, 2], b[:, 2]]), torch.stack([a[:, 5], b[:, 5]])  # (2, Q)
    apart = (z[1] - z[0]).abs()
    common = (height.sum(dim=0) / 2 - apart).clamp_(min=0).minimum(height.amin(dim=0))
    shared = _shared_areas(a, b) * common
    # One factor after the other, as shared is: prod() takes them in another order on a GPU, where a box would overlap
    # itself by more than 1.
    volumes = a[:, 3] * a[:, 4] * a[:, 5] + b[:, 3] * b[:, 4] * b[:, 5]
    return _share(shared, volumes - shared)


def _share(shared: Tensor, union: Tensor) -> Tensor:
    return torch.where(union > 0, shared / torch.where(union > 0, union, 1), 0)
