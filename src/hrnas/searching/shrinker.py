"""The shrinker: everything a training loop needs to turn a supernet into a network of a given cost.

    shrinker = Shrinker(model, optimizer, input_size=(512, 1024), budget_macs=2_000_000_000, steps=100_000)
    for step in range(100_000):
        loss.backward()
        optimizer.step()
        if shrinker.step():       # True when the network changed its shape
            replica = DistributedDataParallel(model)   # whatever holds on to parameters is made anew

U number of units.
"""

from collections.abc import Callable, MutableMapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from hrnas.arch.architecture import Architecture
from hrnas.arch.budget import Budget
from hrnas.costing.analytic import Cost, Size, cost
from hrnas.errors import InputError
from hrnas.models.network import Backbone
from hrnas.searching.control import ShrinkOptions, cost_curve, penalty_weight
from hrnas.searching.cut import apply_plan
from hrnas.searching.penalty import gradient_sizes, penalty_value, pull_to_zero, relative_costs
from hrnas.searching.plan import Plan, plan_budget, plan_dead, smallest_network
from hrnas.searching.units import factors, importance_factors, unit_groups, unit_macs


class Shrinker:
    """Penalty, budget control, plans and cuts of one search (method: The search).

    model: the supernet; cut in place. optimizer: holds the model's parameters; its state is cut along.
    input_size: (H, W) of an image; all costs are at this size.
    budget_macs: MACs of one image that the network shall have; met within (0.98, 1.00].
    steps: of the whole run. options: when and how hard to shrink. averages: averaged tensors by name, cut along; None
    if there are none. agree: makes a tensor that of rank zero on all processes; every decision goes through it.
    last_plan: the latest cut; None before the first.
    Raises BudgetError when the budget is outside the model's range, InputError (from `step`) when the optimizer does
    not hold the model's parameters.
    """

    def __init__(
        self,
        model: Backbone,
        optimizer: Optimizer,
        *,
        input_size: Size,
        budget_macs: int,
        steps: int,
        options: ShrinkOptions | None = None,
        averages: MutableMapping[str, Tensor] | None = None,
        agree: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._agree = agree or (lambda tensor: tensor)
        self.model, self.optimizer, self.averages = model, optimizer, averages
        self.input_size, self.budget_macs = input_size, budget_macs
        self.options = options or ShrinkOptions()
        macs = cost(model.architecture, input_size).macs
        check_reachable(model.architecture, input_size, budget_macs)
        self.curve = cost_curve(self.options, supernet_macs=macs, budget_macs=budget_macs, steps=steps)
        self._control_steps = max(1, (self.curve.end_step - self.curve.start_step) // (5 * self.options.cuts))
        self._cut_steps = max(1, (self.curve.end_step - self.curve.start_step) // self.options.cuts)
        self.steps_done = 0
        self.last_plan: Plan | None = None
        self.weight, self._gain = 0.0, 1.0
        self._read_units()
        self._moving_average = importance_factors(self._scales)

    @property
    def architecture(self) -> Architecture:
        """The network as it stands."""
        return self.model.architecture

    @property
    def macs(self) -> int:
        """MACs of the network as it stands."""
        return self._cost.macs

    @property
    def num_units(self) -> int:
        """Units that are still there."""
        return len(self._macs)

    @property
    def planned_macs(self) -> float:
        """MACs the curve plans for now."""
        return self.curve.planned_macs(self.steps_done)

    @property
    def is_finished(self) -> bool:
        """True once the network has its final shape."""
        return self.steps_done >= self.curve.end_step

    def penalty(self) -> float:
        """Return the penalty's present value, for the record; `step()` minimises it, no loss needs it."""
        return penalty_value(importance_factors(self._scales), self._costs, self.weight)

    def step(self) -> bool:
        """Pull the factors, control the penalty weight, cut when it is time; call after every optimizer step.

        Returns True when the network has changed its shape; `last_plan` then says how.
        """
        if self.is_finished:
            return False
        self.steps_done += 1
        learning_rate = self._learning_rate()
        if self.weight:
            sizes = gradient_sizes(self._scales, self.optimizer)
            pull = (self.weight * self._costs / sizes).clamp_max(self.options.pull)
            pull_to_zero(self._scales, learning_rate * pull)
        factor = importance_factors(self._scales)
        # A moving average over two hundredths of the shrinking: a unit that only crosses zero is not dead.
        decay = 1 - 1 / max(1.0, 0.02 * (self.curve.end_step - self.curve.start_step))
        self._moving_average = decay * self._moving_average + (1 - decay) * factor
        if self.is_finished:
            self.weight = 0.0
            return self._cut(plan_budget(self.architecture, self.input_size, self._importance(), self.budget_macs))
        since_start = self.steps_done - self.curve.start_step
        has_cut = False
        if since_start > 0 and since_start % self._cut_steps == 0:
            has_cut = self._cut_dead()
        if since_start >= 0 and since_start % self._control_steps == 0:
            self._control(learning_rate)
        return has_cut

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold beside the model: plain numbers and one tensor."""
        return {
            "steps_done": self.steps_done,
            "weight": self.weight,
            "gain": self._gain,
            "supernet_macs": self.curve.supernet_macs,
            "moving_average": self._moving_average,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of a shrinker with the same model, options and budget."""
        self.steps_done, self.weight, self._gain = state["steps_done"], state["weight"], state["gain"]
        # The model has been cut since; the curve starts at the supernet.
        self.curve = replace(self.curve, supernet_macs=state["supernet_macs"])
        self._moving_average = state["moving_average"].to(self._costs.device, copy=True)
        assert len(self._moving_average) == self.num_units, "the state belongs to another architecture"

    def _read_units(self) -> None:
        self._cost = cost(self.architecture, self.input_size)
        self._groups = unit_groups(self.architecture, self.input_size)
        self._macs = unit_macs(self._groups)
        self._scales = factors(self.model, self._groups)
        device = self._scales[0].device if self._scales else "cpu"
        self._costs = relative_costs(self._macs).to(device)

    def _importance(self) -> Tensor:
        """Return the importance of every unit, float (U,), on the CPU: its factor times the size of its gradient."""
        return self._agree((importance_factors(self._scales) * gradient_sizes(self._scales, self.optimizer)).cpu())

    def _learning_rate(self) -> float:
        """Return the learning rate of the group that holds the factors."""
        if not self._scales:
            return 0.0
        for group in self.optimizer.param_groups:
            if any(parameter is self._scales[0] for parameter in group["params"]):
                return float(group["lr"])
        raise InputError("The optimizer does not hold the model's batch-norm scales; make it from model.parameters().")

    def _control(self, learning_rate: float) -> None:
        """Set the penalty weight for the steps until the next control."""
        factor = importance_factors(self._scales)
        importance = self._importance()
        alive = self._agree((factor > self.options.threshold).cpu())
        macs_alive = self.macs - int(self._macs[~alive].sum())
        horizon = self.options.horizon * (self.curve.end_step - self.curve.start_step)
        horizon = max(1.0, min(horizon, self.curve.end_step - self.steps_done))
        target = self.curve.planned_macs(round(self.steps_done + horizon))
        # The logarithm: a lag of a tenth counts the same for a large and for a small network.
        self._gain = max(1.0, self._gain * (macs_alive / self.planned_macs) ** self.options.gain)
        self.weight = self._gain * penalty_weight(
            importance[alive],
            self._costs.cpu()[alive],
            self._macs[alive],
            excess_macs=macs_alive - target,
            learning_rate=max(learning_rate, 1e-12),
            horizon_steps=horizon,
        )

    def _cut_dead(self) -> bool:
        """Cut dead units as far as the curve allows, if that is worth a cut."""
        factor = importance_factors(self._scales)
        threshold = self.options.threshold
        dead = self._agree(((factor <= threshold) & (self._moving_average <= threshold)).cpu())
        if not bool(dead.any()):
            return False
        floor = max(self.planned_macs, float(self.budget_macs))
        plan = plan_dead(self.architecture, self.input_size, dead, self._importance(), floor)
        if plan.cost_before.macs - plan.cost.macs < 0.01 * plan.cost_before.macs:
            return False
        return self._cut(plan)

    def _cut(self, plan: Plan) -> bool:
        if not plan.removed:
            return False
        self.last_plan = plan
        apply_plan(plan, self.model, self.optimizer, self.averages)
        self._moving_average = self._moving_average[plan.kept.to(self._moving_average.device)]
        self._read_units()
        return True


def macs_range(architecture: Architecture, input_size: Size) -> tuple[Cost, Cost]:
    """Return the cost of the smallest and of the widest network that can be cut from an architecture."""
    return cost(smallest_network(architecture), input_size), cost(architecture, input_size)


def check_reachable(architecture: Architecture, input_size: Size, budget_macs: int) -> None:
    """Raise BudgetError unless `budget_macs` lies between the smallest network and this one, or is just above it.

    Also when the units are so coarse that the exact step cannot land on it.
    """
    smallest, widest = macs_range(architecture, input_size)
    Budget(macs=budget_macs).resolve(smallest.macs, widest.macs)
    num_units = sum(group.channels for group in unit_groups(architecture, input_size))
    plan_budget(architecture, input_size, torch.ones(num_units), budget_macs)


def factor_scale(options: ShrinkOptions, learning_rates: list[float]) -> float:
    """Return how much faster than the rest the factors must learn for `options.travel` between start and end.

    learning_rates: of every step between start and end; a long schedule gives 1.
    """
    return max(1.0, options.travel / max(sum(learning_rates), 1e-12))
