"""The resource-aware sparsity penalty: weight * sum over units of cost(u) * |factor(u)| (method: The search).

The objective is the paper's; the step that minimises it is the proximal one, in the optimizer's own metric. A gradient
of the L1 term put through Adam fails twice: it never brings a factor to zero, but swings around it by about the
learning rate; and Adam divides every factor's gradient by its size, so a factor on which nothing depends resists the
penalty as hard as one on which much depends. The proximal step lands on zero, and dividing the pull by the same size
as Adam divides the task's gradient lets what matters hold out longer (Yun et al. 2020, ProxGen).

U number of units.
"""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def relative_costs(macs: Tensor) -> Tensor:
    """Return cost(u), float (U,): MACs of each unit divided by the mean over all units; macs: int64 (U,)."""
    costs = macs.double()
    return (costs / costs.mean()).float() if len(costs) else costs.float()


def penalty_value(factor: Tensor, costs: Tensor, weight: float) -> float:
    """Return the penalty; factor, costs: float (U,)."""
    return weight * float(torch.dot(factor, costs.to(factor)))


def gradient_sizes(scales: list[nn.Parameter], optimizer: Optimizer) -> Tensor:
    """Return the root mean square gradient of every factor as the optimizer knows it, float (U,).

    From the second moment of Adam, its bias corrected, or of RMSprop, which corrects none; 1 for every factor under an
    optimizer without one (SGD), and before the first step.
    """
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    moments, corrections = [], []
    of_beta: dict[float, Tensor] = {}
    for scale in scales:
        state = optimizer.state.get(scale, {})
        is_adam = "exp_avg_sq" in state
        beta = groups[id(scale)]["betas"][1] if is_adam else 0.0
        if beta not in of_beta:
            # All factors have made the same steps; read on the device, or a GPU would be waited for.
            of_beta[beta] = 1 - beta ** state.get("step", scale.new_ones(())).to(scale.device, torch.float64)
        moments.append(state["exp_avg_sq"] if is_adam else state.get("square_avg", torch.ones_like(scale)))
        corrections.append(of_beta[beta])
    if not moments:
        return torch.zeros(0)
    if all(correction is corrections[0] for correction in corrections):
        correction = corrections[0]
    else:
        correction = torch.cat([one.expand(len(scale)) for one, scale in zip(corrections, scales, strict=True)])
    moment = torch.cat(moments).detach()
    # A factor that never had a gradient must not get an infinite pull.
    return (moment / correction).to(moment).sqrt().clamp_min(1e-12)


def pull_metric(scales: list[nn.Parameter], optimizer: Optimizer) -> tuple[Tensor, float]:
    """Return what the optimizer divides each factor's gradient by, float (U,), and what it multiplies all of them by.

    The second comes beside the learning rate. The proximal step takes both over: where the gradients of task and
    penalty balance, both have to move a factor equally far, or another objective is minimised.
    Adam: root mean square gradient + eps; 1.
    RMSprop: the same, and its eps (method: 1e-3) is larger than many factors' gradients;
    1 / (1 - momentum), for its buffer is the sum of momentum^k times the k-th last step, where Adam's is an average. So
    it is Adam at a rate 1 / (1 - momentum) as high, in drift and in noise. Pulled at the bare rate, a factor would meet
    a tenth of the penalty (momentum 0.9), and a useless one would swing around zero: noise moves it by more than a pull
    can take back.
    SGD: 1; 1 / (1 - momentum) alike.
    """
    sizes = gradient_sizes(scales, optimizer)
    if not scales:
        return sizes, 1.0
    group = next(own for own in optimizer.param_groups if any(p is scales[0] for p in own["params"]))
    return sizes + group.get("eps", 0.0), 1 / (1 - group.get("momentum", 0.0))


@torch.no_grad()
def pull_to_zero(scales: list[nn.Parameter], distance: Tensor) -> None:
    """Move every scale towards zero by its distance, in place, stopping at zero: the proximal step of the L1 penalty.

    scales: the importance factors with their signs; distance: float (U,), not negative.
    For a distance of learning rate * weight * cost / size this is the exact minimiser of
    `penalty + size * |new - old|^2 / (2 * learning rate)`; away from zero it equals a gradient step on the penalty.
    """
    if not scales:
        return
    values = torch.cat(tuple(scales))
    distance = distance.to(values)
    taken = values.clamp(-distance, distance)  # all of what is nearer to zero than its distance
    torch._foreach_sub_(tuple(scales), torch.split(taken, [len(scale) for scale in scales]))
