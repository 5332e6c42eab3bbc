"""Decoded samples kept in memory that a process shares with those that read for it, up to a limit.

The memory is mapped before the processes that read are forked: what one of them has decoded the others find there, and
so does every validation after the first. Training draws samples in random order, epoch after epoch, so no choice of
which to keep is hit more often than another: those that came first stay. What does not fit is decoded each time.
"""

import mmap
import multiprocessing
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from hrnas.data.opening import DataSet
from hrnas.errors import InputError
from hrnas.structures import Sample

_FIELDS: Final = 3
"""Of a sample's entry in the table: where it ends (0: it is not kept), bytes of its arrays, bytes of all else."""
_PATIENCE: Final = 1.0
"""Seconds to wait for the others; a process that was killed with the lock must not stop them for good."""


class SampleMemory:
    """Memory for the samples of one or more sets. limit: bytes, at least 1; it takes room as it fills.

    Raises InputError where the system does not give so much.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        try:
            self.content = np.frombuffer(mmap.mmap(-1, limit), np.uint8)
        except (OSError, OverflowError):
            raise InputError(
                f"cache is {limit:,} bytes, more than this machine gives; give less, or 0 for none, with --cache."
            ) from None
        self._used = np.frombuffer(mmap.mmap(-1, 8), np.int64)
        self._lock = multiprocessing.Lock()

    @property
    def used(self) -> int:
        """Bytes in use, of all processes together."""
        return int(self._used[0])

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Give whether the memory is this process's alone for now."""
        is_ours = self._lock.acquire(timeout=_PATIENCE)
        try:
            yield is_ours
        finally:
            if is_ours:
                self._lock.release()

    def put(self, parts: list[bytes]) -> int:
        """Append the parts and return where they end; 0 where they do not fit. Only for the process that has the lock.

        What is half put, by a process that was killed, is overwritten by the next.
        """
        start, length = self.used, sum(map(len, parts))
        if start + length > self.limit:
            return 0
        self.content[start : start + length] = np.frombuffer(b"".join(parts), np.uint8)
        self._used[0] = start + length
        return start + length


class CachedSet:
    """A set that decodes a sample once while the memory lasts. Its samples are those of the set itself; read-only."""

    def __init__(self, dataset: DataSet, memory: SampleMemory) -> None:
        self._dataset, self._memory = dataset, memory
        self._table = np.frombuffer(mmap.mmap(-1, 8 * _FIELDS * len(dataset)), np.int64).reshape(-1, _FIELDS)

    def __reduce__(self) -> tuple[Any, ...]:
        """A process that was not forked from this one has no share in the memory: it gets the set itself."""
        return _itself, (self._dataset,)

    def __getattr__(self, name: str) -> Any:
        """Whatever else the set knows: names, pictures, a skeleton."""
        return getattr(self._dataset, name)

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, index: int) -> Sample[Any]:
        """Return sample `index`, from memory if it is there; its arrays are then views of the memory."""
        with self._memory.locked() as is_ours:
            end, of_arrays, of_rest = self._table[index].tolist() if is_ours else [0] * _FIELDS
        if end:
            kept = self._memory.content[end - of_rest - of_arrays : end]
            kept.flags.writeable = False
            return _unpacked(kept[:of_arrays], kept[of_arrays:].tobytes())
        sample = self._dataset.read(index)
        self._keep(index, sample)
        return sample

    def _keep(self, index: int, sample: Sample[Any]) -> None:
        arrays, rest = _packed(sample)
        with self._memory.locked() as is_ours:
            # Another process may have been faster.
            if is_ours and not self._table[index, 0] and (end := self._memory.put([*arrays, rest])):
                self._table[index] = (end, sum(map(len, arrays)), len(rest))


def _itself(dataset: DataSet) -> DataSet:
    return dataset


def _packed(sample: Sample[Any]) -> tuple[list[bytes], bytes]:
    """Return the bytes of a sample's arrays, and all else, which is small. Within this machine's memory alone."""
    buffers: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(sample, protocol=5, buffer_callback=buffers.append)
    arrays = [buffer.raw().tobytes() for buffer in buffers]
    return arrays, pickle.dumps(([len(array) for array in arrays], rest))


def _unpacked(content: "np.ndarray[Any, Any]", packed: bytes) -> Sample[Any]:
    lengths, rest = pickle.loads(packed)
    ends = np.cumsum(lengths).tolist()
    sample: Sample[Any] = pickle.loads(
        rest, buffers=[content[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    )
    return sample
