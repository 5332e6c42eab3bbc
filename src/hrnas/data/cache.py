"""Decoded samples kept in memory that all processes of a run share, up to a limit.

The memory is mapped before the processes that read are forked, so what one of them decodes the others have too, and so
has every validation after the first. Samples are drawn in random order, epoch after epoch: those that came first stay,
for no other choice is hit more often. What does not fit is decoded anew each time.

H height, W width of an image as read.
"""

import mmap
import multiprocessing
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hrnas.data.opening import SegmentationSet
from hrnas.data.pictures import RGB
from hrnas.structures import Sample

_FIELDS: Final = 3
"""Of a sample's entry in the table: where it starts (0: not kept), H, W."""


class SampleMemory:
    """Memory of a fixed size for samples of several sets. limit: bytes, 1 at least; pages exist once written to."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = np.frombuffer(mmap.mmap(-1, limit), np.uint8)
        # Shared as well: the first byte that is free.
        self.used = np.frombuffer(mmap.mmap(-1, 8), np.int64)
        self.lock = multiprocessing.Lock()
        self.used[0] = 1  # so that no sample starts at 0


class CachedSet:
    """A set that decodes each sample once, as long as the memory lasts; the same samples as without, read-only.

    In a process that was not forked from this one the memory is missing, and the set decodes as without.
    """

    def __init__(self, dataset: SegmentationSet, memory: SampleMemory) -> None:
        self._dataset, self._memory = dataset, memory
        self._names = [""] * len(dataset)
        self._table = np.frombuffer(mmap.mmap(-1, 8 * _FIELDS * len(dataset)), np.int64).reshape(-1, _FIELDS)
