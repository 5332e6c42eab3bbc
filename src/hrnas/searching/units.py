"""Search units: what a search may remove, what each costs, and how important each is (method: The search).

U number of units. A unit here is one hidden channel of one kernel path; units stand in the order of the network's
blocks, within a block by kernel size, within a kernel path by channel. That is the order of `depthwise_norm`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hrnas.arch.architecture import Architecture
from hrnas.costing.analytic import Size, channel_macs, place_blocks


@dataclass(frozen=True, kw_only=True)
class UnitGroup:
    """The units of one kernel path.

    block: name of the search block; kernel_size: of the path.
    channels: number of units; macs: MACs the network loses with each, at the real input size.
    """

    block: str
    kernel_size: int
    channels: int
    macs: int


def unit_groups(architecture: Architecture, input_size: Size) -> tuple[UnitGroup, ...]:
    """Return the kernel paths of a network, in the order of its units. Their costs do not depend on each other."""
    return tuple(
        UnitGroup(block=placed.name, kernel_size=size, channels=channels, macs=channel_macs(placed, size))
        for placed in place_blocks(architecture, input_size)
        for size, channels in placed.block.kernels
    )


def unit_macs(groups: tuple[UnitGroup, ...]) -> Tensor:
    """Return the MACs of every unit, int64 (U,)."""
    counts = torch.tensor([group.channels for group in groups], dtype=torch.int64)
    return torch.tensor([group.macs for group in groups], dtype=torch.int64).repeat_interleave(counts)


def blocks_of(groups: tuple[UnitGroup, ...]) -> Iterator[tuple[str, int, list[UnitGroup]]]:
    """Yield (block name, index of its first unit, its kernel paths) for every block that has units."""
    first = start = 0
    paths: list[UnitGroup] = []
    for group in groups:
        if paths and paths[0].block != group.block:
            yield paths[0].block, first, paths
            first, paths = start, []
        paths.append(group)
        start += group.channels
    if paths:
        yield paths[0].block, first, paths


def factors(model: nn.Module, groups: tuple[UnitGroup, ...]) -> list[nn.Parameter]:
    """Return the parameters whose absolute values are the importance factors, a block each, in the units' order."""
    norms = (model.get_submodule(f"{name}.depthwise_norm") for name, _, _ in blocks_of(groups))
    return [norm.weight for norm in norms if isinstance(norm.weight, nn.Parameter)]


def importance_factors(scales: list[nn.Parameter]) -> Tensor:
    """Return the importance factor of every unit, float (U,), detached: its absolute batch-norm scale."""
    if not scales:
        return torch.zeros(0)
    return torch.cat([scale.detach().abs() for scale in scales])
