"""Boxes drawn at random and their overlaps as shapely has them."""

import numpy as np
import shapely
from shapely.affinity import rotate, translate

Array = np.ndarray


def outline(box: Array) -> shapely.Polygon:
    """Return a box from above, made without anything of ours."""
    x, y, _, length, width, _, yaw = box
    rectangle = shapely.box(-length / 2, -width / 2, length / 2, width / 2)
    return translate(rotate(rectangle, yaw, origin=(0, 0), use_radians=True), x, y)


def expected(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """Return shapely's intersections from above, and the shares of the union from above and in space, (M, N)."""
    outlines = [np.array([outline(box) for box in boxes], object) for boxes in (a, b)]
    shared = shapely.area(shapely.intersection(outlines[0][:, None], outlines[1][None]))
    low, high = (np.stack([boxes[:, 2] - boxes[:, 5] / 2, boxes[:, 2] + boxes[:, 5] / 2]) for boxes in (a, b))
    common = np.minimum(low[1][:, None], high[1]) - np.maximum(low[0][:, None], high[0])
    volume = shared * np.maximum(common, 0)

    def share(part: Array, one: Array, other: Array) -> Array:
        union = one[:, None] + other - part
        return np.divide(part, union, out=np.zeros_like(part), where=union > 0)

    flat = share(shared, a[:, 3] * a[:, 4], b[:, 3] * b[:, 4])
    return shared, flat, share(volume, a[:, 3:6].prod(axis=1), b[:, 3:6].prod(axis=1))


def drawn(rng: np.random.Generator, count: int) -> Array:
    """Return boxes (count, 7) close enough together that about every second pair overlaps."""
    middles = rng.uniform(-2, 2, (count, 3)) * (1, 1, 0.5)
    return np.concatenate([middles, rng.uniform(0.05, 4, (count, 3)), rng.uniform(-7, 7, (count, 1))], axis=1)
