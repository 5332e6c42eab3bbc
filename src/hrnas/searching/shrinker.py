"""The shrinker: everything a training loop needs to turn a supernet into a network of a given cost.

    shrinker = Shrinker(model, optimizer, input_size=(512, 1024), budget="macs=2G", steps=100_000)
    for step in range(100_000):
        loss.backward()
        optimizer.step()
        if shrinker.step():       # True when the network changed its shape
            model = DistributedDataParallel(network)   # whatever holds on to parameters is made anew

U number of units.
"""

from collections.abc import Callable, MutableMapping
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from hrnas.arch.architecture import Architecture
from hrnas.arch.budget import Target, parse_budget
from hrnas.costing.analytic import Cost, Size, cost
from hrnas.errors import BudgetError, InputError
from hrnas.models.network import Backbone
from hrnas.searching.control import ShrinkOptions, cost_curve, penalty_weight
from hrnas.searching.cut import apply_plan
from hrnas.searching.ledger import Ledger
from hrnas.searching.penalty import gradient_sizes, penalty_value, pull_metric, pull_to_zero, relative_costs
from hrnas.searching.plan import Plan, choose_dead, make_plan, plan_budget, plan_dead, smallest_network
from hrnas.searching.retiring import Retirement
from hrnas.searching.units import factors, importance_factors, num_units, unit_costs, unit_groups

LEAST_FADE_STEPS: Final = 10
"""Even in a short run, where there are so many: the last of n steps of a fade takes 1 / n^3 of a unit away."""


class Shrinker:
    """Penalty, budget control, plans and cuts of one search (method: The search).

    model: the supernet; cut in place. optimizer: holds the model's parameters; its state is cut along.
    input_size: (H, W) of an image; all costs are at this size.
    budget: as a text ("macs=1G", "params=2M", "60%", "macs=2G,1G", ...), or the targets it resolves to. Each target is
    met within (0.98, 1.00], never above.
    steps: of the whole run. options: when and how hard to shrink. averages: averaged tensors by name, cut along; None
    if there are none. align: kernel paths keep widths that are multiples of it.
    probe: normalised images (B, C, H, W) on which the change of output by each cut is measured; None measures none.
    agree: makes a tensor on the CPU the same on all processes, that of rank zero; None for one process.
    last_plan: the latest cut, which removed something or met a target, None before the first; last_change: by how much
    it changed the output on the probe, the norm of the difference relative to the output's; None where it was not
    measured.
    target_met: the target that the last step has met; None after other steps.
    Raises BudgetError when the budget is outside the model's range, InputError (from `step`) when the optimizer does
    not hold the model's parameters.
    """

    def __init__(
        self,
        model: Backbone,
        optimizer: Optimizer,
        *,
        input_size: Size,
        budget: str | tuple[Target, ...],
        steps: int,
        options: ShrinkOptions | None = None,
        averages: MutableMapping[str, Tensor] | None = None,
        align: int = 1,
        probe: Tensor | None = None,
        agree: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model, self.optimizer, self.averages = model, optimizer, averages
        self.input_size, self.align, self.probe = input_size, align, probe
        self.options = options or ShrinkOptions()
        self._agree = agree or (lambda tensor: tensor)
        if isinstance(budget, str):
            smallest, widest = cost_range(model.architecture, input_size)
            budget = parse_budget(budget).resolve(smallest.counts, widest.counts)
            check_reachable(model.architecture, input_size, budget, align=align)
        supernet = cost(model.architecture, input_size).counts
        self.curve = cost_curve(self.options, supernet=supernet, targets=budget, steps=steps)
        shrinking_steps = self.curve.end_step - self.curve.start_step
        self._control_steps = max(1, shrinking_steps // (5 * self.options.cuts))
        self._cut_steps = max(1, shrinking_steps // self.options.cuts)
        self._fade_steps = max(LEAST_FADE_STEPS, round(self.options.fade * shrinking_steps))
        self._steps, self.steps_done = steps, 0
        self.last_plan: Plan | None = None
        self.last_change: float | None = None
        self.target_met: Target | None = None
        self.weight, self.gain = 0.0, 1.0
        # How much each limit presses, of all that the budget sets: the same names on all processes.
        self._mix = {name: 1.0 if place == 0 else 0.0 for place, name in enumerate(budget[0].limits)}
        self._retirement = Retirement(model, unit_groups(self.architecture, input_size), averages)
        self._read_units()
        self._moving_average = importance_factors(self._scales)

    @property
    def architecture(self) -> Architecture:
        """The network as it stands."""
        return self.model.architecture

    @property
    def cost(self) -> Cost:
        """Cost of the network as it stands."""
        return self._cost

    @property
    def num_units(self) -> int:
        """Units that are still there."""
        return len(self._costs)

    @property
    def planned(self) -> dict[str, float]:
        """What the curve plans for now, by "macs" and "params" as the budget limits them."""
        return self.curve.planned(self.steps_done)

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
        self.target_met = None
        if self.is_finished:
            return False
        self.steps_done += 1
        index = self.curve.index(self.steps_done)
        exact_step = self.curve.steps[index]
        closing_step = exact_step - self._closing_steps(index)  # from here on what leaves is settled
        learning_rate = self._learning_rate()
        if self.weight:
            sizes, reach = pull_metric(self._scales, self.optimizer)
            pull = (self.weight * self._costs / sizes).clamp_max(self.options.pull)
            pull_to_zero(self._scales, learning_rate * reach * pull)
        if self.steps_done == closing_step + 1:
            self._settle(index)
        is_exact = self.steps_done == exact_step
        before = self._probe_output() if is_exact else None
        self._retirement.step(self.steps_done)
        factor = importance_factors(self._scales)
        # A moving average over two hundredths of the shrinking: a unit that only crosses zero is not dead.
        decay = 1 - 1 / max(1.0, 0.02 * (self.curve.end_step - self.curve.start_step))
        self._moving_average = self._moving_average.lerp(factor, 1 - decay)
        if is_exact:
            self.target_met = self.curve.targets[index]
            plan = make_plan(self.architecture, self.input_size, ~self._retirement.leaving, "budget")
            assert self.target_met.is_met(plan.cost.counts), "what was settled has changed"
            return self._cut(plan, before)
        if self.steps_done > closing_step:
            return False
        since_start = self.steps_done - self.curve.start_step
        has_cut = False
        if since_start > 0 and since_start % self._cut_steps == 0:
            has_cut = self._cut_dead(exact_step, index)
        if since_start >= 0 and since_start % self._control_steps == 0:
            self._control(learning_rate, closing_step)
        return has_cut

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold beside the model: plain values and tensors, by name."""
        return {
            "steps_done": self.steps_done,
            "weight": self.weight,
            "gain": self.gain,
            "mix": self._mix,
            "supernet": dict(self.curve.supernet),
            "moving_average": self._moving_average.clone(),
            "deadline": self._retirement.deadline.clone(),
            "presence": self._retirement.presence.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of a shrinker with the same model, options and budget."""
        self.steps_done, self.weight, self.gain = state["steps_done"], state["weight"], state["gain"]
        self._mix = dict(state["mix"])
        # The model has been cut since; the curve starts at the supernet.
        self.curve = cost_curve(self.options, supernet=state["supernet"], targets=self.curve.targets, steps=self._steps)
        self._moving_average = state["moving_average"].to(self._costs.device, copy=True)
        self._retirement.deadline = state["deadline"].cpu().clone()
        self._retirement.presence = state["presence"].cpu().clone()
        assert len(self._moving_average) == self.num_units, "the state belongs to another architecture"
        self._read_units()

    def _read_units(self) -> None:
        self._cost = cost(self.architecture, self.input_size)
        self._groups = unit_groups(self.architecture, self.input_size)
        self._counts = unit_costs(self._groups)
        self._scales = factors(self.model, self._groups)
        self._retirement.attach(self.model, self._groups)
        self._mix_costs()

    def _mix_costs(self) -> None:
        """Make cost(u) of every unit: its MACs or parameters relative to the mean, mixed as the limits press."""
        mixed = [share * relative_costs(self._counts[name]) for name, share in self._mix.items()]
        self._costs = torch.stack(mixed).sum(0).to(self._scales[0].device if self._scales else "cpu")

    def _importance(self) -> Tensor:
        """Return the importance of every unit, float (U,), on the CPU: its factor times the size of its gradient."""
        return (importance_factors(self._scales) * gradient_sizes(self._scales, self.optimizer)).cpu()

    def _learning_rate(self) -> float:
        """Return the learning rate of the group that holds the factors."""
        if not self._scales:
            return 0.0
        for group in self.optimizer.param_groups:
            if any(parameter is self._scales[0] for parameter in group["params"]):
                return float(group["lr"])
        raise InputError("The optimizer does not hold the model's batch-norm scales; make it from model.parameters().")

    def _closing_steps(self, index: int) -> int:
        """Return over how many steps the units that the exact step of a target takes fade."""
        first = self.curve.steps[index - 1] if index else self.curve.start_step
        # Before that the penalty has its time: two thirds at least.
        return min(self._fade_steps, -(-(self.curve.steps[index] - first) // 3))

    def _control(self, learning_rate: float, closing_step: int) -> None:
        """Set the penalty weight for the steps until the next control."""
        factor = importance_factors(self._scales)
        sizes, reach = pull_metric(self._scales, self.optimizer)
        distance = (factor * sizes).cpu()  # to zero, in the metric of the pull
        alive = (factor > self.options.threshold).cpu() & ~self._retirement.leaving
        ledger = Ledger(self.architecture, self.input_size)
        ends = torch.tensor([group.count for group in self._groups], dtype=torch.int64).cumsum(0)
        gone = (~alive).cumsum(0)[ends - 1].tolist()  # up to the end of each group
        for place, (before, after) in enumerate(pairwise([0, *gone])):
            ledger.take(place, after - before)
        horizon = self.options.horizon * (self.curve.end_step - self.curve.start_step)
        horizon = max(1.0, min(horizon, closing_step - self.steps_done))
        ahead = self.curve.planned(round(self.steps_done + horizon))
        # The logarithm: a lag of a tenth counts the same for a large and for a small network.
        lag = max(ledger.counts[name] / planned for name, planned in self.planned.items())
        self.gain = max(1.0, self.gain * lag**self.options.gain)
        excess = {name: ledger.counts[name] - planned for name, planned in ahead.items()}
        pressing = {name: max(amount, 0.0) / ledger.counts[name] for name, amount in excess.items()}
        if total := sum(pressing.values()):
            self._mix = {name: share / total for name, share in pressing.items()}
            self._mix_costs()
        weight = self.gain * penalty_weight(
            distance[alive],
            self._costs.cpu()[alive],
            {name: self._counts[name][alive] for name in excess},
            excess=excess,
            learning_rate=max(learning_rate * reach, 1e-12),
            horizon_steps=horizon,
        )
        agreed = self._agree(torch.tensor([weight, self.gain, *self._mix.values()], dtype=torch.float64)).tolist()
        self.weight, self.gain, self._mix = agreed[0], agreed[1], dict(zip(self._mix, agreed[2:], strict=True))
        self._mix_costs()

    def _cut_dead(self, exact_step: int, index: int) -> bool:
        """Let dead units leave as far as the curve allows, and cut those that are at zero, if that is worth a cut."""
        retirement, threshold = self._retirement, self.options.threshold
        dead = (importance_factors(self._scales) <= threshold) & (self._moving_average <= threshold)
        limits = self.curve.targets[index].limits
        floors = {name: max(planned, float(limits[name])) for name, planned in self.planned.items()}
        chosen = choose_dead(
            self.architecture, self.input_size, dead.cpu(), self._importance(), retirement.leaving, floors
        )
        chosen = self._agree(chosen.to(torch.uint8)).bool()
        leaving = make_plan(self.architecture, self.input_size, ~(retirement.leaving | chosen), "dead")
        counts, left = leaving.cost_before.counts, leaving.cost.counts
        if all(counts[name] - left[name] < 0.01 * counts[name] for name in floors):
            return False
        try:  # what is left must be fine enough for the exact step: all cheap units may have died
            check_reachable(leaving.architecture, self.input_size, self.curve.targets[index:], align=self.align)
        except BudgetError:
            return False
        before = self._probe_output()
        fades = retirement.fades
        retirement.vanish(chosen & ~fades, self.steps_done)
        retirement.retire(chosen & fades, min(self.steps_done + self._fade_steps, exact_step))
        return self._cut(plan_dead(self.architecture, self.input_size, retirement.gone, align=self.align), before)

    def _settle(self, index: int) -> None:
        """Choose what the exact step of a target takes; until then it fades."""
        retirement = self._retirement
        importance = self._importance()
        try:
            plan = self._plan_target(index, importance)
        except BudgetError:  # by importance what is left would be too coarse, here or for a later target
            plan = self._plan_target(index, torch.ones_like(importance))
        kept = self._agree(plan.kept.to(torch.uint8)).bool()
        retirement.release(retirement.leaving & kept)
        retirement.retire(~kept, self.curve.steps[index])
        self.weight = 0.0

    def _plan_target(self, index: int, importance: Tensor) -> Plan:
        """Return the exact step's plan for a target, from which the later ones can be met."""
        plan = plan_budget(
            self.architecture,
            self.input_size,
            importance,
            self.curve.targets[index],
            leaving=self._retirement.leaving,
            align=self.align,
        )
        check_reachable(plan.architecture, self.input_size, self.curve.targets[index + 1 :], align=self.align)
        return plan

    def _cut(self, plan: Plan, output_before: Tensor | None) -> bool:
        if not plan.removed and self.target_met is None:
            return False
        self.last_plan = plan
        apply_plan(plan, self.model, self.optimizer, self.averages)
        self._moving_average = self._moving_average[plan.kept.to(self._moving_average.device)]
        self._retirement.keep(plan.kept)
        self._read_units()
        self.last_change = None
        if output_before is not None:
            output = self._probe_output()
            assert output is not None
            self.last_change = float((output - output_before).norm() / output_before.norm().clamp_min(1e-12))
        return plan.removed > 0

    @torch.no_grad()
    def _probe_output(self) -> Tensor | None:
        """Return what the network makes of the probe in evaluation mode, flat; None without a probe."""
        if self.probe is None:
            return None
        modes = {module: module.training for module in self.model.modules()}
        output = self.model.eval()(self.probe)
        for module, mode in modes.items():
            module.training = mode
        return torch.cat([part.float().flatten() for part in ([output] if torch.is_tensor(output) else output)])


def cost_range(architecture: Architecture, input_size: Size) -> tuple[Cost, Cost]:
    """Return the cost of the smallest and of the widest network that can be cut from an architecture."""
    return cost(smallest_network(architecture), input_size), cost(architecture, input_size)


def check_reachable(
    architecture: Architecture, input_size: Size, targets: tuple[Target, ...], *, align: int = 1
) -> None:
    """Raise BudgetError when an exact step cannot land on a target: the units are too coarse, or the limits apart."""
    count = num_units(unit_groups(architecture, input_size))
    for target in targets:
        plan_budget(architecture, input_size, torch.ones(count), target, align=align)


def factor_scale(options: ShrinkOptions, learning_rates: list[float]) -> float:
    """Return how much faster than the rest the factors must learn for `options.travel` between start and end.

    learning_rates: of every step between start and end; a long schedule gives 1.
    """
    return max(1.0, options.travel / max(sum(learning_rates), 1e-12))
