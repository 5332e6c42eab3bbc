"""Loading: the same batches whatever the workers and wherever a run begins; errors and Ctrl-C arrive clean."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hrnas.data import loading
from hrnas.data.description import DataDescription
from hrnas.data.folders import FolderSet
from hrnas.data.loading import Batch, epoch_order, evaluation_batches, train_batches
from hrnas.data.opening import open_split
from hrnas.data.transforms import AugmentOptions, evaluation_view
from hrnas.errors import InputError
from hrnas.structures import Sample
from hrnas.tasks import make_task, settled

VIEWS = make_task(DataDescription(task="segmentation", names=("a", "b"), colors=((0, 0, 0), (1, 1, 1))))
OPTIONS = settled(AugmentOptions(), VIEWS.own, "segmentation", "augment")


class Numbered:
    """A set whose image and mask hold nothing but the sample's index."""

    names = tuple(map(str, range(100)))
    colors = tuple((i, i, i) for i in range(100))

    def pictures(self) -> dict[str, list[int]]:
        return {f"sample {index}": [index] for index in range(self.length)}

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def read(self, index: int) -> Sample:
        size = (6 + index % 3, 8)
        return Sample(
            content=np.full((*size, 3), index, np.uint8), truth=np.full(size, index, np.uint8), name=f"sample {index}"
        )


def batches(dataset: Any, **changes: Any) -> list[Batch]:
    arguments: dict[str, Any] = {
        "batch_size": 4, "input_size": (16, 20), "seed": 3, "first_step": 0, "num_steps": 7,
        "options": OPTIONS, "workers": 0,
    }  # fmt: skip
    return list(train_batches(dataset, VIEWS, **(arguments | changes)))


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets) for a, b in zip(one, other, strict=True)
    )


def shown(read: list[Batch]) -> list[int]:
    return [int(index) for batch in read for index in batch.inputs[:, 0, 0, 0]]


def test_batches_have_their_shapes() -> None:
    batch = batches(Numbered(5))[0]
    assert batch.inputs.shape == (4, 3, 16, 20)
    assert batch.targets.shape == (4, 16, 20)
    assert batch.inputs.dtype == batch.targets.dtype == torch.uint8
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_shows_what_the_full_run_would_have_shown(full_tree, workers: int) -> None:
    dataset = open_split(full_tree.description(), "train")
    full = batches(dataset)
    assert len(full) == 7
    assert all(not torch.equal(a.inputs, b.inputs) for a, b in pairwise(full))
    for first in (0, 3, 6):
        assert equal(batches(dataset, first_step=first, workers=workers), full[first:])
    assert batches(dataset, first_step=7, workers=workers) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 23), st.integers(1, 30), st.integers(0, 2**31))
def test_every_sample_is_shown_once_in_each_epoch(length: int, batch_size: int, seed: int) -> None:
    num_steps = -(-3 * length // batch_size)
    order = shown(
        batches(
            Numbered(length), batch_size=batch_size, num_steps=num_steps, seed=seed, options=AugmentOptions.none(),
            input_size=(2, 2),
        )
    )  # fmt: skip
    assert len(order) == num_steps * batch_size
    for epoch in range(3):
        assert sorted(order[epoch * length : (epoch + 1) * length]) == list(range(length))


def test_epochs_and_seeds_differ_in_order_and_the_order_has_no_memory() -> None:
    orders = [epoch_order(50, seed, epoch).tolist() for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9
    assert epoch_order(50, 0, 2).tolist() == orders[2]


def test_the_seed_and_the_place_decide_the_augmentation(full_tree) -> None:
    dataset = open_split(full_tree.description(), "train")
    first = batches(dataset, batch_size=9, num_steps=1)[0]  # each image three times
    assert len({image.numpy().tobytes() for image in first.inputs}) == 9
    one = FolderSet(pairs=dataset.pairs[:1], names=dataset.names, colors=dataset.colors, labels=dataset.labels)
    steps = batches(one, batch_size=1, num_steps=9) + batches(one, batch_size=1, num_steps=9, seed=4)
    assert len({step.inputs.numpy().tobytes() for step in steps}) == 18  # there is no order: augmentation alone differs


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_shows_all_in_order_with_masks_as_they_are(workers: int) -> None:
    dataset = Numbered(7)
    read = list(evaluation_batches(dataset, VIEWS, batch_size=3, input_size=(4, 5), workers=workers))
    assert [len(batch.names) for batch in read] == [3, 3, 1]
    assert [name for batch in read for name in batch.names] == [f"sample {index}" for index in range(7)]
    for index, (image, mask) in enumerate(
        (image, mask) for batch in read for image, mask in zip(batch.inputs, batch.truths, strict=True)
    ):
        sample = dataset.read(index)
        assert np.array_equal(image.permute(1, 2, 0).numpy(), evaluation_view(sample.content, (4, 5)))
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, sample.truth)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_random_state_is_left_alone(workers: int) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    batches(Numbered(5), workers=workers)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_arrives_as_itself(full_tree, workers: int) -> None:
    dataset = open_split(full_tree.description(), "train")
    broken = full_tree.mask("masks/train/r1.png", values=(0, 9))
    for read in (
        lambda: batches(dataset, workers=workers),
        lambda: list(evaluation_batches(dataset, VIEWS, batch_size=1, input_size=(4, 4), workers=workers)),
    ):
        with pytest.raises(InputError) as error:
            read()
        assert str(error.value).startswith(f"Mask {broken} holds label values no class covers: 9 (96 pixels).")
        assert "\n" not in str(error.value)
        assert error.value.__cause__ is None


class Faulty(Numbered):
    """A set with a mistake of ours in it."""

    def read(self, index: int) -> Sample:
        raise KeyError("a mistake")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mistake_of_ours_in_a_worker_ends_the_workers(workers: int) -> None:
    with pytest.raises(RuntimeError, match="KeyError: 'a mistake'"):
        batches(Faulty(5), workers=workers)
    assert not [child for child in multiprocessing.active_children() if child.is_alive()]


def test_leaving_early_ends_the_workers() -> None:
    reading = train_batches(
        Numbered(5), VIEWS, batch_size=2, input_size=(4, 4), seed=0, first_step=0, num_steps=10_000,
        options=OPTIONS, workers=2,
    )  # fmt: skip
    next(reading)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not children.exists():
        pytest.skip("needs /proc to list the children of a process")
    assert len(children.read_text().split()) >= 2
    reading.close()
    assert children.read_text().split() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"input_size": (0, 4)}, "input_size is"),
        ({"workers": -1}, "workers is -1"),
    ],
)
def test_impossible_arguments_are_refused_at_once(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        batches(Numbered(5), **changes)
    with pytest.raises(InputError, match="The split is empty"):
        batches(Numbered(0))


INTERRUPTED = """
import signal
import sys
from test_loading import OPTIONS, VIEWS, Numbered
from hrnas.data.folders import FolderSet
from hrnas.data.loading import train_batches

class Slow(Numbered):
    def read(self, index):
        import time
        time.sleep(0.01)
        return super().read(index)

reading = train_batches(Slow(5), VIEWS, batch_size=4, input_size=(4, 4), seed=0, first_step=0, num_steps=10_000,
                        options=OPTIONS, workers=2)
next(reading)
stop = []
signal.signal(signal.SIGINT, lambda *_: stop.append(True))
print("reading", flush=True)
while not stop:
    next(reading)
for _ in range(20):  # more than the workers had ready
    next(reading)
signal.signal(signal.SIGINT, signal.default_int_handler)
print("still reading", flush=True)
try:
    for batch in reading:
        pass
except KeyboardInterrupt:
    reading.close()
    sys.exit(130)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sends a signal to a group of processes")
def test_ctrl_c_ends_no_worker_and_prints_no_traceback_of_one() -> None:
    """The main process may go on to the end of a step, and stop at the second Ctrl-C."""
    paths = [str(Path(__file__).parent), *sys.path]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does
        assert process.stdout.readline() == "still reading\n"
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert errors == ""
    assert process.returncode == 130


@pytest.mark.parametrize(
    "error", [ConnectionResetError(104, "reset by peer"), EOFError(), FileNotFoundError(2, "gone")]
)
def test_a_connection_that_breaks_with_a_dying_worker_is_told_as_its_death(error: Exception) -> None:
    """As torch's loader words it, for the command line; not as a fault of a file of the user's."""

    def broken() -> Iterator[int]:
        raise error
        yield 0

    with pytest.raises(RuntimeError, match=r"^DataLoader worker broke off while it handed a batch over"):
        loading._next(broken())
    assert loading._next(iter([7])) == 7
    assert loading._next(iter([])) is None
