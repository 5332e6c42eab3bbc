"""Search units: their order is that of the importance factors, and the network loses exactly their MACs."""

from dataclasses import replace
from random import Random

import pytest
import torch

from architectures import random_architecture
from hrnas.arch.architecture import Architecture
from hrnas.costing.counted import count
from hrnas.models.network import build_model
from hrnas.nn.search_block import SearchBlock
from hrnas.searching.cut import apply_plan
from hrnas.searching.plan import make_plan
from hrnas.searching.units import UnitGroup, blocks_of, factors, importance_factors, num_units, unit_costs, unit_groups
from searching.networks import SIZE, TINY_TRANSFORMERS


def group(block: str, size: int | None, count: int) -> UnitGroup:
    return UnitGroup(block=block, kernel_size=size, count=count, macs=(size or 9) * 10, params=size or 9)


def counted(architecture: Architecture) -> int:
    with torch.device("meta"):
        model = build_model(architecture).eval()
    return count(model, SIZE, architecture.in_channels).macs


def test_blocks_of_joins_the_paths_of_a_block() -> None:
    groups = (group("a", 3, 2), group("a", 5, 3), group("b", 3, 4), group("c", 7, 1), group("c", None, 2))
    assert [(name, first, [path.kernel_size for path in paths]) for name, first, paths in blocks_of(groups)] == [
        ("a", 0, [3, 5]),
        ("b", 5, [3]),
        ("c", 9, [7, None]),
    ]
    assert list(blocks_of(())) == []
    assert unit_costs(groups)["macs"].tolist() == [30] * 2 + [50] * 3 + [30] * 4 + [70] + [90] * 2
    assert unit_costs(groups)["params"].tolist() == [3] * 2 + [5] * 3 + [3] * 4 + [7] + [9] * 2
    assert {len(costs) for costs in unit_costs(()).values()} == {0}
    assert num_units(groups) == 12


@pytest.mark.parametrize("seed", range(8))
def test_units_stand_in_the_order_of_the_networks_norms(seed: int) -> None:
    architecture = random_architecture(Random(seed))
    model = build_model(architecture)
    expected = []
    for name, block in architecture.blocks():
        module = model.get_submodule(name)
        assert isinstance(module, SearchBlock)
        if block.kernels:
            with torch.no_grad():
                module.depthwise_norm.weight.normal_()
            expected.append(module.depthwise_norm.weight)
        if block.tokens:
            with torch.no_grad():
                module.transformer.token_norm.weight.normal_()
            expected.append(module.transformer.token_norm.weight)
    groups = unit_groups(architecture, SIZE)
    scales = factors(model, groups)
    assert len(scales) == len(expected)
    assert all(scale is wanted for scale, wanted in zip(scales, expected, strict=True))
    factor = importance_factors(scales)
    assert len(factor) == num_units(groups) == len(unit_costs(groups)["macs"])
    assert not factor.requires_grad
    if expected:
        assert torch.equal(factor, torch.cat(expected).abs())
        assert bool((torch.cat(expected) < 0).any())


def test_no_units_no_factors() -> None:
    assert importance_factors([]).shape == (0,)


@pytest.mark.parametrize("seed", range(3))
def test_removing_a_unit_lowers_the_independent_count_by_its_macs(seed: int) -> None:
    random = Random(100 + seed)
    architecture = random_architecture(random, max_width=5)
    whole = counted(architecture)
    groups = unit_groups(architecture, SIZE)
    macs = unit_costs(groups)["macs"]
    channels = [index for index, group in enumerate(_group_of_each(groups)) if group.kernel_size is not None]
    for index in random.sample(channels, min(2, len(channels))):
        kept = torch.ones(len(macs), dtype=torch.bool)
        kept[index] = False
        assert whole - counted(make_plan(architecture, SIZE, kept, "dead").architecture) == int(macs[index])


def _group_of_each(groups: tuple[UnitGroup, ...]) -> list[UnitGroup]:
    return [group for group in groups for _ in range(group.count)]


def test_a_tokens_cost_is_the_derivative_of_the_counted_macs() -> None:
    """MACs are a quadratic in the number of tokens, whose derivative is the mean of the two differences beside it."""

    def macs(tokens: int) -> int:
        return counted(replace(TINY_TRANSFORMERS, tokens=tokens).supernet(3))

    groups = unit_groups(TINY_TRANSFORMERS.supernet(3), SIZE)
    derivative = sum(group.macs for group in groups if group.kernel_size is None)
    assert derivative == (macs(6) - macs(4)) / 2
    assert derivative != macs(6) - macs(5)


def test_tokens_share_all_parameters_of_their_transformer() -> None:
    architecture = TINY_TRANSFORMERS.supernet(3)
    bare = replace(TINY_TRANSFORMERS, transformers="none").supernet(3)
    total = sum(p.numel() for p in build_model(architecture).parameters())
    own = total - sum(p.numel() for p in build_model(bare).parameters())
    tokens = [group for group in unit_groups(architecture, SIZE) if group.kernel_size is None]
    shares = sum(group.count * group.params for group in tokens)
    assert own - sum(group.count for group in tokens) < shares <= own


@pytest.mark.parametrize("seed", [1, 2])
def test_a_unit_is_the_channel_its_place_in_the_norm_says(seed: int) -> None:
    """Cut single units of a network whose norms hold the units' numbers, and see which number is gone."""
    architecture = random_architecture(Random(seed), min_width=3)
    total = num_units(unit_groups(architecture, SIZE))
    assert total
    for index in Random(seed).sample(range(total), min(5, total)):
        model = build_model(architecture)
        scales = factors(model, unit_groups(architecture, SIZE))
        with torch.no_grad():
            for scale, numbers in zip(scales, torch.arange(total).split([len(s) for s in scales]), strict=True):
                scale.copy_(numbers)
        kept = torch.ones(total, dtype=torch.bool)
        kept[index] = False
        plan = make_plan(architecture, SIZE, kept, "dead")
        apply_plan(plan, model)
        left = importance_factors(factors(model, unit_groups(plan.architecture, SIZE)))
        assert left.tolist() == [number for number in range(total) if number != index]
