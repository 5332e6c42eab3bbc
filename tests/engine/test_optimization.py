"""The learning-rate schedule, listed; the optimizer's groups; the averages against a plain loop."""

import copy
import math

import pytest
import torch
from torch import nn

from hrnas.arch.presets import search_space
from hrnas.engine.averages import Averages
from hrnas.engine.optimization import OptimizerOptions, learning_rate, make_optimizer, set_learning_rate
from hrnas.errors import InputError
from hrnas.models.network import build_model
from hrnas.searching.cut import apply_plan
from hrnas.searching.plan import make_plan
from hrnas.searching.units import num_units, unit_groups
from searching.networks import SIZE, tiny_network

OPTIONS = OptimizerOptions(learning_rate=0.04, reference_batch=32, warmup=0.1)


def rate(step: int, steps: int = 101, batch: int = 32, options: OptimizerOptions = OPTIONS) -> float:
    return learning_rate(options, step=step, steps=steps, batch_size=batch)


def test_the_schedule_has_the_listed_values() -> None:
    peak, first, last = 0.04, 0.04 / 25, 0.04 / 25 / 1e4
    listed = {0: first, 5: (peak + first) / 2, 10: peak, 55: (peak + last) / 2, 100: last}
    assert {step: rate(step) for step in listed} == pytest.approx(listed)
    quarter = last + (peak - last) * (1 + math.cos(math.pi / 4)) / 2
    assert rate(10 + 90 // 4 * 1) == pytest.approx(quarter, rel=0.02)
    rising, falling = [rate(step) for step in range(11)], [rate(step) for step in range(10, 101)]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert len(set(falling)) == len(falling)


def test_the_schedule_is_torchs_one_cycle() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.04, total_steps=71, pct_start=0.2, div_factor=25, final_div_factor=1e4
    )
    options = OptimizerOptions(learning_rate=0.04, warmup=(0.2 * 71 - 1) / 70)
    for step in range(71):
        assert rate(step, steps=71, options=options) == pytest.approx(cycle.get_last_lr()[0], rel=1e-6, abs=1e-12)
        optimizer.step()
        if step < 70:
            cycle.step()


def test_the_rate_scales_linearly_with_the_batch() -> None:
    for step in (0, 7, 10, 60, 100):
        assert rate(step, batch=8) == pytest.approx(rate(step) / 4)
        assert rate(step, batch=64) == pytest.approx(rate(step) * 2)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_runs_and_no_warmup(steps: int) -> None:
    without = OptimizerOptions(warmup=0.0)
    assert rate(0, steps=steps, options=without) == pytest.approx(0.04)
    assert all(0 < rate(step, steps=steps) <= 0.04 for step in range(steps))


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"learning_rate": 0.0}, "optimizer.learning_rate"),
        ({"reference_batch": 0}, "optimizer.reference_batch"),
        ({"start_division": -1.0}, "optimizer.start_division"),
        ({"end_division": 0.0}, "optimizer.end_division"),
        ({"weight_decay": -1e-5}, "optimizer.weight_decay"),
        ({"warmup": 1.0}, "optimizer.warmup"),
        ({"warmup": -0.1}, "optimizer.warmup"),
    ],
)
def test_bad_options_are_refused(bad: dict[str, float], named: str) -> None:
    with pytest.raises(InputError, match=named):
        OptimizerOptions(**bad)


def test_groups_decay_only_weights_of_convolutions_and_linears() -> None:
    model = build_model(search_space("hr-small", "residual").supernet(3))
    scaled = [module.depthwise_norm.weight for module in model.modules() if hasattr(module, "depthwise_norm")]
    optimizer = make_optimizer(model, OptimizerOptions(weight_decay=0.5), scaled=scaled, scale=3.0)
    assert isinstance(optimizer, torch.optim.AdamW)
    found = {id(p): (g["weight_decay"], g["lr_scale"]) for g in optimizer.param_groups for p in g["params"]}
    assert len(found) == sum(len(group["params"]) for group in optimizer.param_groups)
    decayed = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
        for name, parameter in module.named_parameters(recurse=False)
        if name == "weight"
    }
    fast = {id(parameter) for parameter in scaled}
    assert decayed
    assert fast
    for name, parameter in model.named_parameters():
        expected = (0.5 if id(parameter) in decayed else 0.0, 3.0 if id(parameter) in fast else 1.0)
        assert found[id(parameter)] == expected, name
    set_learning_rate(optimizer, 0.25)
    assert {(group["lr_scale"], group["lr"]) for group in optimizer.param_groups} == {(1.0, 0.25), (3.0, 0.75)}


def test_one_group_a_kind() -> None:
    model = tiny_network(0)
    optimizer = make_optimizer(model, OptimizerOptions(weight_decay=0.0))
    assert len(optimizer.param_groups) == 1
    plain = torch.optim.SGD(model.parameters(), lr=1)
    set_learning_rate(plain, 0.5)  # groups of others have no scale
    assert plain.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("batch", [4096, 8, 2 * 10**7])
def test_averages_against_a_plain_loop(batch: int) -> None:
    model = tiny_network(0)
    averages = Averages(model, batch)
    expected = {name: value.double().clone() for name, value in model.state_dict().items() if value.is_floating_point()}
    assert averages.tensors.keys() == expected.keys()
    assert any(name.endswith("running_var") for name in expected)
    generator = torch.Generator().manual_seed(0)
    decays = []
    for n in range(1, 26):
        with torch.no_grad():
            for value in model.state_dict().values():
                if value.is_floating_point():
                    value.add_(torch.randn(value.shape, generator=generator))
        averages.update(model)
        decays.append(min(0.9999 ** (batch / 4096), (1 + n) / (10 + n)))
        for name, value in model.state_dict().items():
            if name in expected:
                expected[name] = decays[-1] * expected[name] + (1 - decays[-1]) * value.double()
    assert averages.num_updates == 25
    assert decays[0] == 2 / 11
    assert (decays[-1] < 26 / 35) == (batch == 2 * 10**7), "the cap is reached by the huge batch only"
    for name, value in averages.tensors.items():
        torch.testing.assert_close(value, expected[name].float(), rtol=1e-4, atol=1e-5, msg=name)


def test_averages_are_copies_and_are_put_back() -> None:
    model, other = tiny_network(0), tiny_network(1)
    averages = Averages(model, 8)
    before = averages.tensors["head.output.bias"].clone()
    with torch.no_grad():
        model.head.output.bias.fill_(5)
    assert torch.equal(averages.tensors["head.output.bias"], before)
    averages.copy_to(other)
    for name, value in other.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, averages.tensors[name]), name
    with torch.no_grad():
        other.head.output.bias.fill_(7)
    assert torch.equal(averages.tensors["head.output.bias"], before)


def test_averages_follow_a_cut_and_another_network() -> None:
    """The tensors that a cut has made anew are averaged, not those of before; so are those of another network."""
    model = tiny_network(0)
    averages = Averages(model, 8)
    averages.update(model)
    groups = unit_groups(model.architecture, SIZE)
    plan = make_plan(model.architecture, SIZE, torch.arange(num_units(groups)) % 2 == 0, "budget")
    apply_plan(plan, model, None, averages.tensors)
    for network in (model, copy.deepcopy(model)):
        before = {name: value.clone() for name, value in averages.tensors.items()}
        with torch.no_grad():
            for value in network.state_dict().values():
                value.add_(1)
        averages.update(network)
        decay = (1 + averages.num_updates) / (10 + averages.num_updates)
        for name, value in network.state_dict().items():
            if name in before:
                torch.testing.assert_close(averages.tensors[name], before[name].lerp(value, 1 - decay), msg=name)
