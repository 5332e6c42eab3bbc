"""Retiring: what leaves arrives at zero by its deadline, flat, is held there, and its cut is not felt."""

import copy
from itertools import pairwise, takewhile

import pytest
import torch
from torch import Tensor

from hrnas.arch.space import SearchSpace
from hrnas.models.network import Network
from hrnas.searching.cut import apply_plan
from hrnas.searching.plan import make_plan
from hrnas.searching.retiring import Retirement
from hrnas.searching.units import factors, importance_factors, num_units, unit_groups
from searching.networks import (
    SIZE,
    TINY_GATED,
    TINY_TRANSFORMERS,
    assert_equal_outputs,
    outputs_of,
    randomize,
    synthetic,
    tiny_network,
)

SPACES = pytest.mark.parametrize("space", [TINY_TRANSFORMERS, TINY_GATED], ids=["plain", "gated"])


def retiring(seed: int = 0, space: SearchSpace = TINY_TRANSFORMERS) -> tuple[Network, Retirement, Tensor]:
    model = tiny_network(seed, space=space)
    if space is TINY_GATED:
        randomize(model, seed)  # shifts that are not zero
    groups = unit_groups(model.architecture, SIZE)
    chosen = torch.rand(num_units(groups), generator=torch.Generator().manual_seed(seed)) < 0.3
    return model, Retirement(model, groups), chosen


def channels_of(model: Network) -> Tensor:
    groups = unit_groups(model.architecture, SIZE)
    return torch.cat([torch.full((group.count,), group.kernel_size is not None) for group in groups])


def factors_of(model: Network) -> Tensor:
    return importance_factors(factors(model, unit_groups(model.architecture, SIZE)))


def test_presences_and_factors_of_channels_fall_with_the_third_power() -> None:
    model, retirement, chosen = retiring()
    before, channels = factors_of(model), channels_of(model)
    retirement.retire(chosen, 14)
    for step in range(5, 15):  # ten steps, the deadline's included
        retirement.step(step)
        left = ((14 - step) / 10) ** 3
        assert retirement.presence[chosen].tolist() == pytest.approx([left] * int(chosen.sum()), abs=1e-6)
        fading = chosen & channels
        assert factors_of(model)[fading].tolist() == pytest.approx((before[fading] * left).tolist(), abs=1e-6)
        assert torch.equal(factors_of(model)[~fading], before[~fading])
    assert torch.equal(retirement.gone, chosen)
    assert not factors_of(model)[fading].any()


def test_what_is_at_zero_is_held_there() -> None:
    model, retirement, chosen = retiring()
    chosen &= channels_of(model)
    retirement.vanish(chosen, 3)
    for step in (4, 5):
        with torch.no_grad():
            for scale in factors(model, unit_groups(model.architecture, SIZE)):
                scale.add_(0.1)  # as the optimizer would
        retirement.step(step)
        assert not factors_of(model)[chosen].any()
    retirement.release(chosen)
    retirement.step(6)
    assert not retirement.leaving.any()
    assert bool((retirement.presence == 1).all())


def test_an_earlier_deadline_stays() -> None:
    _, retirement, chosen = retiring()
    retirement.retire(chosen, 5)
    retirement.retire(torch.ones_like(chosen), 9)
    assert set(retirement.deadline[chosen].tolist()) == {5}
    assert set(retirement.deadline[~chosen].tolist()) == {9}


@SPACES
@pytest.mark.parametrize("everything", [False, True])
def test_the_cut_at_the_deadline_is_exact(everything: bool, space: SearchSpace) -> None:
    """Channels, tokens, whole blocks and whole transformers: all at once when everything goes."""
    model, retirement, chosen = retiring(3, space)
    chosen |= everything
    retirement.retire(chosen, 4)
    for step in range(1, 5):
        retirement.step(step)
    cut = copy.deepcopy(model)
    plan = make_plan(model.architecture, SIZE, ~retirement.gone, "budget")
    apply_plan(plan, cut)
    images = synthetic(0)[0]
    for mode in (True, False):
        assert_equal_outputs(outputs_of(cut.train(mode), images), outputs_of(model.train(mode), images), 1e-5)


def test_behind_a_gate_the_shift_falls_with_the_factor_and_so_does_its_average() -> None:
    model = tiny_network(0, space=TINY_GATED)
    randomize(model, 0)
    groups = unit_groups(model.architecture, SIZE)
    chosen = torch.rand(num_units(groups), generator=torch.Generator().manual_seed(0)) < 0.3
    name = "head.widen.0.depthwise_norm.bias"
    averages = {name: torch.ones_like(model.get_parameter(name))}
    retirement = Retirement(model, groups, averages)
    assert torch.equal(retirement.fades, torch.ones_like(chosen)), "none may vanish at once"
    first = sum(group.count for group in takewhile(lambda group: group.block != "head.widen.0", groups))
    own = chosen[first : first + len(averages[name])]
    assert own.any()
    assert not own.all()
    before = model.get_parameter(name).detach().clone()
    retirement.retire(chosen, 10)
    for step in range(1, 11):
        retirement.step(step)
        left = torch.where(own, ((10 - step) / 10) ** 3, 1.0)
        torch.testing.assert_close(model.get_parameter(name).detach(), before * left)
        torch.testing.assert_close(averages[name], left)
    plain = retiring(0)[1]
    assert torch.equal(plain.fades, ~channels_of(plain._model))


@SPACES
def test_nothing_jumps_on_the_way(space: SearchSpace) -> None:
    """No step of a fade changes the output by more than a part of what the whole fade does, the last by hardly any.

    Whole blocks and transformers too: norms that would undo a common scale do not.
    """
    model, retirement, chosen = retiring(5, space)
    model.train()
    images = synthetic(0)[0]
    chosen[:] = True
    whole = outputs_of(model, images)[0]
    retirement.retire(chosen, 20)
    outputs = [whole]
    for step in range(1, 21):
        retirement.step(step)
        outputs.append(outputs_of(model, images)[0])
    total = float((outputs[-1] - whole).norm())
    moves = [float((after - before).norm()) / total for before, after in pairwise(outputs)]
    assert max(moves) < 0.5
    assert moves[-1] < 0.01


def test_keep_and_attach_follow_a_cut() -> None:
    model, retirement, chosen = retiring(1)
    half = chosen & (torch.arange(len(chosen)) % 2 == 0)
    retirement.retire(chosen & ~half, 30)
    retirement.vanish(half, 1)
    plan = make_plan(model.architecture, SIZE, ~half, "dead")
    apply_plan(plan, model)
    retirement.keep(~half)
    retirement.attach(model, unit_groups(model.architecture, SIZE))
    assert torch.equal(retirement.leaving, (chosen & ~half)[~half])
    retirement.step(2)
    shown = [module.key_bias for module in model.modules() if hasattr(module, "key_bias")]
    assert any(bias is not None for bias in shown), "tokens that fade are told to the network made anew"
