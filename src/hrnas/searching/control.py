"""Budget control: the curve the cost shall follow, and the penalty weight that makes it follow.

Nobody tunes a weight. At every control step the weight is set so that the units whose removal the curve calls for
within the horizon would reach zero by then, if only the penalty moved them: the factors, their costs and the learning
rate say how strong a pull that takes. What the network holds against the pull shows as cost above the curve; a gain
on the weight grows while there is some, and falls back when the cost is below the curve.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hrnas.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ShrinkOptions:
    """When and how hard a search shrinks.

    start: share of the steps before the shrinking begins, so that importances mean something.
    end: share of the steps at which the network has its final shape; it trains on without penalty.
    horizon: how far ahead the control looks, as a share of the steps between start and end, or what is left of them.
    gain: how fast the gain on the weight follows the cost's distance from the curve.
    pull: the penalty moves a factor by at most this share of the learning rate in a step, so the task can hold it.
    travel: distance a factor can go between start and end; in short runs the factors learn faster to allow it.
    threshold: a unit is dead when its factor and the factor's moving average are at most this (method: 1e-3).
    cuts: dead units are looked for this often between start and end, and cut when a hundredth of the cost would go.
    """

    start: float = 0.1
    end: float = 0.7
    horizon: float = 0.1
    gain: float = 0.2
    pull: float = 1.0
    travel: float = 4.0
    threshold: float = 1e-3
    cuts: int = 40

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1:
            raise InputError(
                f"shrink.start is {self.start} and shrink.end {self.end}; 0 <= start < end <= 1 is needed."
            )
        for name in ("horizon", "gain", "pull", "travel", "threshold", "cuts"):
            if getattr(self, name) <= 0:
                raise InputError(f"shrink.{name} is {getattr(self, name)}; it must be positive.")


@dataclass(frozen=True, kw_only=True)
class CostCurve:
    """The planned cost: the supernet's until `start_step`, then falling by a constant factor a step to the budget.

    Steps count from 1; at `end_step` the network is cut to the budget exactly.
    """

    supernet_macs: int
    budget_macs: int
    start_step: int
    end_step: int

    def planned_macs(self, step: int) -> float:
        """Return the planned MACs after `step` steps."""
        progress = (step - self.start_step) / (self.end_step - self.start_step)
        progress = min(max(progress, 0.0), 1.0)
        share: float = (self.budget_macs / self.supernet_macs) ** progress
        return self.supernet_macs * share


def cost_curve(options: ShrinkOptions, *, supernet_macs: int, budget_macs: int, steps: int) -> CostCurve:
    """Return the curve of a search of that many steps; its end lies at least one step after its start."""
    start_step = min(int(options.start * steps), steps - 1)
    return CostCurve(
        supernet_macs=supernet_macs,
        budget_macs=min(budget_macs, supernet_macs),
        start_step=start_step,
        end_step=max(round(options.end * steps), start_step + 1),
    )


def penalty_weight(
    importance: Tensor, costs: Tensor, macs: Tensor, *, excess_macs: float, learning_rate: float, horizon_steps: float
) -> float:
    """Return the weight under which the least important units per cost, `excess_macs` in sum, reach zero in time.

    A factor moves by learning rate * weight * cost / gradient size in a step, so it is gone after
    importance / (cost * learning rate * weight) steps, where importance is factor * gradient size.
    importance, costs: float (U,); macs: int64 (U,); all of the units that are not dead.
    excess_macs: MACs above the curve at the end of the horizon; nothing to remove gives 0.
    """
    if excess_macs <= 0 or len(importance) == 0:
        return 0.0
    reach, order = (importance / costs).sort()
    removed = macs[order].cumsum(0)
    index = min(int(torch.searchsorted(removed, excess_macs)), len(reach) - 1)
    return float(reach[index]) / (learning_rate * horizon_steps)
