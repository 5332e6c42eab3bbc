"""Plans: which units go, why, and what is left. A plan is made, can be shown, and is then cut.

The importance of a unit is its factor times the size of the factor's gradient: what the loss would feel, to first
order, if the unit went. The factor alone is no measure across blocks: the batch norm behind the projection takes any
common scale of a block's factors out again.

U number of units.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hrnas.arch.architecture import Architecture, Block
from hrnas.arch.budget import LIMITED, TOLERANCE, Target, format_count
from hrnas.costing.analytic import Cost, Size, cost
from hrnas.errors import BudgetError
from hrnas.searching.ledger import Ledger
from hrnas.searching.units import UnitGroup, blocks_of, num_units, unit_groups


@dataclass(frozen=True, kw_only=True)
class BlockCut:
    """What becomes of one block.

    before, after: the block; kept: indices of its hidden channels that stay, kept_tokens: of its tokens, int64,
    ascending.
    """

    before: Block
    after: Block
    kept: Tensor
    kept_tokens: Tensor


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


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Units of one kernel path or transformer that stay or go together.

    group: place of the path or transformer; units: their indices; importance: of all together.
    is_due: they must go, because they are leaving already or so that the width becomes a multiple.
    """

    group: int
    units: tuple[int, ...]
    importance: float
    is_due: bool


def bundles(
    groups: tuple[UnitGroup, ...], importance: Tensor, leaving: Tensor, *, align: int, whole_transformers: bool
) -> list[Bundle]:
    """Return the bundles of a network, by group and within it the least important first.

    A kernel path's units are bundled by `align`, those leaving before the others, the least important first; what its
    width exceeds a multiple by is one smaller bundle, which is due. Tokens are bundles of one, or, of whole
    transformers, those leaving one by one and the others one bundle.
    importance: float (U,); leaving: bool (U,), units at zero or on their way there.
    """
    values, gone = importance.tolist(), leaving.tolist()
    found = []
    first = 0
    for place, group in enumerate(groups):
        order = sorted(range(first, first + group.count), key=lambda unit: (not gone[unit], values[unit]))
        if group.kernel_size is None:
            num_gone = sum(gone[unit] for unit in order)
            size, rest = 1, 0
            starts = list(range(num_gone)) + [num_gone] * (num_gone < group.count)
            if not whole_transformers:
                starts = list(range(group.count))
        else:
            size, rest = align, group.count % align
            starts = [0] * (rest > 0) + list(range(rest, group.count, align))
        for start, end in zip(starts, [*starts[1:], group.count], strict=True):
            units = tuple(order[start:end])
            found.append(
                Bundle(
                    group=place,
                    units=units,
                    importance=sum(0.0 if gone[unit] else values[unit] for unit in units),
                    is_due=len(units) < size or all(gone[unit] for unit in units),
                )
            )
        first += group.count
    return found


def choose_dead(
    architecture: Architecture,
    input_size: Size,
    dead: Tensor,
    importance: Tensor,
    leaving: Tensor,
    floors: Mapping[str, float],
) -> Tensor:
    """Return which dead units may leave, bool (U,): least importance per cost first, as long as the floors hold.

    dead, leaving: bool (U,); those leaving already are counted as gone. importance: float (U,).
    floors: "macs" or "params" or both; the network shall not go below all of them.
    """
    ledger = Ledger(architecture, input_size)
    chosen = torch.zeros_like(dead)
    for place, part in enumerate(torch.split(leaving, [group.count for group in ledger.groups])):
        ledger.take(place, int(part.sum()))
    candidates = []
    first = 0
    for place, group in enumerate(ledger.groups):
        own = slice(first, first + group.count)
        worth = sum(_cost(group, name) / ledger.counts[name] for name in floors)
        for unit in (dead[own] & ~leaving[own]).nonzero().flatten().tolist():
            candidates.append((float(importance[first + unit]) / worth, first + unit, place))
        first += group.count
    for _, unit, place in sorted(candidates):
        ledger.take(place)
        if any(ledger.counts[name] >= floor for name, floor in floors.items()):
            chosen[unit] = True
        else:
            ledger.take(place, -1)
    return chosen


def plan_dead(architecture: Architecture, input_size: Size, gone: Tensor, *, align: int = 1) -> Plan:
    """Plan to cut the units that are at zero, bool (U,), of each kernel path as many as leave a multiple of `align`."""
    kept = torch.ones_like(gone)
    first = 0
    for group in unit_groups(architecture, input_size):
        units = first + gone[first : first + group.count].nonzero().flatten()
        size = 1 if group.kernel_size is None else align
        rest = group.count % size
        if len(units) >= rest:
            kept[units[: rest + (len(units) - rest) // size * size]] = False
        first += group.count
    return make_plan(architecture, input_size, kept, "dead")


def plan_budget(
    architecture: Architecture,
    input_size: Size,
    importance: Tensor,
    target: Target,
    *,
    leaving: Tensor | None = None,
    align: int = 1,
) -> Plan:
    """Plan the exact step: bundles of least importance per cost first, until every limit of the target holds.

    What the last ones overshoot is given back to the most important of those removed that still fit. Where bundles are
    coarse and that lands too low, some near the end of those removed change places until it does not.
    importance: float (U,); leaving: bool (U,), units that are on their way to zero: they go first.
    Raises BudgetError when a limit is below the smallest network, or no choice of whole bundles was found.
    """
    ledger = Ledger(architecture, input_size)
    before = ledger.counts.copy()
    _check_above_smallest(architecture, input_size, target)
    if leaving is None:
        leaving = torch.zeros(len(importance), dtype=torch.bool)
    due: list[Bundle] = []
    rest: list[Bundle] = []
    # Most parameters of a transformer do not depend on its tokens: under a limit on them it lives or dies as a whole.
    as_one = target.params is not None
    for bundle in bundles(ledger.groups, importance, leaving, align=align, whole_transformers=as_one):
        (due if bundle.is_due else rest).append(bundle)
    for bundle in due:
        ledger.take(bundle.group, len(bundle.units))
    taken, rest = _take_until_it_fits(ledger, rest, target)
    needed: list[Bundle] = []
    given_back: list[Bundle] = []
    for bundle in reversed(taken):
        ledger.take(bundle.group, -len(bundle.units))
        fits = all(ledger.counts[name] <= limit for name, limit in target.limits.items())
        (given_back if fits else needed).append(bundle)
        if not fits:
            ledger.take(bundle.group, len(bundle.units))
    taken, rest = needed[::-1], given_back[::-1] + rest
    if not target.is_met(ledger.counts):
        taken = _exchange(ledger, taken, rest, target)
    kept = torch.ones(num_units(ledger.groups), dtype=torch.bool)
    for bundle in (*due, *taken):
        kept[list(bundle.units)] = False
    plan = make_plan(architecture, input_size, kept, "budget")
    if not target.is_met(plan.cost.counts):
        got = " and ".join(f"{format_count(plan.cost.counts[name])} {LIMITED[name]}" for name in target.limits)
        whole = " and ".join(f"{format_count(before[name])} {LIMITED[name]}" for name in target.limits)
        finer = " choose a smaller align," if align > 1 else ""
        raise BudgetError(
            f"The network has {whole} and its units are too coarse to land within {TOLERANCE:.0%} below {target}; "
            f"{got} is the nearest. Raise the budget,{finer} or choose a larger input size or a wider space."
        )
    return plan


def make_plan(architecture: Architecture, input_size: Size, kept: Tensor, reason: str) -> Plan:
    """Return the plan that keeps just the units marked in `kept`, bool (U,)."""
    blocks = dict(architecture.blocks())
    changed = {}
    for name, first, groups in blocks_of(unit_groups(architecture, input_size)):
        counts = [group.count for group in groups]
        own = kept[first : first + sum(counts)]
        if bool(own.all()):
            continue
        before = blocks[name]
        left = [int(part.sum()) for part in torch.split(own, counts)]
        kernels = tuple((size, count) for (size, _), count in zip(before.kernels, left, strict=False) if count)
        tokens = left[-1] if before.tokens else 0
        shift = before.shift if kernels == before.kernels else not kernels
        hidden = before.hidden_channels
        changed[name] = BlockCut(
            before=before,
            after=replace(before.with_kernels(kernels, shift=shift), tokens=tokens),
            kept=own[:hidden].nonzero().flatten(),
            kept_tokens=own[hidden:].nonzero().flatten(),
        )
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
    """Return the network left when every unit goes: skips and constants."""
    return architecture.with_blocks(
        {
            name: replace(block.with_kernels((), shift=bool(block.kernels) or block.shift), tokens=0)
            for name, block in architecture.blocks()
        }
    )


def uniform_network(architecture: Architecture, share: float) -> Architecture:
    """Return the network with the same share of every kernel path's channels, and of all tokens, left.

    At least one in each.
    """
    return architecture.with_blocks(
        {
            name: replace(
                block,
                kernels=tuple((size, max(1, round(share * width))) for size, width in block.kernels),
                tokens=max(1, round(share * block.tokens)) if block.tokens else 0,
            )
            for name, block in architecture.blocks()
        }
    )


def _check_above_smallest(architecture: Architecture, input_size: Size, target: Target) -> None:
    ledger = Ledger(architecture, input_size)
    ledger.take_all()
    for name, limit in target.limits.items():
        if limit < ledger.counts[name]:
            raise BudgetError(
                f"Budget of {format_count(limit)} {LIMITED[name]} is below the smallest network that can be cut from "
                f"here, {format_count(ledger.counts[name])}. Raise the budget or choose a smaller space."
            )


def _take_until_it_fits(ledger: Ledger, rest: list[Bundle], target: Target) -> tuple[list[Bundle], list[Bundle]]:
    """Take bundles until every limit holds; return those taken, in order, and those left, the next one first.

    A bundle's cost is its share of what is still to be saved, over all limits that do not hold yet.
    """
    taken: list[Bundle] = []
    while True:
        over = {name: ledger.counts[name] - limit for name, limit in target.limits.items()}
        over = {name: excess for name, excess in over.items() if excess > 0}
        rest = sorted(rest, key=lambda bundle: _importance_per_cost(ledger, bundle, over or target.limits))
        if not over or not rest:
            return taken, rest
        position = 0
        while position < len(rest) and all(ledger.counts[name] > target.limits[name] for name in over):
            bundle = rest[position]
            ledger.take(bundle.group, len(bundle.units))
            position += 1
        taken += rest[:position]
        rest = rest[position:]


def _importance_per_cost(ledger: Ledger, bundle: Bundle, excess: Mapping[str, int]) -> float:
    group = ledger.groups[bundle.group]
    share = sum(_cost(group, name) / amount for name, amount in excess.items())
    return bundle.importance / (len(bundle.units) * share)


def _cost(group: UnitGroup, name: str) -> int:
    return group.macs if name == "macs" else group.params


def _exchange(ledger: Ledger, taken: list[Bundle], rest: list[Bundle], target: Target) -> list[Bundle]:
    """Return which bundles to take instead, so that the target is met; those taken where no way was found.

    First a single large bundle is put back, the last taken first, and small ones of those left are taken in order until
    the limits hold again. Where there are none, sums of bundles near the end of those taken change places.
    """
    name = max(target.limits, key=lambda name: ledger.counts[name] / target.limits[name])
    limit = target.limits[name]

    def is_small(bundle: Bundle) -> bool:
        return len(bundle.units) * _cost(ledger.groups[bundle.group], name) < TOLERANCE * limit

    small = [bundle for bundle in rest if is_small(bundle)]
    large = [place for place in reversed(range(len(taken))) if not is_small(taken[place])]
    for place in large[:20]:
        back = taken[place]
        ledger.take(back.group, -len(back.units))
        more, _ = _take_until_it_fits(ledger, small, target)
        if target.is_met(ledger.counts):
            return [*taken[:place], *taken[place + 1 :], *more]
        for bundle in more:
            ledger.take(bundle.group, -len(bundle.units))
        ledger.take(back.group, len(back.units))
    order = [*taken, *rest]
    costs = [len(bundle.units) * _cost(ledger.groups[bundle.group], name) for bundle in order]
    rises = [price if place < len(taken) else -price for place, price in enumerate(costs)]
    least, most = int((1 - TOLERANCE) * limit) + 1 - ledger.counts[name], limit - ledger.counts[name]
    for tried, changed in enumerate(_sums(rises, len(taken), least, most)):
        for sign in (1, -1):
            for place in changed:
                bundle = order[place]
                direction = -sign if place < len(taken) else sign
                ledger.take(bundle.group, direction * len(bundle.units))
            if sign == 1 and target.is_met(ledger.counts):
                return [bundle for place, bundle in enumerate(order) if (place < len(taken)) != (place in changed)]
        if tried >= 100:
            break
    return taken


def _sums(rises: list[int], end: int, least: int, most: int) -> Iterator[set[int]]:
    """Yield sets of places whose rises sum to least..most.

    Tried from place `end` outwards: sums of ever more places, one for each small step of the sum.
    """
    step = max(1, (most - least) // 16)
    reach = most + 2 * max(map(abs, rises), default=0)
    sums: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    for place in sorted(range(len(rises)), key=lambda place: abs(place - end + 0.5)):
        for total, changed in list(sums.values()):
            new = total + rises[place]
            if least <= new <= most:
                yield {*changed, place}
            elif abs(new) <= reach:
                sums.setdefault(new // step, (new, (*changed, place)))
