"""The resource-aware sparsity penalty: weight * sum over units of cost(u) * |factor(u)| (method: The search).

The objective is the paper's; the step that minimises it is the proximal one. A gradient of the L1 term, put through
Adam, never brings a factor to zero: it swings around it by about the learning rate. The proximal step lands on zero.

U number of units.
"""

import torch
from torch import Tensor, nn


def relative_costs(macs: Tensor) -> Tensor:
    """Return cost(u), float (U,): MACs of each unit divided by the mean over all units; macs: int64 (U,)."""
    costs = macs.double()
    return (costs / costs.mean()).float() if len(costs) else costs.float()


def penalty_value(factor: Tensor, costs: Tensor, weight: float) -> float:
    """Return the penalty; factor, costs: float (U,)."""
    return weight * float(torch.dot(factor, costs.to(factor)))


@torch.no_grad()
def pull_to_zero(scales: list[nn.Parameter], distance: Tensor) -> None:
    """Move every scale towards zero by its distance, in place, stopping at zero: the proximal step of the L1 penalty.

    scales: the importance factors with their signs; distance: float (U,), not negative.
    For a distance of learning rate * weight * cost this is the exact minimiser of
    `penalty + |new - old|^2 / (2 * learning rate)`; away from zero it equals a gradient step on the penalty.
    """
    parts = torch.split(distance.to(scales[0]), [len(scale) for scale in scales]) if scales else ()
    for scale, part in zip(scales, parts, strict=True):
        scale.copy_(scale.sign() * (scale.abs() - part).clamp_min(0))
