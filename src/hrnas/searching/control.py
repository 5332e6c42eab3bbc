"""Budget control: the curve the cost shall follow, and the penalty weight that makes it follow.

Nobody tunes a weight. At every control step the weight is set so that the units whose removal the curve calls for
within the horizon would reach zero by then, if only the penalty moved them: the factors, their costs and the learning
rate say how strong a pull that takes. What the network holds against the pull shows as cost above the curve; a gain
on the weight grows while there is some, and falls back when the cost is below the curve.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from hrnas.arch.budget import Target
from hrnas.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ShrinkOptions:
    """When and how hard a search shrinks.

    start: share of the steps before the shrinking begins, so that importances mean something.
    end: share of the steps at which the network has its final shape; it trains on without penalty.
    horizon: how far ahead the control looks, as a share of the steps between start and end, or what is left of them.
    gain: how fast the gain on the weight follows the cost's distance from the curve.
    pull: the penalty moves a factor by at most this share of what the optimizer can in a step; the task can hold it.
    travel: distance a factor can go between start and end; in short runs the factors learn faster to allow it.
    threshold: a unit is dead when its factor and the factor's moving average are at most this (method: 1e-3).
    cuts: dead units are looked for this often between start and end, and cut when a hundredth of the cost would go.
    fade: units that must go alive, all tokens, and channels behind a squeeze-excitation, fade over this share of the
        steps between start and end, at least 10 steps where there are so many.
    """

    start: float = 0.1
    end: float = 0.7
    horizon: float = 0.1
    gain: float = 0.2
    pull: float = 1.0
    travel: float = 4.0
    threshold: float = 1e-3
    cuts: int = 40
    fade: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1:
            raise InputError(
                f"shrink.start is {self.start} and shrink.end {self.end}; 0 <= start < end <= 1 is needed."
            )
        for name in ("horizon", "gain", "pull", "travel", "threshold", "cuts", "fade"):
            if getattr(self, name) <= 0:
                raise InputError(f"shrink.{name} is {getattr(self, name)}; it must be positive.")


@dataclass(frozen=True, kw_only=True)
class CostCurve:
    """The planned cost: the supernet's until `start_step`, then falling to each target in turn, the dearest first.

    Between two of them each limited cost falls by a constant factor a step.
    supernet: "macs" and "params" of the supernet. targets: to be met; steps: the step at which each is, exactly.
    Steps count from 1.
    """

    supernet: Mapping[str, int]
    targets: tuple[Target, ...]
    start_step: int
    steps: tuple[int, ...]

    @property
    def end_step(self) -> int:
        """The step at which the network has its final shape."""
        return self.steps[-1]

    def index(self, step: int) -> int:
        """Return the place of the first target that is not met before `step`; the last one's when all are."""
        return min(sum(met < step for met in self.steps), len(self.steps) - 1)

    def planned(self, step: int) -> dict[str, float]:
        """Return the planned cost after `step` steps, of every limited name."""
        index = self.index(step)
        first = self.start_step if index == 0 else self.steps[index - 1]
        progress = min(max((step - first) / (self.steps[index] - first), 0.0), 1.0)
        planned = {}
        for name, limit in self.targets[index].limits.items():
            before = self.supernet[name] if index == 0 else self.targets[index - 1].limits[name]
            before = min(before, self.supernet[name])
            planned[name] = before * (min(limit, before) / before) ** progress
        return planned


def cost_curve(
    options: ShrinkOptions, *, supernet: Mapping[str, int], targets: tuple[Target, ...], steps: int
) -> CostCurve:
    """Return the curve of a search of that many steps; each target has its own step, the first after the start.

    The targets between lie where one curve from the supernet to the last target passes them.
    Raises InputError when there are more targets than steps to meet them in.
    """
    start_step = min(int(options.start * steps), steps - 1)
    end_step = max(round(options.end * steps), start_step + 1)
    if end_step - start_step < len(targets):
        raise InputError(
            f"{len(targets)} budgets are to be met in {end_step - start_step} steps of shrinking. Raise steps."
        )
    met_at: list[int] = []
    for place, target in enumerate(targets):
        progress = max(_descent(target, supernet) / max(_descent(targets[-1], supernet), 1e-12), 0.0)
        step = end_step if place == len(targets) - 1 else start_step + round(progress * (end_step - start_step))
        earliest = (met_at[-1] if met_at else start_step) + 1
        met_at.append(max(earliest, min(step, end_step - (len(targets) - 1 - place))))
    return CostCurve(supernet=dict(supernet), targets=targets, start_step=start_step, steps=tuple(met_at))


def _descent(target: Target, supernet: Mapping[str, int]) -> float:
    """Return how far a target lies below the supernet: the logarithm of the hardest limit's factor."""
    return max(log(supernet[name] / limit) for name, limit in target.limits.items())


def penalty_weight(
    distance: Tensor,
    costs: Tensor,
    counts: Mapping[str, Tensor],
    *,
    excess: Mapping[str, float],
    learning_rate: float,
    horizon_steps: float,
) -> float:
    """Return the weight under which the units nearest to zero per cost, enough for every excess, reach it in time.

    A factor moves by learning rate * weight * cost / size in a step, where size is what its gradient is divided by
    (`penalty.pull_metric`), so it is gone after distance / (cost * learning rate * weight) steps.
    distance: factor * size, float (U,); costs: float (U,); counts: "macs" or "params", int64 (U,); all of the units
    that are not dead.
    excess: by the same names, what is above the curve at the end of the horizon; nothing to remove gives 0.
    """
    needed = {name: amount for name, amount in excess.items() if amount > 0}
    if not needed or len(distance) == 0:
        return 0.0
    reach, order = (distance / costs).sort()
    index = max(int(torch.searchsorted(counts[name][order].cumsum(0), amount)) for name, amount in needed.items())
    return float(reach[min(index, len(reach) - 1)]) / (learning_rate * horizon_steps)
