"""Whole searches for tokens, parameters, two limits, several targets and aligned widths, on synthetic data."""

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from hrnas.arch.budget import parse_budget
from hrnas.costing.analytic import cost
from hrnas.costing.counted import count
from hrnas.engine.averages import Averages
from hrnas.engine.evaluation import averaged_network
from hrnas.models.network import Network, build_model
from hrnas.searching.control import ShrinkOptions
from hrnas.searching.shrinker import Shrinker, cost_range
from searching.networks import SIZE, TINY_TRANSFORMERS, synthetic

STEPS = 120
SUPERNET = TINY_TRANSFORMERS.supernet(3)


class Descent:
    """One search; records what each cut left, by how much it changed the output, and what met a target."""

    def __init__(self, budget: str, *, seed: int = 0, align: int = 1, measures_averages: bool = False) -> None:
        torch.manual_seed(seed)
        self.model = Network(SUPERNET)
        averages = Averages(self.model, 64)
        optimizer = AdamW(self.model.parameters(), lr=0.03, fused=True)
        self.shrinker = Shrinker(
            self.model,
            optimizer,
            input_size=SIZE,
            budget=budget,
            steps=STEPS,
            options=ShrinkOptions(cuts=20),
            averages=averages.tensors,
            align=align,
            probe=synthetic(999)[0],
        )
        self.changes: list[float] = []
        self.averaged_changes: list[float] = []
        self.met = {}
        self.costs = []
        for step in range(STEPS):
            images, target = synthetic(step + 1000 * seed)
            optimizer.zero_grad()
            nn.functional.mse_loss(self.model.train()(images), target).backward()
            optimizer.step()
            before = self.averaged_output(averages) if measures_averages else None
            if self.shrinker.step():
                if before is not None and self.shrinker.target_met is not None:
                    after = self.averaged_output(averages)
                    self.averaged_changes.append(float((after - before).norm() / before.norm()))
                assert self.shrinker.last_change is not None
                self.changes.append(self.shrinker.last_change)
                architecture = self.model.architecture
                with torch.device("meta"):
                    counted = count(build_model(architecture).eval(), SIZE)
                assert cost(architecture, SIZE).counts == self.shrinker.cost.counts == counted.counts
            if self.shrinker.target_met is not None:
                self.met[self.shrinker.target_met.text] = self.model.architecture
            averages.update(self.model)
            self.costs.append(self.shrinker.cost.counts)

    def averaged_output(self, averages: Averages) -> torch.Tensor:
        with torch.no_grad():
            return averaged_network(self.model, averages, [])(synthetic(999)[0])


def test_no_exact_step_is_felt_in_the_averaged_network() -> None:
    """The averages lag behind the weights, and are what is evaluated and kept: they fade along."""
    descent = Descent("80%,40%", measures_averages=True)
    assert len(descent.averaged_changes) == len(descent.met)
    assert max(descent.averaged_changes) < 0.01


@pytest.mark.parametrize(
    ("budget", "align"),
    [
        ("40%", 1),
        ("params=60%", 1),
        ("macs=50%,params=70%", 1),
        ("60%", 4),
        ("80%,60%,40%", 1),
        ("params=80%,60%,40%,macs=90%", 1),
    ],
)
def test_each_target_is_met_and_no_cut_is_felt(budget: str, align: int) -> None:
    descent = Descent(budget, align=align)
    smallest, widest = cost_range(SUPERNET, SIZE)
    targets = parse_budget(budget).resolve(smallest.counts, widest.counts)
    assert list(descent.met) == [target.text for target in targets]
    for target in targets:
        found = descent.met[target.text]
        assert target.is_met(cost(found, SIZE).counts)
        for _, block in found.blocks():
            assert all(channels % align == 0 for _, channels in block.kernels)
    for name in ("macs", "params"):
        series = [counts[name] for counts in descent.costs]
        assert series == sorted(series, reverse=True)
    assert descent.changes
    assert max(descent.changes) < 0.01
    assert descent.model.architecture == descent.met[targets[-1].text]
    assert not any(module.key_bias is not None for module in descent.model.modules() if hasattr(module, "key_bias"))


def test_tokens_are_cut_down_to_none() -> None:
    descent = Descent("20%")
    tokens = [block.tokens for _, block in descent.model.architecture.blocks()]
    assert 0 in tokens
    assert sum(tokens) < sum(block.tokens for _, block in SUPERNET.blocks())
    for name, block in descent.model.architecture.blocks():
        module = descent.model.get_submodule(name).transformer
        assert (module is None) == (block.tokens == 0)


def test_an_abrupt_exact_step_would_be_felt() -> None:
    """The bound above is not for want of an effect: what the exact step takes does change the output."""
    model = Network(SUPERNET)
    torch.manual_seed(0)
    shrinker = Shrinker(
        model,
        AdamW(model.parameters(), lr=0.03),
        input_size=SIZE,
        budget="60%",
        steps=2,
        options=ShrinkOptions(start=0.0, end=0.5),
        probe=synthetic(999)[0],
    )
    assert shrinker.step()
    assert shrinker.last_change is not None
    assert shrinker.last_change > 0.05
