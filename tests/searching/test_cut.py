"""A cut network against the same network with the removed units' scales at zero; optimizer and averages with it."""

import copy
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from hrnas.arch.architecture import Architecture
from hrnas.arch.space import SearchSpace
from hrnas.engine.averages import Averages
from hrnas.engine.evaluation import averaged_network
from hrnas.engine.optimization import OptimizerOptions, make_optimizer
from hrnas.models.network import Backbone
from hrnas.nn.recalibration import recalibrate
from hrnas.nn.search_block import SearchBlock
from hrnas.searching.cut import apply_plan
from hrnas.searching.plan import make_plan
from hrnas.searching.units import blocks_of, factors, unit_groups
from searching.networks import (
    SIZE,
    TINY,
    TINY_GATED,
    TINY_TRANSFORMERS,
    assert_equal_outputs,
    mask,
    masked_copy,
    num_units,
    outputs_of,
    random_model,
    randomize,
    synthetic,
    task_loss,
    tiny_network,
)

WAYS = ("some", "most", "a group", "a block", "several blocks", "all tokens", "all")


def choose(architecture: Architecture, random: Random, way: str) -> Tensor:
    """Return kept, bool (U,), for one way of removing units."""
    groups = unit_groups(architecture, SIZE)
    share = {"some": 0.7, "most": 0.15}.get(way, 0.8)
    kept = torch.tensor([random.random() < share for _ in range(num_units(architecture))])
    blocks = list(blocks_of(groups))
    if way == "a group":
        index = random.randrange(len(groups))
        first = sum(group.count for group in groups[:index])
        kept[first : first + groups[index].count] = False
    elif way in ("a block", "several blocks"):
        for _, first, paths in random.sample(blocks, 1 if way == "a block" else (len(blocks) + 1) // 2):
            kept[first : first + sum(path.count for path in paths)] = False
    elif way == "all tokens":
        first = 0
        for group in groups:
            if group.kernel_size is None:
                kept[first : first + group.count] = False
            first += group.count
    elif way == "all":
        kept[:] = False
    return kept


def cut_copy(model: Backbone, kept: Tensor) -> Backbone:
    cut = copy.deepcopy(model)
    plan = make_plan(model.architecture, SIZE, kept, "dead")
    apply_plan(plan, cut)
    cut.architecture = plan.architecture
    return cut


def assert_same_statistics(cut: Backbone, masked: Backbone, kept: Tensor) -> None:
    """Compare running statistics: all as they are, the shared norms' means but for the moved constants."""
    again = cut_copy(masked, kept)
    found, expected = cut.state_dict(), again.state_dict()
    assert found.keys() == expected.keys()
    for name in found:
        if "running" in name:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-9, msg=name)
        elif "num_batches" in name:
            assert found[name] == expected[name], name


@settings(max_examples=24, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**6), way=st.sampled_from(WAYS))
def test_cut_network_equals_the_masked_one(seed: int, way: str) -> None:
    model, architecture = random_model(seed)
    kept = choose(architecture, Random(seed), way)
    images = torch.randn(3, architecture.in_channels, 11, 14, dtype=torch.float64)
    masked, cut = masked_copy(model, kept), cut_copy(model, kept)
    assert [name for name, _ in cut.named_parameters()] == [
        name for name, _ in type(model)(cut.architecture).named_parameters()
    ]
    masked.eval(), cut.eval()
    assert_equal_outputs(outputs_of(cut, images), outputs_of(masked, images), 1e-9)
    masked.train(), cut.train()
    for step in range(2):
        batch = images * (1 + step)
        assert_equal_outputs(outputs_of(cut, batch, step), outputs_of(masked, batch, step), 1e-6)
    assert_same_statistics(cut, masked, kept)
    masked.eval(), cut.eval()
    assert_equal_outputs(outputs_of(cut, images), outputs_of(masked, images), 1e-6)
    batches = [images + 1, images * 2]
    recalibrate(masked, batches)
    recalibrate(cut, batches)
    assert_equal_outputs(outputs_of(cut, images), outputs_of(masked, images), 1e-6)


SPACES = pytest.mark.parametrize("space", [TINY_TRANSFORMERS, TINY_GATED], ids=["plain", "gated"])


@SPACES
@pytest.mark.parametrize("way", WAYS)
def test_cut_equals_masked_in_single_precision(way: str, space: SearchSpace) -> None:
    model = tiny_network(3, space=space)
    randomize(model, 3)
    kept = choose(model.architecture, Random(5), way)
    masked, cut = masked_copy(model, kept), cut_copy(model, kept)
    images = synthetic(0)[0]
    for module in (masked, cut):
        module.train()
    assert_equal_outputs(outputs_of(cut, images), outputs_of(masked, images), 1e-5)
    for module in (masked, cut):
        module.eval()
    assert_equal_outputs(outputs_of(cut, images), outputs_of(masked, images), 1e-5)


def test_the_constant_of_a_swish_is_moved() -> None:
    """Without squeeze-excitation, so that the shifts stay."""
    model = tiny_network(3, space=replace(TINY, activation="swish"))
    randomize(model, 3)
    kept = choose(model.architecture, Random(5), "several blocks")
    images = synthetic(0)[0]
    masked, cut = masked_copy(model, kept).eval(), cut_copy(model, kept).eval()
    assert_equal_outputs(outputs_of(cut, images), outputs_of(masked, images), 1e-5)


def test_masking_matters_in_these_tests() -> None:
    """Without the moved constants the outputs differ much: the equality above is not for want of an effect."""
    model = tiny_network(3)
    randomize(model, 3)
    kept = choose(model.architecture, Random(5), "several blocks")
    images = synthetic(0)[0]
    masked, cut = masked_copy(model, kept).eval(), cut_copy(model, kept).eval()
    means = {name: value for name, value in model.state_dict().items() if name.endswith("project_norm.running_mean")}
    cut.load_state_dict({**cut.state_dict(), **means})
    found, expected = outputs_of(cut, images)[0], outputs_of(masked, images)[0]
    assert (found - expected).abs().max() > 0.05 * expected.abs().max()


def test_a_cut_of_a_cut_equals_one_cut() -> None:
    model = tiny_network(4)
    randomize(model, 4)
    first = choose(model.architecture, Random(1), "some")
    second = choose(model.architecture, Random(2), "a block")
    twice = cut_copy(cut_copy(model, first), second[first])
    once = cut_copy(model, first & second)
    assert twice.architecture == once.architecture
    for name, value in once.state_dict().items():
        torch.testing.assert_close(twice.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_modes_and_requires_grad_stay() -> None:
    model = tiny_network(0).train()
    blocks = [module for module in model.modules() if isinstance(module, SearchBlock)]
    blocks[0].eval()
    blocks[1].project_norm.eval()  # a frozen norm within a block in training
    blocks[1].depthwise.convs["5"].eval()
    blocks[2].expand.weight.requires_grad_(False)
    blocks[2].project_norm.requires_grad_(False)
    blocks[3].depthwise_norm.weight.requires_grad_(False)
    kept = choose(model.architecture, Random(3), "some")
    modes = {name: module.training for name, module in model.named_modules()}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    cut = cut_copy(model, kept)
    assert {name: module.training for name, module in cut.named_modules()} == modes
    assert {name for name, parameter in cut.named_parameters() if not parameter.requires_grad} == frozen
    assert all(parameter.is_leaf for parameter in cut.parameters())


def test_an_emptied_block_keeps_its_mode() -> None:
    model = tiny_network(0).train()
    model.head.block.eval()
    kept = torch.zeros(num_units(model.architecture), dtype=torch.bool)
    cut = cut_copy(model, kept)
    assert not any(module.training for module in cut.head.block.modules())
    assert all(
        module.training for name, module in cut.named_modules() if not name.startswith("head.block") and name != "head"
    )


def adamw(model: nn.Module) -> Optimizer:
    scaled = factors(model, unit_groups(model.architecture, SIZE))
    return make_optimizer(model, OptimizerOptions(weight_decay=1e-2, learning_rate=3e-3), scaled=scaled, scale=2.0)


def sgd(model: nn.Module) -> Optimizer:
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": 1e-2, "lr_scale": 1.0},
        {"params": vectors, "weight_decay": 0.0, "lr_scale": 2.0},
    ]
    return SGD(groups, lr=1e-2, momentum=0.9)


def rmsprop(model: nn.Module) -> Optimizer:
    scaled = factors(model, unit_groups(model.architecture, SIZE))
    options = OptimizerOptions(kind="rmsprop", weight_decay=1e-2, learning_rate=1e-3)
    return make_optimizer(model, options, scaled=scaled, scale=2.0)


OPTIMIZERS = pytest.mark.parametrize("make", [adamw, sgd, rmsprop])
ENTRIES = {
    adamw: {"step", "exp_avg", "exp_avg_sq"},
    sgd: {"momentum_buffer"},
    rmsprop: {"step", "square_avg", "momentum_buffer"},
}


def train(model: Backbone, optimizer: Optimizer, steps: range, kept: Tensor | None = None) -> None:
    """Train on the synthetic task; with `kept`, the scales of all other units are held at zero."""
    model.train()
    dtype = next(model.parameters()).dtype
    for step in steps:
        images, target = synthetic(step)
        optimizer.zero_grad(set_to_none=True)
        task_loss(model(images.to(dtype)), target.to(dtype)).backward()
        optimizer.step()
        if kept is not None:
            mask(model, kept)


def trained(
    make: Callable[[nn.Module], Optimizer], space: SearchSpace = TINY_TRANSFORMERS
) -> tuple[Backbone, Optimizer, Averages]:
    model = tiny_network(1, space=space).double()
    randomize(model, 1)
    optimizer = make(model)
    averages = Averages(model, 8)
    for step in range(3):
        train(model, optimizer, range(step, step + 1))
        averages.update(model)
    return model, optimizer, averages


def survivors(tensors: dict[str, Tensor], architecture: Architecture, kept: Tensor) -> dict[str, Tensor]:
    """Return what must be left of tensors shaped like parameters, by a plain reading of the layout."""
    left = dict(tensors)
    for name, first, groups in blocks_of(unit_groups(architecture, SIZE)):
        paths = [group for group in groups if group.kernel_size is not None]
        last = first + sum(path.count for path in paths)
        own, tokens = kept[first:last], kept[last : first + sum(group.count for group in groups)]
        for key in [key for key in tensors if key.startswith(f"{name}.")]:
            part = key.removeprefix(f"{name}.")
            if part.startswith("transformer."):
                place = part.split(".")[1]
                if not tokens.any():
                    del left[key]
                elif place in ("projector", "token_norm", "queries") and tensors[key].dim():
                    left[key] = tensors[key][tokens]
                elif place == "inverse_projector":
                    left[key] = tensors[key][:, tokens]
                continue
            if not paths:
                continue
            if part.split(".")[0] in ("expand", "expand_norm", "depthwise_norm") or part.startswith("gate.excite."):
                left[key] = tensors[key][own] if tensors[key].dim() else tensors[key]
            elif part.startswith("project.") or part == "gate.squeeze.weight":
                left[key] = tensors[key][:, own]
            if not own.any() and not part.startswith(("project_norm.", "skip.")):
                del left[key]
        start = 0
        for path in paths:
            key = f"{name}.depthwise.convs.{path.kernel_size}.weight"
            part = own[start : start + path.count]
            start += path.count
            if key in left:
                left[key] = tensors[key][part]
                if not part.any():
                    del left[key]
    return left


def states(model: nn.Module, optimizer: Optimizer, entry: str) -> dict[str, Tensor]:
    return {
        name: optimizer.state[parameter][entry].clone()
        for name, parameter in model.named_parameters()
        if entry in optimizer.state.get(parameter, {})
    }


WAYS_OF_SPACES = pytest.mark.parametrize(
    ("way", "space"),
    [*((way, TINY_TRANSFORMERS) for way in WAYS), ("some", TINY_GATED), ("several blocks", TINY_GATED)],
    ids=[*WAYS, "some gated", "several blocks gated"],
)


@OPTIMIZERS
@WAYS_OF_SPACES
def test_optimizer_follows_the_cut(make: Callable[[nn.Module], Optimizer], way: str, space: SearchSpace) -> None:
    model, optimizer, _ = trained(make, space)
    kept = choose(model.architecture, Random(7), way)
    entries = {entry for state in optimizer.state.values() for entry in state}
    assert entries == ENTRIES[make]
    before = {entry: states(model, optimizer, entry) for entry in entries}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    options = {
        names[id(parameter)]: {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert len({(group["weight_decay"], group["lr_scale"]) for group in options.values()}) >= 2
    values = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    plan = make_plan(model.architecture, SIZE, kept, "dead")
    whole = model.architecture
    apply_plan(plan, model, optimizer)
    model.architecture = plan.architecture

    parameters = dict(model.named_parameters())
    for name, value in survivors(values, whole, kept).items():
        if name in parameters:  # the scale of an emptied block's norm is a buffer
            assert torch.equal(parameters[name], value), name
    for entry in entries - {"step"}:
        expected = survivors(before[entry], whole, kept)
        found = states(model, optimizer, entry)
        assert found.keys() == parameters.keys()
        for name in found:
            assert torch.equal(found[name], expected[name]), (entry, name)
            assert found[name].stride() == parameters[name].stride() or found[name].numel() == 0, (entry, name)
    if "step" in entries:
        assert all(float(step) == 3 for step in states(model, optimizer, "step").values())

    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(held) == len({id(parameter) for parameter in held}) == len(parameters)
    assert {id(parameter) for parameter in held} == {id(parameter) for parameter in parameters.values()}
    assert {id(parameter) for parameter in optimizer.state} == {id(parameter) for parameter in held}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = next(name for name, value in parameters.items() if value is parameter)
            assert {key: value for key, value in group.items() if key != "params"} == options[name], name
    train(model, optimizer, range(3, 5))
    for name, parameter in model.named_parameters():
        assert bool(torch.isfinite(parameter).all()), name
    moved = survivors(values, whole, kept)
    assert not torch.equal(model.get_submodule("head.output").weight, moved["head.output.weight"])


@OPTIMIZERS
@pytest.mark.parametrize(
    ("way", "space"),
    [("some", TINY_TRANSFORMERS), ("a group", TINY_TRANSFORMERS), ("a block", TINY_TRANSFORMERS), ("some", TINY_GATED)],
    ids=["some", "a group", "a block", "some gated"],
)
def test_training_after_a_cut_equals_training_masked(
    make: Callable[[nn.Module], Optimizer], way: str, space: SearchSpace
) -> None:
    (masked, masked_optimizer, _), (cut, optimizer, _) = trained(make, space), trained(make, space)
    kept = choose(cut.architecture, Random(11), way)
    mask(masked, kept)
    plan = make_plan(cut.architecture, SIZE, kept, "dead")
    apply_plan(plan, cut, optimizer)
    cut.architecture = plan.architecture
    train(cut, optimizer, range(3, 8))
    train(masked, masked_optimizer, range(3, 8), kept)
    apply_plan(plan, masked, masked_optimizer)
    expected = dict(masked.named_parameters())
    for name, parameter in cut.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-4, atol=1e-6, msg=name)
    for entry in ENTRIES[make] - {"step"}:
        wanted = states(masked, masked_optimizer, entry)
        for name, value in states(cut, optimizer, entry).items():
            scale = float(wanted[name].abs().max())
            torch.testing.assert_close(value, wanted[name], rtol=1e-3, atol=1e-4 * scale + 1e-12, msg=name)


@WAYS_OF_SPACES
def test_averages_follow_the_cut(way: str, space: SearchSpace) -> None:
    model, _, averages = trained(adamw, space)
    model.float()
    averages.tensors = {name: value.float() for name, value in averages.tensors.items()}
    kept = choose(model.architecture, Random(13), way)
    before = {name: value.clone() for name, value in averages.tensors.items()}
    masked = tiny_network(0, space=space)
    averages.copy_to(masked)
    mask(masked, kept)
    whole = model.architecture
    plan = make_plan(whole, SIZE, kept, "dead")
    apply_plan(plan, model, None, averages.tensors)
    model.architecture = plan.architecture

    expected = survivors(before, whole, kept)
    floating = {name for name, value in model.state_dict().items() if value.is_floating_point()}
    assert averages.tensors.keys() == floating == expected.keys()
    changed = {f"{name}.project_norm.running_mean" for name in plan.blocks} if not space.squeeze_ratio else set()
    for name, value in averages.tensors.items():
        if name not in changed:
            assert torch.equal(value, expected[name]), name

    assert not changed or any(not torch.equal(averages.tensors[name], expected[name]) for name in changed)

    images = synthetic(0)[0]
    found = averaged_network(model, averages, [])
    assert_equal_outputs(outputs_of(found, images), outputs_of(masked.eval(), images), 1e-5)
    averages.update(model)


def test_dead_units_without_shift_move_nothing() -> None:
    model = tiny_network(0)
    before = {name: value.clone() for name, value in model.state_dict().items() if name.endswith("running_mean")}
    cut = cut_copy(model, choose(model.architecture, Random(1), "some"))
    for name, value in cut.state_dict().items():
        if name.endswith("project_norm.running_mean"):
            assert torch.equal(value, before[name])
