"""The cache of decoded samples: the same samples, decoded once by all processes together, never above its limit."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.test_loading import VIEWS, Numbered, batches, equal
from hrnas.data import cache
from hrnas.data.cache import CachedSet, SampleMemory
from hrnas.data.folders import FolderSet
from hrnas.data.loading import evaluation_batches
from hrnas.data.opening import open_split
from hrnas.errors import InputError
from hrnas.structures import Sample

SIZE = 4 * 12 * 16 + 2
"""Bytes of a sample of the tree: image, mask and a name such as r0."""


class Counted(Numbered):
    """Counts how often it is read."""

    reads = 0

    def read(self, index: int) -> Sample:
        self.reads += 1
        return super().read(index)


def size_of(sample: Sample) -> int:
    """Bytes that a sample takes."""
    memory = SampleMemory(2**20)
    kept = CachedSet(One(sample), memory)
    kept.read(0)
    return memory.used


class One:
    """A set of one sample."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample

    def __len__(self) -> int:
        return 1

    def read(self, index: int) -> Sample:
        return self.sample


def same(one: Sample, other: Sample) -> bool:
    return (
        one.name == other.name and np.array_equal(one.content, other.content) and np.array_equal(one.truth, other.truth)
    )


@pytest.fixture
def dataset(full_tree: Any) -> FolderSet:
    return open_split(full_tree.description(), "train")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("limit", [1, 2 * SIZE, 2**20])
def test_batches_are_those_of_the_set_itself(dataset: FolderSet, workers: int, limit: int) -> None:
    kept = CachedSet(dataset, SampleMemory(limit))
    expected = batches(dataset)
    for _ in range(2):
        assert equal(batches(kept, workers=workers), expected)
    one, other = (
        list(evaluation_batches(source, VIEWS, batch_size=2, input_size=(5, 6), workers=workers))
        for source in (kept, dataset)
    )
    for ours, theirs in zip(one, other, strict=True):
        assert ours.names == theirs.names
        assert np.array_equal(ours.inputs, theirs.inputs)
        assert all(np.array_equal(a, b) for a, b in zip(ours.truths, theirs.truths, strict=True))
    assert (kept.names, kept.colors, kept.pictures(), len(kept)) == (
        dataset.names, dataset.colors, dataset.pictures(), len(dataset),
    )  # fmt: skip


def test_what_one_process_has_decoded_all_others_find(dataset: FolderSet) -> None:
    expected = batches(dataset)
    kept = CachedSet(dataset, SampleMemory(2**20))
    batches(kept, workers=2)
    for pair in dataset.pairs:
        pair.image.unlink()
        pair.mask.unlink()
    assert equal(batches(kept), expected)
    assert equal(batches(kept, workers=1), expected)


@pytest.mark.parametrize("fitting", [0, 1, 3])
def test_never_more_than_the_limit_and_what_fits_is_decoded_once(fitting: int) -> None:
    source = Counted(4)
    sizes = [size_of(source.read(index)) for index in range(4)]
    memory = SampleMemory(sum(sizes[:fitting]) + min(sizes) - 1)
    kept = CachedSet(source, memory)
    source.reads = 0
    for _ in range(5):
        for index in range(4):
            assert same(kept.read(index), Numbered(4).read(index))
    assert memory.used == sum(sizes[:fitting]) <= memory.limit
    assert source.reads == fitting + 5 * (4 - fitting)


def test_sets_share_one_memory_and_keep_their_samples_apart() -> None:
    memory = SampleMemory(2**12)
    one, other = CachedSet(Numbered(3), memory), CachedSet(Numbered(7), memory)
    for _ in range(2):
        assert all(same(one.read(index), Numbered(3).read(index)) for index in range(3))
        assert all(same(other.read(index), Numbered(7).read(index)) for index in (6, 0))


def test_more_than_the_machine_has_is_refused() -> None:
    for limit in (1 << 60, 1 << 70):
        with pytest.raises(InputError, match=r"cache is .* bytes, more than this machine gives; give less"):
            SampleMemory(limit)


def test_kept_samples_cannot_be_changed() -> None:
    kept = CachedSet(Numbered(1), SampleMemory(2**12))
    kept.read(0)
    with pytest.raises(ValueError, match="read-only"):
        kept.read(0).truth[0, 0] = 1


def test_a_lock_that_nobody_gives_back_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process leaves it that is killed while it has it."""
    monkeypatch.setattr(cache, "_PATIENCE", 0.01)
    memory = SampleMemory(2**12)
    kept = CachedSet(Numbered(2), memory)
    kept.read(0)
    with memory.locked() as is_ours:
        assert is_ours
        assert all(same(kept.read(index), Numbered(2).read(index)) for index in (0, 1))
    assert memory.used == size_of(Numbered(2).read(0))


def test_a_process_that_was_not_forked_gets_the_set_itself(dataset: FolderSet) -> None:
    again = pickle.loads(pickle.dumps(CachedSet(dataset, SampleMemory(2**12))))
    assert isinstance(again, FolderSet)
    assert same(again.read(1), dataset.read(1))


def test_a_broken_file_is_refused_as_without(dataset: FolderSet, full_tree: Any) -> None:
    kept = CachedSet(dataset, SampleMemory(2**12))
    Path(dataset.pairs[1].image).write_bytes(b"no picture")
    for _ in range(2):
        with pytest.raises(Exception, match="is not a picture Pillow can read"):
            kept.read(1)
