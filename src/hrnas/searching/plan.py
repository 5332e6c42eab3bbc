"""Plans: which units go, why, and what is left. A plan is made, can be shown, and is then cut.

The importance of a unit is its factor times the size of the factor's gradient: what the loss would feel, to first
order, if the unit went. The factor alone is no measure across blocks: the batch norm behind the projection takes any
common scale of a block's factors out again.

U number of units.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hrnas.arch.architecture import Architecture, Block
from hrnas.arch.budget import TOLERANCE, format_count
from hrnas.costing.analytic import Cost, Size, cost
from hrnas.errors import BudgetError
from hrnas.searching.units import blocks_of, unit_groups, unit_macs


@dataclass(frozen=True, kw_only=True)
class BlockCut:
    """What becomes of one block.

    before, after: the block; kept: indices of its hidden channels that stay, int64, ascending.
    """

    before: Block
    after: Block
    kept: Tensor


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A cut that has not happened yet.

    reason: "dead" (units at zero) or "budget" (the exact step).
    blocks: the blocks that change; architecture: the network afterwards; cost, cost_before: of both.
    kept: bool (U,), over the units before the cut.
    """

    reason: str
    architecture: Architecture
    blocks: Mapping[str, BlockCut]
    kept: Tensor
    cost_before: Cost
    cost: Cost

    @property
    def removed(self) -> int:
        """Number of units that go."""
        return int((~self.kept).sum())

    def __str__(self) -> str:
        return (
            f"{self.removed} unit{'s' * (self.removed != 1)} of {len(self.blocks)} "
            f"block{'s' * (len(self.blocks) != 1)} go ({self.reason}): "
            f"{format_count(self.cost_before.macs)} to {format_count(self.cost.macs)} MACs"
        )


def plan_dead(
    architecture: Architecture, input_size: Size, dead: Tensor, importance: Tensor, floor_macs: float
) -> Plan:
    """Plan to remove dead units, least importance per MAC first, as long as the cost stays at or above the floor.

    dead: bool (U,); importance: float (U,); floor_macs: MACs the network shall not go below.
    """
    macs = unit_macs(unit_groups(architecture, input_size))
    room = cost(architecture, input_size).macs - floor_macs
    kept = torch.ones_like(dead)
    for index in _least_important_first(importance, macs):
        if dead[index] and macs[index] <= room:
            kept[index] = False
            room -= int(macs[index])
    return make_plan(architecture, input_size, kept, "dead")


def plan_budget(architecture: Architecture, input_size: Size, importance: Tensor, budget_macs: int) -> Plan:
    """Plan the exact step: least importance per MAC first, into (0.98, 1.00] of the budget.

    What the last units overshoot is given back to the most important of those removed that still fit. Where units are
    coarse and that lands too low, units near the end of those removed change places until it does not.
    Raises BudgetError when the budget is below the smallest network, or no choice of whole units was found.
    """
    macs = unit_macs(unit_groups(architecture, input_size))
    macs_before = cost(architecture, input_size).macs
    excess = macs_before - budget_macs
    smallest = macs_before - int(macs.sum())
    if budget_macs < smallest:
        raise BudgetError(
            f"Budget of {format_count(budget_macs)} MACs is below the smallest network that can be cut from here, "
            f"{format_count(smallest)} MACs. Raise the budget or choose a smaller space."
        )
    order = _least_important_first(importance, macs)
    kept = torch.ones(len(macs), dtype=torch.bool)
    kept[_first_to_go(order, macs.tolist(), excess)] = False
    plan = make_plan(architecture, input_size, kept, "budget")
    lowest = math.floor((1 - TOLERANCE) * budget_macs) + 1
    if plan.cost.macs < lowest:
        changed = _exchange(order, macs.tolist(), kept.tolist(), lowest - plan.cost.macs, budget_macs - plan.cost.macs)
        kept[changed] = ~kept[changed]
        plan = make_plan(architecture, input_size, kept, "budget")
    if not lowest <= plan.cost.macs <= budget_macs:
        raise BudgetError(
            f"The network costs {format_count(macs_before)} MACs and its units are too coarse to land within "
            f"{TOLERANCE:.0%} below {format_count(budget_macs)}; {format_count(plan.cost.macs)} is the nearest. "
            "Raise the budget, the input size or choose a wider space."
        )
    return plan


def make_plan(architecture: Architecture, input_size: Size, kept: Tensor, reason: str) -> Plan:
    """Return the plan that keeps just the units marked in `kept`, bool (U,)."""
    blocks = dict(architecture.blocks())
    changed = {}
    for name, first, paths in blocks_of(unit_groups(architecture, input_size)):
        widths = [path.channels for path in paths]
        kept_here = kept[first : first + sum(widths)]
        if bool(kept_here.all()):
            continue
        left = [int(part.sum()) for part in torch.split(kept_here, widths)]
        kernels = tuple((path.kernel_size, count) for path, count in zip(paths, left, strict=True) if count)
        after = replace(blocks[name], kernels=kernels, shift=not kernels)
        changed[name] = BlockCut(before=blocks[name], after=after, kept=kept_here.nonzero().flatten())
    shrunk = architecture.with_blocks({name: block.after for name, block in changed.items()})
    return Plan(
        reason=reason,
        architecture=shrunk,
        blocks=changed,
        kept=kept,
        cost_before=cost(architecture, input_size),
        cost=cost(shrunk, input_size),
    )


def smallest_network(architecture: Architecture) -> Architecture:
    """Return the network left when every unit goes: skips, and transformers where there are any."""
    return architecture.with_blocks(
        {name: replace(block, kernels=(), shift=True) for name, block in architecture.blocks() if block.kernels}
    )


def uniform_network(architecture: Architecture, share: float) -> Architecture:
    """Return the network with the same share of every kernel path's channels left, at least one in each."""
    return architecture.with_blocks(
        {
            name: replace(block, kernels=tuple((size, max(1, round(share * width))) for size, width in block.kernels))
            for name, block in architecture.blocks()
        }
    )


def _first_to_go(order: list[int], macs: list[int], excess: int) -> list[int]:
    """Return the first units of `order` that together have at least `excess` MACs.

    Of those, the last in order are given back as far as the rest still has `excess`.
    """
    removed: list[int] = []
    total = 0
    for index in order:
        if total >= excess:
            break
        removed.append(index)
        total += macs[index]
    for index in reversed(removed.copy()):
        if macs[index] <= total - excess:
            removed.remove(index)
            total -= macs[index]
    return removed


def _exchange(order: list[int], macs: list[int], kept: list[bool], least: int, most: int) -> list[int]:
    """Return units that change places, those removed with those kept, so that the cost rises by least..most MACs.

    Tried from the end of those removed outwards: sums of ever more units, one for each small step of MACs. Empty
    when there is none.
    """
    end = max((place for place, index in enumerate(order) if not kept[index]), default=0)
    step = max(1, (most - least) // 16)
    reach = most + 2 * max(macs, default=0)
    sums: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    for place in sorted(range(len(order)), key=lambda place: abs(place - end)):
        index = order[place]
        rise = -macs[index] if kept[index] else macs[index]
        for total, changed in list(sums.values()):
            new = total + rise
            if least <= new <= most:
                return [*changed, index]
            if abs(new) <= reach:
                sums.setdefault(new // step, (new, (*changed, index)))
    return []


def _least_important_first(importance: Tensor, macs: Tensor) -> list[int]:
    """Return all unit indices by importance per MAC, ascending; equals in the order of the units."""
    order: list[int] = (importance.double() / macs.to(importance.device)).sort(stable=True).indices.tolist()
    return order
