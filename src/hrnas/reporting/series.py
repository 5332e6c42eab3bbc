"""Curves as numbers: thinning that keeps extremes, smoothing, pieces without gaps, and the ticks of an axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Point = tuple[float, float]

STEPS_OF_TICKS: Final = (1, 2, 2.5, 5, 10)
MAX_BUCKETS: Final = 240
"""Buckets a long curve is thinned into: about one for every two pixels of a figure."""


def thin(points: Sequence[Point], buckets: int = MAX_BUCKETS) -> list[Point]:
    """Return at most five points a bucket of x: first, last, lowest, highest and a gap; all points of a short curve.

    Points are in ascending x. A point whose y is not finite is a gap.
    """
    if len(points) <= 3 * buckets:
        return list(points)
    start, end = points[0][0], points[-1][0]
    width = (end - start) / buckets or 1.0
    groups: dict[int, list[int]] = {}
    for index, (x, _) in enumerate(points):
        groups.setdefault(min(int((x - start) / width), buckets - 1), []).append(index)
    kept: set[int] = set()
    for group in groups.values():
        kept |= {group[0], group[-1]}
        finite = [index for index in group if math.isfinite(points[index][1])]
        if finite:
            kept |= {min(finite, key=lambda i: points[i][1]), max(finite, key=lambda i: points[i][1])}
        if len(finite) < len(group):
            kept.add(next(index for index in group if not math.isfinite(points[index][1])))
    return [points[index] for index in sorted(kept)]


def pieces(points: Sequence[Point]) -> list[list[Point]]:
    """Return the runs of points between gaps."""
    found: list[list[Point]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            found[-1].append(point)
        elif found[-1]:
            found.append([])
    return [piece for piece in found if piece]


def smooth(points: Sequence[Point], window: int) -> list[Point]:
    """Return the mean over `window` points around each, fewer at the ends, so that it does not lag; gaps stay."""
    sums, counts = [0.0], [0]
    for _, y in points:
        finite = math.isfinite(y)
        sums.append(sums[-1] + (y if finite else 0.0))
        counts.append(counts[-1] + finite)
    smoothed = []
    for index, (x, y) in enumerate(points):
        # The same reach to both sides, so that the mean of a straight line is that line; near the ends, where that
        # would leave a single noisy point, at least a quarter of the window to the side that has it.
        reach = max(min(window // 2, index, len(points) - 1 - index), window // 4)
        low, high = max(index - reach, 0), min(index + reach + 1, len(points))
        count = counts[high] - counts[low]
        smoothed.append((x, (sums[high] - sums[low]) / count if math.isfinite(y) else math.nan))
    return smoothed


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high` with its ticks; `log` when distances are ratios."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies, 0 at `low`, 1 at `high`; values outside are moved to the nearer end."""
        value = min(max(value, self.low), self.high)
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)


def linear_axis(low: float, high: float, count: int = 5, widen: bool = True) -> Axis:
    """Return an axis with about `count` round ticks; `widen` moves its ends out to ticks."""
    if not high > low:
        low, high = low - (abs(low) or 1.0) / 2, low + (abs(low) or 1.0) / 2
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in STEPS_OF_TICKS if factor * power >= rough * 0.999)
    first = math.floor(low / step + 1e-9) if widen else math.ceil(low / step - 1e-9)
    last = math.ceil(high / step - 1e-9) if widen else math.floor(high / step + 1e-9)
    ticks = tuple(float(f"{index * step:.12g}") for index in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks) if widen else Axis(low, high, ticks)


def log_axis(low: float, high: float) -> Axis:
    """Return a logarithmic axis with ticks at 1, 2, 5 times powers of ten; both ends positive."""
    room = max((high / low) ** 0.06, 1.02)
    low, high = low / room, high * room
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = tuple(factor * 10.0**power for power in powers for factor in (1, 2, 5))
    inside = tuple(tick for tick in ticks if low <= tick <= high)
    if len(inside) > 7:
        inside = tuple(tick for tick in inside if f"{tick:e}".startswith("1"))
        every = -(-len(inside) // 7)
        inside = inside[::every]
    return Axis(low, high, inside, log=True)
