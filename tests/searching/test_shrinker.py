"""Whole searches on a tiny network and synthetic data: the budget is met, never undercut, and resumed bit for bit."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer, RMSprop

from hrnas.arch.architecture import Architecture
from hrnas.arch.budget import Target
from hrnas.arch.file import fingerprint
from hrnas.arch.space import SearchSpace
from hrnas.costing.analytic import cost
from hrnas.engine.averages import Averages
from hrnas.errors import BudgetError
from hrnas.models.network import Network
from hrnas.nn.search_block import SearchBlock
from hrnas.searching.control import ShrinkOptions
from hrnas.searching.plan import smallest_network
from hrnas.searching.shrinker import Shrinker, check_reachable, cost_range, factor_scale
from searching.networks import SIZE, TINY, TINY_GATED, num_units, synthetic, task_loss, tiny_network

STEPS = 60
SUPERNET = TINY.supernet(3)
WIDEST = cost(SUPERNET, SIZE).macs
SMALLEST = cost(smallest_network(SUPERNET), SIZE).macs
OPTIONS = ShrinkOptions(start=0.1, end=0.7, cuts=12)


def adamw(model: nn.Module) -> Optimizer:
    return AdamW(model.parameters(), lr=0.03, fused=True)


def sgd(model: nn.Module) -> Optimizer:
    return SGD(model.parameters(), lr=0.03, momentum=0.9)


def plain_sgd(model: nn.Module) -> Optimizer:
    return SGD(model.parameters(), lr=0.05)


def rmsprop(model: nn.Module) -> Optimizer:
    return RMSprop(model.parameters(), lr=0.003, alpha=0.9, momentum=0.9, eps=1e-3)


class Search:
    """One search, with the plain loop of the shrinker's docstring."""

    def __init__(
        self,
        seed: int,
        budget: int,
        make: Callable[[nn.Module], Optimizer] = adamw,
        space: SearchSpace = TINY,
        probe: Tensor | None = None,
    ) -> None:
        self.model, self.probe = tiny_network(seed, space=space), probe
        self.make, self.budget, self.seed = make, budget, seed
        self.optimizer = make(self.model)
        self.averages = Averages(self.model, 64)
        self.shrinker = self.make_shrinker()
        self.trace: list[tuple[int, bool, Architecture]] = []
        self.weights: list[float] = []

    def make_shrinker(self) -> Shrinker:
        return Shrinker(
            self.model,
            self.optimizer,
            input_size=SIZE,
            budget=f"macs={self.budget}",
            steps=STEPS,
            options=OPTIONS,
            averages=self.averages.tensors,
            probe=self.probe,
        )

    def run(self, first: int = 0, last: int = STEPS) -> "Search":
        self.model.train()
        for step in range(first, last):
            images, target = synthetic(step + 10_000 * self.seed)
            self.optimizer.zero_grad()
            task_loss(self.model(images), target).backward()
            self.optimizer.step()
            changed = self.shrinker.step()
            self.averages.update(self.model)
            self.trace.append((cost(self.model.architecture, SIZE).macs, changed, self.model.architecture))
            self.weights.append(self.shrinker.weight)
        return self


def budget_at(where: float) -> int:
    return round(SMALLEST + where * (WIDEST - SMALLEST))


@pytest.mark.parametrize(
    ("seed", "where", "make"),
    [
        (0, 0.02, adamw),
        (1, 0.1, adamw),
        (2, 0.2, adamw),
        (3, 0.35, adamw),
        (4, 0.5, adamw),
        (5, 0.7, adamw),
        (6, 0.9, adamw),
        (7, 1.0, adamw),
        (8, 0.3, sgd),
        (9, 0.4, plain_sgd),
        (10, 0.3, rmsprop),
    ],
)
def test_a_search_meets_its_budget(seed: int, where: float, make: Callable[[nn.Module], Optimizer]) -> None:
    budget = budget_at(where)
    search = Search(seed, budget, make).run()
    costs = [macs for macs, _, _ in search.trace]
    assert 0.98 * budget < costs[-1] <= budget
    assert cost(search.model.architecture, SIZE).macs == costs[-1]
    assert costs[0] == WIDEST
    assert costs == sorted(costs, reverse=True), "the cost never rises"
    end = search.shrinker.curve.end_step
    assert end == 42
    assert min(costs[: end - 1]) >= budget, "never below the budget before the exact step"
    assert {architecture for _, _, architecture in search.trace[end - 1 :]} == {search.model.architecture}
    before = SUPERNET
    for _, changed, architecture in search.trace:
        assert changed == (architecture != before)
        before = architecture
    assert search.shrinker.is_finished
    assert search.weights[end - 1 :] == [0] * (STEPS - end + 1)
    assert search.shrinker.penalty() == 0
    assert search.shrinker.num_units == num_units(search.model.architecture)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in search.model.parameters())
    if where < 1:
        assert max(search.weights) > 0
        assert search.shrinker.last_plan.reason == "budget"
    # The network that was cut is the network that its architecture describes.
    again = Network(search.model.architecture)
    again.load_state_dict(search.model.state_dict())


def test_units_die_and_are_cut_before_the_exact_step() -> None:
    search = Search(1, budget_at(0.1)).run()
    end = search.shrinker.curve.end_step
    changes = [step for step, (_, changed, _) in enumerate(search.trace, 1) if changed]
    assert len([step for step in changes if step < end]) >= 1
    start = search.shrinker.curve.start_step
    assert min(changes) > start
    assert all(weight == 0 for weight in search.weights[: start - 1])


def test_with_squeeze_excitation_and_swish_the_budget_is_met_and_no_cut_of_dead_units_is_felt() -> None:
    """Dead channels behind a gate still put out their shift: cut at once, they would be missed."""
    smallest, widest = cost_range(tiny_network(0, space=TINY_GATED).architecture, SIZE)
    budget = round(smallest.macs + 0.3 * (widest.macs - smallest.macs))
    probe = synthetic(-1)[0]
    search = Search(1, budget, space=TINY_GATED, probe=probe)
    shrinker, changes = search.shrinker, []
    channels = [m.depthwise_norm for m in search.model.modules() if isinstance(m, SearchBlock)]
    with torch.no_grad():
        for norm in channels:
            norm.weight[::2] = 0  # dead from the start
            norm.bias[::2] = 1
    shrinker._moving_average.zero_()
    for step in range(STEPS):
        search.run(step, step + 1)
        if search.trace[-1][1]:
            changes.append((shrinker.last_plan.reason, shrinker.last_change))
    assert 0.98 * budget < search.trace[-1][0] <= budget
    assert [reason for reason, _ in changes][-2:] == ["dead", "budget"]
    assert max(change for reason, change in changes if reason == "dead") < 1e-5


@pytest.mark.parametrize("where", [0.1, 0.6])
def test_when_everything_dies_at_once_the_curve_is_not_undercut(where: float) -> None:
    search = Search(0, budget_at(where))
    shrinker = search.shrinker
    scales = [m.depthwise_norm.weight for m in search.model.modules() if isinstance(m, SearchBlock)]
    with torch.no_grad():
        for scale in scales:
            scale.zero_()
    shrinker._moving_average.zero_()
    cuts = 0
    while shrinker.steps_done < shrinker.curve.end_step - 1:
        cuts += shrinker.step()
        assert cost(search.model.architecture, SIZE).macs >= shrinker.planned["macs"] > budget_at(where)
    assert cuts >= 3


def test_same_seed_same_networks() -> None:
    first, second, other = (Search(seed, budget_at(0.3)).run(last=45) for seed in (3, 3, 4))
    prints = [[fingerprint(architecture) for _, _, architecture in s.trace] for s in (first, second, other)]
    assert prints[0] == prints[1]
    assert prints[0][-1] != prints[2][-1]
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


@pytest.mark.parametrize("stop", [3, 20, 41])
def test_a_resumed_search_equals_the_uninterrupted_one(stop: int) -> None:
    budget = budget_at(0.1)
    whole = Search(1, budget).run(last=stop)
    assert stop < 41 or whole.trace[-1][0] < WIDEST, "it has been cut, so the curve's start must come from the state"
    architecture = whole.model.architecture
    weights = {name: value.clone() for name, value in whole.model.state_dict().items()}
    moments = {
        name: {entry: value.clone() for entry, value in whole.optimizer.state[parameter].items()}
        for name, parameter in whole.model.named_parameters()
    }
    averages = {name: value.clone() for name, value in whole.averages.tensors.items()}
    saved: dict[str, Any] = whole.shrinker.state_dict()
    whole.run(first=stop)

    resumed = Search(1, budget)
    resumed.model = Network(architecture)
    resumed.model.load_state_dict(weights)
    resumed.optimizer = adamw(resumed.model)
    for name, parameter in resumed.model.named_parameters():
        resumed.optimizer.state[parameter] = moments[name]
    resumed.averages = Averages(resumed.model, 64)
    resumed.averages.tensors = averages
    resumed.averages.num_updates = stop
    resumed.shrinker = Shrinker(
        resumed.model,
        resumed.optimizer,
        input_size=SIZE,
        budget=(Target(text=f"macs={budget}", macs=budget),),
        steps=STEPS,
        options=OPTIONS,
        averages=resumed.averages.tensors,
    )
    resumed.shrinker.load_state_dict(saved)
    assert resumed.shrinker.curve == whole.shrinker.curve
    resumed.run(first=stop)
    assert resumed.trace == whole.trace[stop:]
    assert resumed.weights == whole.weights[stop:]
    for found, expected in (
        (resumed.model.state_dict(), whole.model.state_dict()),
        (resumed.averages.tensors, whole.averages.tensors),
    ):
        assert found.keys() == expected.keys()
        for name in found:
            assert torch.equal(found[name], expected[name]), name


def test_state_is_plain_numbers_and_tensors() -> None:
    state = Search(0, budget_at(0.5)).shrinker.state_dict()
    tensors = [name for name, value in state.items() if torch.is_tensor(value)]
    assert tensors == ["moving_average", "deadline", "presence"]
    plain = {name: value for name, value in state.items() if name not in tensors}
    assert json.loads(json.dumps(plain)) == plain


@pytest.mark.parametrize("budget", [1, SMALLEST - 1, int(WIDEST * 1.03)])
def test_budgets_out_of_reach_are_refused_before_any_step(budget: int) -> None:
    with pytest.raises(BudgetError, match="budgets from"):
        Search(0, budget)
    with pytest.raises(BudgetError):
        check_reachable(SUPERNET, SIZE, (Target(text="macs", macs=budget),))


def test_the_range_and_the_scale_of_the_factors() -> None:
    smallest, widest = cost_range(SUPERNET, SIZE)
    assert (smallest.macs, widest.macs) == (SMALLEST, WIDEST)
    check_reachable(SUPERNET, SIZE, tuple(Target(text="macs", macs=macs) for macs in (SMALLEST, WIDEST)))
    assert factor_scale(ShrinkOptions(travel=4.0), [0.1] * 10) == pytest.approx(4)
    assert factor_scale(ShrinkOptions(travel=4.0), [0.1] * 1000) == 1
    assert factor_scale(ShrinkOptions(travel=4.0), [0.5, 1.5, 2.0]) == 1


def test_the_pull_of_one_step_is_the_written_one() -> None:
    """Under plain SGD: |new| = |old| - rate * min(weight * cost, pull), stopped at zero."""
    search = Search(0, budget_at(0.3), plain_sgd)
    shrinker = search.shrinker
    shrinker.weight = 0.3
    norms = [module.depthwise_norm.weight for _, module in search.model.named_modules() if hasattr(module, "expand")]
    old = torch.cat([norm.detach().clone() for norm in norms])
    macs = torch.tensor(list(_unit_costs().values()), dtype=torch.float32)
    costs = macs / macs.mean()
    assert shrinker.penalty() == pytest.approx(float((0.3 * costs * old.abs()).sum()), rel=1e-4)
    assert not shrinker.step()
    new = torch.cat([norm.detach() for norm in norms])
    expected = old.sign() * (old.abs() - 0.05 * (0.3 * costs).clamp_max(OPTIONS.pull)).clamp_min(0)
    torch.testing.assert_close(new, expected, rtol=1e-5, atol=1e-6)


def _unit_costs() -> dict[tuple[str, int], float]:
    """Return the MACs of every unit by hand: expand at the input's area, depthwise and project at the output's."""
    height, width = SIZE[0] // 2, SIZE[1] // 2
    costs: dict[tuple[str, int], float] = {}
    for name, block in SUPERNET.blocks():
        # Branch 1 has half the size: its own blocks, and paths that begin there.
        stage = SUPERNET.stages[int(name.split(".")[1])] if name.startswith("stages") else None
        low = ".branches.1." in name
        if stage is not None and ".fusion.paths." in name:
            low = stage.paths[int(name.split(".")[-1])].source == 1
        divisor = 2 if low else 1
        area_in = (height // divisor) * (width // divisor)
        area_out = area_in // block.stride**2
        index = 0
        for size, channels in block.kernels:
            for _ in range(channels):
                costs[name, index] = area_in * block.in_channels + area_out * (size**2 + block.out_channels)
                index += 1
    return costs
