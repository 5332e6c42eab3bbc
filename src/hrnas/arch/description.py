"""A network as a table for people: every search block with what is left of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from hrnas.arch.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class BlockRow:
    """One line of the description.

    widths: hidden channels by kernel size, in the order of the supernet's kernels; 0 where a path is gone.
    squeeze: hidden width of the squeeze-excitation.
    """

    name: str
    in_channels: int
    out_channels: int
    stride: int
    widths: Mapping[int, int]
    tokens: int
    squeeze: int


def describe(architecture: Architecture) -> list[BlockRow]:
    """Return one row for every search block, in the network's order."""
    sizes = sorted({size for _, block in architecture.blocks() for size, _ in block.kernels})
    return [
        BlockRow(
            name=name,
            in_channels=block.in_channels,
            out_channels=block.out_channels,
            stride=block.stride,
            widths={size: dict(block.kernels).get(size, 0) for size in sizes},
            tokens=block.tokens,
            squeeze=block.squeeze,
        )
        for name, block in architecture.blocks()
    ]
