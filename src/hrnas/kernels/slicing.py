"""How the hidden channels of a block are divided for the CPU kernels.

A slice is channels of one kernel path, few enough to stay in the cache; a bundle is slices that go through each
operation together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from torch import Tensor

_SLICE_BYTES: Final = 4 << 20
"""Of a slice, about; but it has 64 channels where a kernel path has so many."""
EXPANDED_AGAIN: Final = 128
"""Input channels up to which what the expansion puts out is computed again for the backward pass, not kept.

Such narrow products take no longer than to write a map to memory and to read it.
"""
_BUNDLE_BYTES: Final = 16 << 20
"""Slices up to here go through each operation together, so that there is work for many threads."""


@dataclass(frozen=True)
class Slice:
    """first, last: of the hidden channels; kernel: place of the kernel path, in which it begins at `offset`."""

    first: int
    last: int
    kernel: int
    offset: int

    def of(self, weights: Sequence[Tensor]) -> Tensor:
        """Return its depthwise weights."""
        return weights[self.kernel][self.offset : self.offset + self.last - self.first]


@lru_cache(maxsize=4096)
def bundles(widths: tuple[int, ...], bytes_of_channel: int) -> tuple[tuple[Slice, ...], ...]:
    """Return the slices of the hidden channels, in bundles; widths: of the kernel paths."""
    widest = max(64, _SLICE_BYTES // bytes_of_channel // 64 * 64)
    found: list[list[Slice]] = [[]]
    first = 0
    for kernel, width in enumerate(widths):
        for offset in range(0, width, widest):
            last = first + min(widest, width - offset)
            if found[-1] and (last - found[-1][0].first) * bytes_of_channel > _BUNDLE_BYTES:
                found.append([])
            found[-1].append(Slice(first, last, kernel, offset))
            first = last
    return tuple(tuple(bundle) for bundle in found if bundle)
