"""Batches for training and evaluation, read ahead by worker processes.

Loading has no state: the order of samples follows from (seed, epoch) and a sample's augmentation from (seed, step,
position in the batch), so a run resumed at step n needs nothing but n to see what it would have seen.

B batch, H height, W width of the network's input; P points of a cloud.
"""

import math
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any, Final, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from hrnas.data.opening import DataSet
from hrnas.data.transforms import AugmentOptions
from hrnas.errors import InputError
from hrnas.structures import Sample

PREFETCHED: Final = 3
"""Batches each worker keeps ready."""

# What a random stream is for; keeps the streams of one seed apart.
_ORDER: Final = 0
_AUGMENT: Final = 1


View = NDArray[Any]
"""What a network sees of a sample: an image, uint8 (H, W, 3), or a cloud, float32 (P, 4)."""

NO_POINT: Final = math.inf
"""What the rows of a batch's shorter clouds are filled up with: outside of every grid."""
NO_TARGET: Final = -1
"""What the rows of a batch's shorter targets are filled up with."""


class Views(Protocol):
    """What a task makes of a sample. Pickled to the processes that read."""

    def training_view(
        self, sample: Sample[Any], input_size: tuple[int, int], options: AugmentOptions, rng: np.random.Generator
    ) -> tuple[View, NDArray[Any]]:
        """Return a random view, an image (H, W, 3) or a cloud (P, 4), and its target.

        Targets are of one shape for all samples, but for the number of their rows.
        """

    def evaluation_view(self, sample: Sample[Any], input_size: tuple[int, int]) -> View:
        """Return what evaluation sees: an image uint8 (H', W', 3), mostly of the input size, or a cloud (P, 4)."""


@dataclass(frozen=True)
class Batch:
    """inputs: images uint8 (B, 3, H, W), stored channels_last, or clouds float32 (B, P, 4), filled up with NO_POINT.

    targets: (B, ...), as the task makes them; where their numbers of rows differ, filled up with NO_TARGET.
    """

    inputs: torch.Tensor
    targets: torch.Tensor


@dataclass(frozen=True)
class EvaluationBatch:
    """inputs: as in Batch, images of one size; truths: B of what the samples hold; names: B."""

    inputs: torch.Tensor
    truths: list[Any]
    names: list[str]


def epoch_order(num_samples: int, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the order in which an epoch shows the samples: a permutation of 0..num_samples-1."""
    return _generator(seed, _ORDER, epoch).permutation(num_samples)


def train_batches(
    dataset: DataSet,
    views: Views,
    *,
    batch_size: int,
    input_size: tuple[int, int],
    seed: int,
    first_step: int,
    num_steps: int,
    options: AugmentOptions,
    workers: int,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Return the batches of steps first_step..num_steps-1, each of exactly `batch_size` augmented samples.

    share: (part, parts): only so much of each batch, positions part * B / parts up to the next part's first.

    Samples are shown epoch after epoch, each time in another order; a batch may span the border of epochs and be larger
    than the set. The same arguments give the same batches, whatever `workers` (0: read in this process) and wherever
    `first_step` begins. Raises InputError, from the iteration, for a file that cannot be used.
    """
    _check(dataset, batch_size, input_size, workers)
    part, parts = share
    assert batch_size % parts == 0, "the batch cannot be shared evenly"
    positions = range(part * batch_size // parts, (part + 1) * batch_size // parts)
    plan = _TrainPlan(len(dataset), batch_size, seed, first_step, num_steps, positions)
    return _loaded(_TrainReader(dataset, views, input_size, seed, options), plan, workers)


def evaluation_batches(
    dataset: DataSet,
    views: Views,
    *,
    batch_size: int,
    input_size: tuple[int, int],
    workers: int,
    share: tuple[int, int] = (0, 1),
) -> Iterator[EvaluationBatch]:
    """Return the whole set in order, the last batch as large as what is left; one batch for each size of images in it.

    share: (part, parts): only every parts-th of these batches, from the one numbered `part` on.
    Raises InputError, from the iteration, for a file that cannot be used.
    """
    _check(dataset, batch_size, input_size, workers)
    indices = range(len(dataset))
    plan = [list(indices[start : start + batch_size]) for start in range(0, len(dataset), batch_size)]
    plan = plan[share[0] :: share[1]]
    return chain.from_iterable(_loaded(_EvaluationReader(dataset, views, input_size), plan, workers))


@dataclass(frozen=True)
class _Place:
    """Which sample is shown at which place of the run."""

    index: int
    step: int
    position: int


@dataclass(frozen=True)
class _TrainPlan:
    """Iterates over the batches of a run as lists of places."""

    num_samples: int
    batch_size: int
    seed: int
    first_step: int
    num_steps: int
    positions: range

    def __len__(self) -> int:
        return max(0, self.num_steps - self.first_step)

    def __iter__(self) -> Iterator[list[_Place]]:
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(self.first_step, self.num_steps):
            places = []
            for position in self.positions:
                needed, offset = divmod(step * self.batch_size + position, self.num_samples)
                if needed != epoch:
                    epoch, order = needed, epoch_order(self.num_samples, self.seed, needed)
                places.append(_Place(int(order[offset]), step, position))
            yield places


_Read = TypeVar("_Read")


@dataclass(frozen=True)
class _Failed:
    """An error met by a worker, sent as a value.

    A user's would arrive wrapped in the worker's traceback; any other would hold on to the workers, which its traceback
    leads to, and the process would wait for them at its end.
    """

    message: str
    is_users: bool


class _Reader(Dataset[Any], Generic[_Read]):
    """Reads whole batches for DataLoader; one of its processes holds a copy of it."""

    def __getitems__(self, batch: Any) -> "list[_Read | _Failed]":
        # DataLoader hands a batch over at once to a data set that has this method, and to collate what it returns.
        try:
            return [self.read_batch(batch)]
        except InputError as error:
            return [_Failed(str(error), is_users=True)]
        except Exception:
            return [_Failed(traceback.format_exc(), is_users=False)]

    def __getitem__(self, index: Any) -> "_Read":
        raise NotImplementedError("read by batches")

    def read_batch(self, batch: Any) -> _Read:
        """Read one batch."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class _TrainReader(_Reader[Batch]):
    dataset: DataSet
    views: Views
    input_size: tuple[int, int]
    seed: int
    options: AugmentOptions

    def read_batch(self, batch: list[_Place]) -> Batch:
        views, targets = [], []
        for place in batch:
            rng = _generator(self.seed, _AUGMENT, place.step, place.position)
            sample = self.dataset.read(place.index)
            view, target = self.views.training_view(sample, self.input_size, self.options, rng)
            views.append(view)
            targets.append(target)
        return Batch(stacked(views), torch.from_numpy(_filled(targets, NO_TARGET)))


@dataclass(frozen=True, eq=False)
class _EvaluationReader(_Reader[list[EvaluationBatch]]):
    dataset: DataSet
    views: Views
    input_size: tuple[int, int]

    def read_batch(self, batch: list[int]) -> list[EvaluationBatch]:
        seen = []
        for index in batch:
            sample = self.dataset.read(index)
            seen.append((self.views.evaluation_view(sample, self.input_size), sample.truth, sample.name))
        groups = (list(group) for _, group in groupby(seen, key=lambda view: _size(view[0])))
        return [
            EvaluationBatch(
                stacked([view for view, _, _ in group]),
                [truth for _, truth, _ in group],
                [name for _, _, name in group],
            )
            for group in groups
        ]


def stacked(views: list[View]) -> torch.Tensor:
    """Stack images (H, W, 3) to (B, 3, H, W) without moving a byte, channels_last; clouds (P, 4) to (B, P, 4)."""
    if views[0].ndim == 2:
        return torch.from_numpy(_filled(views, NO_POINT))
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)


def _size(view: View) -> tuple[int, ...]:
    """Return what views of one batch must have in common: of images the size, of clouds nothing."""
    return () if view.ndim == 2 else view.shape


def _filled(arrays: list[NDArray[Any]], value: float) -> NDArray[Any]:
    """Stack arrays (rows, ...), the shorter ones filled up at their end."""
    rows = {len(array) for array in arrays if array.ndim}
    if len(rows) <= 1:
        return np.stack(arrays)
    filled = np.full((len(arrays), max(rows), *arrays[0].shape[1:]), value, arrays[0].dtype)
    for place, array in zip(filled, arrays, strict=True):
        place[: len(array)] = array
    return filled


def _only(read: list[Any]) -> Any:
    """Unwrap what `__getitems__` returned."""
    return read[0]


def _quiet(_worker: int) -> None:
    # Ctrl-C reaches every process of the terminal, and batch systems stop a whole process group; the main process alone
    # answers, and then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The thread that hands shared memory over prints a traceback when the main process goes away in the middle of it.
    # Nothing else in a worker comes here: DataLoader carries exceptions of the reading itself to the main process.
    sys.excepthook = lambda *_: None


def _loaded(reader: _Reader[_Read], plan: Any, workers: int) -> Iterator[_Read]:
    """Yield the batches of a plan in order, read in `workers` processes."""
    with warnings.catch_warnings():
        # Fork after threads were started, and more workers than cores, are both meant; the workers use one thread.
        warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader = DataLoader(
            reader,
            batch_sampler=plan,
            num_workers=workers,
            collate_fn=_only,
            worker_init_fn=_quiet,
            prefetch_factor=PREFETCHED if workers else None,
            # Other start methods import torch again in every worker; the others are left to their system's default.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            # DataLoader draws a seed for its workers; the global generator is the training's.
            generator=torch.Generator(),
        )
        batches = iter(loader)
    try:
        while (batch := _next(batches)) is not None:
            if isinstance(batch, _Failed):
                raise (InputError if batch.is_users else RuntimeError)(batch.message)
            yield batch
    finally:
        del batches  # the last reference: its end stops the workers


def _next(batches: Iterator[Any]) -> Any:
    """Return the next batch, None at the end.

    A worker that is killed while it hands one over breaks the connection: DataLoader says what the dead one was when it
    finds it at rest only, so that is said here.
    """
    try:
        return next(batches, None)
    except (ConnectionError, EOFError, FileNotFoundError) as error:  # what a worker meets itself comes as a value
        raise RuntimeError(f"DataLoader worker broke off while it handed a batch over: {error}") from None


def _check(dataset: DataSet, batch_size: int, input_size: tuple[int, int], workers: int) -> None:
    if len(dataset) == 0:
        raise InputError("The split is empty; it must hold at least one image.")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
    if min(input_size) < 1:
        raise InputError(f"input_size is {input_size}; height and width must be at least 1.")
    if workers < 0:
        raise InputError(f"workers is {workers}; it must be 0 (read in this process) or more.")


def _generator(seed: int, *stream: int) -> np.random.Generator:
    """Return the random numbers of one purpose, independent of those of every other."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=stream))
