"""Search units: their order is that of the importance factors, and the network loses exactly their MACs."""

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
from hrnas.searching.units import UnitGroup, blocks_of, factors, importance_factors, unit_groups, unit_macs
from searching.networks import SIZE, num_units


def group(block: str, size: int, channels: int) -> UnitGroup:
    return UnitGroup(block=block, kernel_size=size, channels=channels, macs=size * 10)


def counted(architecture: Architecture) -> int:
    with torch.device("meta"):
        model = build_model(architecture).eval()
    return count(model, SIZE, architecture.in_channels).macs


def test_blocks_of_joins_the_paths_of_a_block() -> None:
    groups = (group("a", 3, 2), group("a", 5, 3), group("b", 3, 4), group("c", 3, 1), group("c", 7, 1))
    assert [(name, first, [path.kernel_size for path in paths]) for name, first, paths in blocks_of(groups)] == [
        ("a", 0, [3, 5]),
        ("b", 5, [3]),
        ("c", 9, [3, 7]),
    ]
    assert list(blocks_of(())) == []
    assert unit_macs(groups).tolist() == [30] * 2 + [50] * 3 + [30] * 4 + [30] + [70]
    assert unit_macs(()).shape == (0,)


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
    groups = unit_groups(architecture, SIZE)
    scales = factors(model, groups)
    assert len(scales) == len(expected)
    assert all(scale is wanted for scale, wanted in zip(scales, expected, strict=True))
    factor = importance_factors(scales)
    assert factor.shape == unit_macs(groups).shape
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
    macs = unit_macs(unit_groups(architecture, SIZE))
    for index in random.sample(range(len(macs)), min(2, len(macs))):
        kept = torch.ones(len(macs), dtype=torch.bool)
        kept[index] = False
        assert whole - counted(make_plan(architecture, SIZE, kept, "dead").architecture) == int(macs[index])


@pytest.mark.parametrize("seed", [1, 2])
def test_a_unit_is_the_channel_its_place_in_the_norm_says(seed: int) -> None:
    """Cut single units of a network whose norms hold the units' numbers, and see which number is gone."""
    architecture = random_architecture(Random(seed), min_width=3)
    total = num_units(architecture)
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
