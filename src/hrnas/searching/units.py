"""Search units: what a search may remove, what each costs, and how important each is (method: The search).

U number of units. A unit is one hidden channel of a kernel path, or one token of a transformer. Units stand in the
order of the network's blocks; within a block the channels, by kernel size, then the tokens. The channels are in the
order of `depthwise_norm`, the tokens in that of `transformer.token_norm`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hrnas.arch.architecture import Architecture
from hrnas.costing.analytic import Size, channel_macs, channel_params, place_blocks, token_macs, transformer_params


@dataclass(frozen=True, kw_only=True)
class UnitGroup:
    """The units of one kernel path, or of one transformer.

    block: name of the search block; kernel_size: of the path, None for tokens.
    count: number of units.
    macs: MACs that each costs at the real input size. For tokens the derivative at their present number: all of them
    together cost less than count * macs.
    params: parameters of each; with a block's last channel a few more go. For tokens their share of the transformer's,
    rounded down: most of those do not depend on the tokens, and go with the last one.
    """

    block: str
    kernel_size: int | None
    count: int
    macs: int
    params: int


def unit_groups(architecture: Architecture, input_size: Size) -> tuple[UnitGroup, ...]:
    """Return the kernel paths and transformers of a network, in the order of its units."""
    width = architecture.token_size**2
    groups = []
    for placed in place_blocks(architecture, input_size):
        block = placed.block
        groups += [
            UnitGroup(
                block=placed.name,
                kernel_size=size,
                count=channels,
                macs=channel_macs(placed, size),
                params=channel_params(block, size),
            )
            for size, channels in block.kernels
        ]
        if block.tokens:
            macs = token_macs(block, width)
            params = transformer_params(block.in_channels, block.out_channels, block.tokens, width) // block.tokens
            groups.append(UnitGroup(block=placed.name, kernel_size=None, count=block.tokens, macs=macs, params=params))
    return tuple(groups)


def num_units(groups: tuple[UnitGroup, ...]) -> int:
    """Return U."""
    return sum(group.count for group in groups)


def unit_costs(groups: tuple[UnitGroup, ...]) -> dict[str, Tensor]:
    """Return "macs" and "params" of every unit, int64 (U,) each."""
    counts = torch.tensor([group.count for group in groups], dtype=torch.int64)

    def each(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64).repeat_interleave(counts)

    return {"macs": each([group.macs for group in groups]), "params": each([group.params for group in groups])}


def blocks_of(groups: tuple[UnitGroup, ...]) -> Iterator[tuple[str, int, list[UnitGroup]]]:
    """Yield (block name, index of its first unit, its groups) for every block that has units."""
    first = start = 0
    own: list[UnitGroup] = []
    for group in groups:
        if own and own[0].block != group.block:
            yield own[0].block, first, own
            first, own = start, []
        own.append(group)
        start += group.count
    if own:
        yield own[0].block, first, own


def factors(model: nn.Module, groups: tuple[UnitGroup, ...]) -> list[nn.Parameter]:
    """Return the parameters whose absolute values are the importance factors, in the units' order.

    One for the channels of a block, one for its tokens.
    """
    scales = []
    for name, _, own in blocks_of(groups):
        block = model.get_submodule(name)
        if own[0].kernel_size is not None:
            scales.append(block.get_parameter("depthwise_norm.weight"))
        if own[-1].kernel_size is None:
            scales.append(block.get_parameter("transformer.token_norm.weight"))
    return scales


def importance_factors(scales: list[nn.Parameter]) -> Tensor:
    """Return the importance factor of every unit, float (U,), detached: its absolute batch-norm scale."""
    if not scales:
        return torch.zeros(0)
    return torch.cat(tuple(scales)).detach().abs()
