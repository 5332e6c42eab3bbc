"""Plans: the floor, the order, the exact step into the budget, refusals, and what they print."""

from dataclasses import replace
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from architectures import random_architecture
from hrnas.arch.architecture import Architecture, StemConv
from hrnas.arch.budget import Target
from hrnas.arch.presets import search_space
from hrnas.arch.space import StageSpace
from hrnas.costing.analytic import cost
from hrnas.errors import BudgetError
from hrnas.searching.ledger import Ledger
from hrnas.searching.plan import Plan, choose_dead, make_plan, plan_budget, plan_dead, smallest_network, uniform_network
from hrnas.searching.units import num_units, unit_costs, unit_groups
from searching.networks import SIZE, TINY, TINY_TRANSFORMERS

TINY_NET = TINY.supernet(3)
SMALL_NET = search_space("hr-small").supernet(11)
TOKEN_NET = TINY_TRANSFORMERS.supernet(3)


def unit_macs(architecture: Architecture, size: tuple[int, int] = SIZE) -> Tensor:
    return unit_costs(unit_groups(architecture, size))["macs"]


def within(macs: int) -> Target:
    return Target(text=f"macs={macs}", macs=macs)


def dead_plan(architecture: Architecture, dead: Tensor, importance: Tensor, floor: float) -> Plan:
    """Choose which dead units go, and cut those."""
    nobody = torch.zeros_like(dead)
    chosen = choose_dead(architecture, SIZE, dead, importance, nobody, {"macs": floor})
    return plan_dead(architecture, SIZE, chosen)


def importances(architecture: Architecture, seed: int, size: tuple[int, int] = SIZE) -> Tensor:
    """Return random importances of very different sizes, some of them zero or equal."""
    macs = unit_macs(architecture, size)
    generator = torch.Generator().manual_seed(seed)
    values = torch.exp(3 * torch.randn(len(macs), generator=generator))
    values[torch.rand(len(macs), generator=generator) < 0.2] = 0
    values[torch.rand(len(macs), generator=generator) < 0.1] = 1
    return values


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_dead_units_go_cheapest_first_and_never_below_the_floor(seed: int, share: float) -> None:
    importance = importances(TINY_NET, seed)
    macs = unit_macs(TINY_NET)
    dead = torch.rand(len(macs), generator=torch.Generator().manual_seed(seed)) < 0.5
    floor = share * cost(TINY_NET, SIZE).macs
    plan = dead_plan(TINY_NET, dead, importance, floor)
    assert plan.reason == "dead"
    removed = ~plan.kept
    assert bool((dead | ~removed).all()), "only dead units go"
    assert plan.cost == cost(plan.architecture, SIZE)
    assert plan.cost_before == cost(TINY_NET, SIZE)
    assert plan.cost.macs == plan.cost_before.macs - int(macs[removed].sum())
    assert plan.cost.macs >= floor
    room = plan.cost.macs - floor
    ratio = importance.double() / macs
    left = dead & plan.kept
    assert bool((macs[left] > room).all()), "a dead unit stays only where there is no room for it"
    # Whoever goes has no better candidate of its own price that stays.
    for index in removed.nonzero().flatten().tolist():
        same = left & (macs == macs[index])
        assert bool((ratio[same] >= ratio[index]).all())


def test_a_low_floor_takes_all_dead_units_and_a_high_one_none() -> None:
    total = len(unit_macs(TINY_NET))
    dead = torch.arange(total) % 3 == 0
    importance = importances(TINY_NET, 0)
    assert torch.equal(dead_plan(TINY_NET, dead, importance, 0).kept, ~dead)
    nothing = dead_plan(TINY_NET, dead, importance, cost(TINY_NET, SIZE).macs)
    assert nothing.removed == 0
    assert nothing.architecture == TINY_NET
    assert not nothing.blocks
    assert dead_plan(TINY_NET, torch.zeros(total, dtype=torch.bool), importance, 0).removed == 0


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), where=st.floats(0, 1))
def test_the_budget_step_lands_within_two_percent_below(seed: int, where: float) -> None:
    size = (96, 128)
    importance = importances(SMALL_NET, seed, size)
    smallest, widest = cost(smallest_network(SMALL_NET), size).macs, cost(SMALL_NET, size).macs
    budget = round(smallest + where * (widest - smallest))
    plan = plan_budget(SMALL_NET, size, importance, within(budget))
    assert plan.reason == "budget"
    assert 0.98 * budget < plan.cost.macs <= budget
    assert plan.cost == cost(plan.architecture, size)
    macs = unit_macs(SMALL_NET, size)
    room = budget - plan.cost.macs
    assert bool((macs[~plan.kept] > room).all()), "whatever still fits is given back"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), where=st.floats(0, 1).map(lambda share: share**3))
def test_the_budget_step_in_a_coarse_space(seed: int, where: float) -> None:
    smallest, widest = cost(smallest_network(TINY_NET), SIZE).macs, cost(TINY_NET, SIZE).macs
    budget = round(smallest + where * (widest - smallest))
    try:
        plan = plan_budget(TINY_NET, SIZE, importances(TINY_NET, seed), within(budget))
    except BudgetError:
        # Only where no choice at all lands there: every sum of units is a bit of `sums`.
        macs = unit_macs(TINY_NET).tolist()
        sums = 1
        for unit in macs:
            sums |= sums << unit
        assert not any(sums >> kept & 1 for kept in range(budget - smallest + 1) if smallest + kept > 0.98 * budget)
    else:
        assert 0.98 * budget < plan.cost.macs <= budget


@pytest.mark.parametrize("share", [0.45, 0.6, 0.8, 0.95])
def test_the_budget_step_removes_least_importance_per_mac(share: float) -> None:
    """All importances per MAC apart: what goes is the start of the order, but for what was given back at its end."""
    macs = unit_macs(TINY_NET)
    order = torch.randperm(len(macs), generator=torch.Generator().manual_seed(1))
    importance = (1.0 + order.argsort()) * macs  # the unit order[0] is the least important for its price
    budget = round(share * cost(TINY_NET, SIZE).macs)
    plan = plan_budget(TINY_NET, SIZE, importance, within(budget))
    removed = ~plan.kept[order]
    last = int(removed.nonzero().max())
    excess = cost(TINY_NET, SIZE).macs - budget
    first_enough = int((macs[order].cumsum(0) >= excess).nonzero().min())
    assert last <= first_enough
    given_back = [index for index in range(first_enough + 1) if not removed[index]]
    room = int(macs[order][: first_enough + 1].sum()) - excess
    for index in range(first_enough, -1, -1):  # most important first, as far as they fit
        fits = int(macs[order][index]) <= room
        assert (index in given_back) == fits
        room -= int(macs[order][index]) if fits else 0


def test_the_whole_range_is_reached() -> None:
    smallest, widest = cost(smallest_network(TINY_NET), SIZE).macs, cost(TINY_NET, SIZE).macs
    importance = importances(TINY_NET, 0)
    everything = plan_budget(TINY_NET, SIZE, importance, within(smallest))
    assert not everything.kept.any()
    assert everything.architecture == smallest_network(TINY_NET)
    assert plan_budget(TINY_NET, SIZE, importance, within(widest)).removed == 0
    assert plan_budget(TINY_NET, SIZE, importance, within(int(widest * 1.01))).removed == 0


def test_budgets_that_cannot_be_met_are_refused() -> None:
    smallest, widest = cost(smallest_network(TINY_NET), SIZE).macs, cost(TINY_NET, SIZE).macs
    importance = importances(TINY_NET, 0)
    with pytest.raises(BudgetError, match="below the smallest"):
        plan_budget(TINY_NET, SIZE, importance, within(smallest - 1))
    with pytest.raises(BudgetError, match="too coarse"):
        plan_budget(TINY_NET, SIZE, importance, within(int(widest * 1.03)))
    bare = smallest_network(TINY_NET)
    with pytest.raises(BudgetError, match="below the smallest"):
        plan_budget(bare, SIZE, torch.zeros(0), within(smallest - 1))
    assert plan_budget(bare, SIZE, torch.zeros(0), within(smallest)).removed == 0


def test_units_too_coarse_for_the_budget_are_refused() -> None:
    space = replace(
        TINY,
        stem=(StemConv(out_channels=1),),
        stages=(StageSpace(blocks=(1,), channels=(1,)),),
        head_channels=1,
        kernel_sizes=(7,),
        expand_ratio=1,
        head_expand_ratio=1,
    )
    coarse = space.supernet(3)
    macs = unit_macs(coarse)
    whole = cost(coarse, SIZE).macs
    assert int(macs.min()) > 0.03 * whole, "every unit is more than the tolerance"
    with pytest.raises(BudgetError, match="too coarse") as error:
        plan_budget(coarse, SIZE, torch.ones(len(macs)), within(whole - 1))
    assert str(error.value).count(". ") == 1
    assert "budget" in str(error.value)


def test_cheap_units_go_where_a_dear_one_would_overshoot() -> None:
    """The least important unit costs more than the tolerance; cheaper ones, though more important, land."""
    thin = uniform_network(TINY_NET, 0.1)
    macs = unit_macs(thin)
    whole = cost(thin, SIZE).macs
    dear = int(macs.argmax())
    budget = whole - int(macs.min())
    assert int(macs[dear]) - int(macs.min()) > 0.02 * budget
    importance = macs.double()
    importance[dear] = 0
    plan = plan_budget(thin, SIZE, importance, within(budget))
    assert plan.kept[dear]
    assert 0.98 * budget < plan.cost.macs <= budget


def test_a_plan_says_what_it_does() -> None:
    total = len(unit_macs(TINY_NET))
    kept = torch.ones(total, dtype=torch.bool)
    kept[0] = kept[-1] = kept[-2] = False
    plan = make_plan(TINY_NET, SIZE, kept, "dead")
    assert plan.removed == 3
    assert len(plan.blocks) == 2
    assert str(plan).startswith("3 units of 2 blocks go (dead): ")
    assert str(plan).endswith(" MACs")
    assert next(iter(plan.blocks)) == next(iter(TINY_NET.blocks()))[0]
    first = plan.blocks[next(iter(plan.blocks))]
    assert first.before.kernels[0][1] == first.after.kernels[0][1] + 1
    assert first.kept.tolist() == list(range(1, first.before.hidden_channels))


def test_uniform_thinning_keeps_every_path() -> None:
    random = Random(0)
    for _ in range(5):
        share = random.random()
        thin = dict(uniform_network(TINY_NET, share).blocks())
        for name, block in TINY_NET.blocks():
            assert thin[name].kernels == tuple((size, max(1, round(share * n))) for size, n in block.kernels)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_the_ledger_counts_as_the_cost_of_the_network(seed: int) -> None:
    """Units are taken and put back in any order; after each move the ledger agrees with the network that is left."""
    random = Random(seed)
    architecture = random_architecture(random)
    groups = unit_groups(architecture, SIZE)
    ledger = Ledger(architecture, SIZE)
    left = [group.count for group in groups]
    for _ in range(6):
        if not groups:
            break
        place = random.randrange(len(groups))
        new = random.choice((0, random.randint(0, groups[place].count)))
        ledger.take(place, left[place] - new)
        left[place] = new
        kept = torch.cat([torch.arange(g.count) < n for g, n in zip(groups, left, strict=True)])
        assert ledger.counts == make_plan(architecture, SIZE, kept, "dead").cost.counts
    ledger.take_all()
    assert ledger.counts == cost(smallest_network(architecture), SIZE).counts


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    where=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)),
    limited=st.sampled_from([("macs",), ("params",), ("macs", "params")]),
    align=st.sampled_from([1, 4, 8]),
    tokens=st.booleans(),
)
def test_every_limit_holds_and_one_is_used(
    seed: int, where: tuple[float, float], limited: tuple[str, ...], align: int, tokens: bool
) -> None:
    """MACs, parameters or both; channels alone or tokens too; ragged or aligned."""
    size = (64, 96)
    net = search_space("hr-small", "all" if tokens else "none").supernet(11)
    net = uniform_network(net, 0.5) if seed % 2 else net
    smallest, widest = cost(smallest_network(net), size).counts, cost(net, size).counts
    limits = {
        name: round(smallest[name] + share * (widest[name] - smallest[name]))
        for name, share in zip(limited, where, strict=False)
    }
    target = Target(text="some", **limits)
    leaving = torch.rand(num_units(unit_groups(net, size)), generator=torch.Generator().manual_seed(seed)) < 0.02
    if align > 1 and max(where[: len(limited)]) > 0.9:
        return  # what must go for the width's sake alone may already be too much
    plan = plan_budget(net, size, importances(net, seed, size), target, leaving=leaving, align=align)
    assert target.is_met(plan.cost.counts)
    assert plan.cost == cost(plan.architecture, size)
    for name, block in plan.architecture.blocks():
        assert all(channels % align == 0 for _, channels in block.kernels), name
    if align == 1:
        assert not bool((plan.kept & leaving).any()), "what is leaving goes first"


def test_bundles_of_whole_transformers_under_a_limit_on_parameters() -> None:
    """A transformer that goes takes what belongs to no token with it, so under this limit no single tokens go."""
    smallest, widest = cost(smallest_network(TOKEN_NET), SIZE).params, cost(TOKEN_NET, SIZE).params
    for share in (0.3, 0.5, 0.7):
        target = Target(text="p", params=round(smallest + share * (widest - smallest)))
        plan = plan_budget(TOKEN_NET, SIZE, importances(TOKEN_NET, 1), target)
        assert {block.tokens for _, block in plan.architecture.blocks()} == {0, 5}


@pytest.mark.parametrize("align", [1, 4, 8])
def test_freed_units_wait_until_their_group_can_go(align: int) -> None:
    """As many of a path's units at zero are cut as leave a multiple; tokens one by one."""
    net = uniform_network(TOKEN_NET, 0.9)
    random = Random(align)
    gone = torch.tensor([random.random() < 0.6 for _ in range(num_units(unit_groups(net, SIZE)))])
    plan = plan_dead(net, SIZE, gone, align=align)
    assert not bool((~plan.kept & ~gone).any()), "only units at zero go"
    first = 0
    for group in unit_groups(net, SIZE):
        own = slice(first, first + group.count)
        free, removed = int(gone[own].sum()), int((~plan.kept[own]).sum())
        first += group.count
        step = 1 if group.kernel_size is None else align
        possible = [n for n in range(free + 1) if n == 0 or (group.count - n) % step == 0]
        assert removed == max(possible)
    assert align == 1 or bool((plan.kept & gone).any()), "some have to wait"


def test_dead_units_count_those_that_leave_already() -> None:
    importance = importances(TINY_NET, 0)
    total = len(unit_macs(TINY_NET))
    leaving, dead = torch.arange(total) < total // 2, torch.arange(total) >= total // 2
    left = make_plan(TINY_NET, SIZE, ~leaving, "dead").cost.macs
    assert not choose_dead(TINY_NET, SIZE, dead, importance, leaving, {"macs": left}).any()
    assert bool((choose_dead(TINY_NET, SIZE, dead, importance, leaving, {"macs": 0.0}) == dead).all())
    # With two floors the cost may go below one of them.
    both = {"macs": float(left), "params": 0.0}
    assert bool((choose_dead(TINY_NET, SIZE, dead, importance, leaving, both) == dead).all())
