"""The learning-rate schedule, listed; the optimizer's groups; the averages against a plain loop."""

import copy
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ChainedScheduler, ExponentialLR, LinearLR, LRScheduler, MultiStepLR, StepLR

from hrnas.arch.presets import search_space
from hrnas.engine.averages import Averages
from hrnas.engine.optimization import KINDS, OptimizerOptions, learning_rate, make_optimizer, set_learning_rate
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
        ({"kind": "rmsprob"}, "optimizer.kind is unknown: 'rmsprob'. Did you mean 'rmsprop'?"),
        ({"schedule": "step"}, "optimizer.schedule is unknown: 'step'. Did you mean 'steps'?"),
        ({"kind": "rmsprop", "momentum": 1.0}, "optimizer.momentum"),
        ({"kind": "rmsprop", "alpha": -0.1}, "optimizer.alpha"),
        ({"kind": "rmsprop", "eps": 0.0}, "optimizer.eps"),
        ({"betas": (0.9, 1.0)}, "optimizer.betas is [0.9, 1.0]; two numbers in [0, 1) are needed"),
        ({"kind": "adam", "betas": (0.9,)}, "optimizer.betas is [0.9]; two numbers"),
        ({"kind": "rmsprop", "betas": (0.9, 0.99)}, "optimizer.betas is given, but rmsprop has none. Leave it out (null"
         " where a recipe sets it), or set optimizer.kind to adamw or adam."),
        ({"schedule": "steps", "decay": 1.5}, "optimizer.decay"),
        ({"schedule": "exponential", "decay_every": 0.0}, "optimizer.decay_every"),
        ({"schedule": "steps", "milestones": (0.9, 0.8)}, "optimizer.milestones"),
        ({"schedule": "steps", "milestones": (0.5, 1.0)}, "optimizer.milestones"),
        ({"schedule": "steps", "milestones": ()}, "optimizer.milestones"),
        ({"momentum": 0.9}, "optimizer.momentum is given, but adamw has none. Leave it out (null where a recipe sets"
         " it), or set optimizer.kind to rmsprop."),
        ({"kind": "adam", "alpha": 0.9}, "optimizer.alpha is given, but adam has none"),
        ({"decay": 0.5}, "but one-cycle has none. Leave it out (null where a recipe sets it), or set optimizer.schedule"
         " to steps or exponential."),
        ({"schedule": "exponential", "milestones": (0.5,)}, "or set optimizer.schedule to steps."),
        ({"schedule": "steps", "decay_every": 0.5}, "optimizer.decay_every is given, but steps has none"),
        ({"schedule": "steps", "end_division": 10.0}, "optimizer.end_division is given, but steps has none"),
    ],
)  # fmt: skip
def test_bad_options_are_refused(bad: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=re.escape(named)):
        OptimizerOptions(**bad)


def torchs(schedulers: Callable[[torch.optim.Optimizer], list[LRScheduler]], steps: int) -> list[float]:
    """Return the rates of torch's own schedulers one upon another, from 0.02 on."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.02)
    chain = ChainedScheduler(schedulers(optimizer), optimizer)
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        chain.step()
    return rates


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.3])
def test_steps_are_torchs(warmup: float) -> None:
    options = OptimizerOptions(
        schedule="steps", learning_rate=0.04, warmup=warmup, milestones=(170 / 210, 200 / 210), decay=0.2
    )
    listed = torchs(
        lambda optimizer: [
            *([LinearLR(optimizer, 1 / 25, total_iters=round(warmup * 420))] if warmup else []),
            MultiStepLR(optimizer, [340, 400], 0.2),
        ],
        420,
    )
    assert [rate(step, 420, 16, options) for step in range(420)] == pytest.approx(listed, rel=1e-9)
    assert rate(339, 420, 16, options) == pytest.approx(0.02)
    assert rate(400, 420, 16, options) == pytest.approx(0.02 * 0.04)


@pytest.mark.parametrize(
    ("steps", "period", "warmup"),
    [(700, 7, 0.0), (350, 7, 5 / 350), (100, 7, 0.0), (100, 7, 0.2), (3500, 24, 0.0), (3500, 24, 5 / 350)],
)
def test_exponential_is_torchs(steps: int, period: int, warmup: float) -> None:
    """ExponentialLR taken once a period is StepLR; a last period may be cut short."""
    options = OptimizerOptions(
        schedule="exponential", learning_rate=0.04, warmup=warmup, decay_every=period / steps, decay=0.97,
        start_division=10,
    )  # fmt: skip
    rising = round(warmup * steps)
    listed = torchs(
        lambda optimizer: [
            *([LinearLR(optimizer, 1 / 10, total_iters=rising)] if warmup else []),
            StepLR(optimizer, period, 0.97),
        ],
        steps,
    )
    assert [rate(step, steps, 16, options) for step in range(steps)] == pytest.approx(listed, rel=1e-9)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.02)
    once_a_period = ExponentialLR(optimizer, 0.97)
    for start in range(0, steps, period):
        if start >= rising:
            assert rate(start, steps, 16, options) == pytest.approx(once_a_period.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        once_a_period.step()


def test_every_schedule_has_its_own_defaults() -> None:
    """The paper's ImageNet run: times 0.97 per 2.4 of 350 epochs."""
    exponential = OptimizerOptions(schedule="exponential", warmup=5 / 350)
    assert rate(35_000 - 1, 35_000, options=exponential) == pytest.approx(0.04 * 0.97**145)  # 350 / 2.4 = 145.8
    steps = OptimizerOptions(schedule="steps", warmup=0.0)
    assert [round(rate(step, 100, options=steps), 8) for step in (0, 59, 60, 84, 85, 99)] == [
        0.04, 0.04, 0.004, 0.004, 0.0004, 0.0004,
    ]  # fmt: skip
    for options in (exponential, steps):
        assert all(0 < rate(0, length, options=options) <= 0.04 for length in (1, 2, 3))


def test_each_kind_has_its_parameters() -> None:
    model = tiny_network(0)
    adam = make_optimizer(model, OptimizerOptions(kind="adam"))
    assert isinstance(adam, torch.optim.Adam)
    assert not isinstance(adam, torch.optim.AdamW)
    assert adam.defaults["eps"] == 1e-8
    assert make_optimizer(model, OptimizerOptions(eps=1e-6)).defaults["eps"] == 1e-6
    for kind in ("adam", "adamw"):
        assert make_optimizer(model, OptimizerOptions(kind=kind)).defaults["betas"] == (0.9, 0.999)
        assert make_optimizer(model, OptimizerOptions(kind=kind, betas=(0.8, 0.99))).defaults["betas"] == (0.8, 0.99)
    rmsprop = make_optimizer(model, OptimizerOptions(kind="rmsprop", weight_decay=0.25))
    assert isinstance(rmsprop, torch.optim.RMSprop)
    given = {name: rmsprop.defaults[name] for name in ("alpha", "momentum", "eps", "centered")}
    assert given == {"alpha": 0.9, "momentum": 0.9, "eps": 1e-3, "centered": False}
    assert {group["weight_decay"] for group in rmsprop.param_groups} == {0.0, 0.25}
    own = OptimizerOptions(kind="rmsprop", alpha=0.99, momentum=0.5, eps=1e-8)
    defaults = make_optimizer(model, own).defaults
    assert (defaults["alpha"], defaults["momentum"], defaults["eps"]) == (0.99, 0.5, 1e-8)
    assert [OptimizerOptions(kind=kind).reach for kind in KINDS] == pytest.approx([1, 1, 10])
    assert own.reach == 2


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


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_holds_two_numbers_a_parameter(kind: str) -> None:
    """What costing.memory adds up."""
    model = tiny_network(0)
    optimizer = make_optimizer(model, OptimizerOptions(kind=kind))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    held = sum(value.numel() for state in optimizer.state.values() for value in state.values() if value.dim())
    assert held == 2 * sum(parameter.numel() for parameter in model.parameters())
