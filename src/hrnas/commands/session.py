"""What a verb needs around a network: the data set opened, the task, the device; and evaluation with them."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import rich
import torch
from torch import Tensor

from hrnas.arch.architecture import Architecture
from hrnas.commands.options import TrainingOptions
from hrnas.commands.progress import counted_progress
from hrnas.data.cache import CachedSet, SampleMemory
from hrnas.data.data_yaml import DATASETS, completed, parse_description, read_description
from hrnas.data.description import DataDescription, Split
from hrnas.data.loading import Batch, EvaluationBatch, Views, epoch_order, evaluation_batches, train_batches
from hrnas.data.opening import DataSet, is_in_memory, open_split
from hrnas.data.sizes import InputSize
from hrnas.data.transforms import AugmentOptions
from hrnas.engine.distributed import Processes, check_shares, is_launched, join_processes, local_rank
from hrnas.errors import InputError
from hrnas.kernels import compiling
from hrnas.models.network import Network
from hrnas.tasks import make_task
from hrnas.tasks.task import EvaluationOptions, TargetOptions, Task, flip_tested, settled

EVALUATION_BATCH: Final = 8
"""Images of the input size at a time in the validations of a run."""

Options = TypeVar("Options", bound=TrainingOptions)


@dataclass(frozen=True, kw_only=True)
class Session:
    """An opened data set with its task, on a device.

    input_size: (H, W) of the network's input, at which all costs are counted. sets: the splits, opened and checked.
    """

    description: DataDescription
    sets: Mapping[Split, DataSet]
    task: Task
    input_size: InputSize
    device: torch.device
    workers: int
    processes: Processes
    _kept: dict[str, Views] = field(default_factory=dict, repr=False)

    def settled(self, options: Options) -> Options:
        """Return options with the task's own choice where they leave it to the task.

        Raises InputError for one that means nothing to it, or does not fit the data.
        """
        augment = self._augment(options.augment)
        self.task.check_augment(augment)
        return replace(
            options,
            augment=augment,
            targets=self.task.targets,
            evaluation=self.task.evaluation,
        )

    def _augment(self, options: AugmentOptions) -> AugmentOptions:
        return settled(options, self.task.own, self.description.task, "augment")

    def train_batches(
        self, *, batch_size: int, seed: int, first_step: int, num_steps: int, augment: AugmentOptions
    ) -> Iterator[Batch]:
        """Return this process's share of the training batches of steps first_step..num_steps-1."""
        augment = self._augment(augment)
        batches = train_batches(
            self.sets["train"],
            self._views(augment),
            batch_size=batch_size,
            input_size=self.input_size,
            seed=seed,
            first_step=first_step,
            num_steps=num_steps,
            options=augment,
            workers=self.workers,
            share=(self.processes.rank, self.processes.count),
        )
        return self.processes.shared(batches, is_patient=False)  # a step waits for each

    def _views(self, options: AugmentOptions) -> Views:
        """Return what makes the training views; one process of a machine goes first, to make what the others read."""
        if (kept := self._kept.get(repr(options))) is not None:
            return kept
        for is_my_turn in (self.processes.local_rank == 0, self.processes.local_rank != 0):
            with self.processes.sharing_errors():
                if is_my_turn:
                    views = self.task.views(self.sets["train"], options, counted_progress)
        self._kept[repr(options)] = views
        return views

    def remarks(self) -> Sequence[str]:
        """Return what who trains should know of the data, a line each."""
        with self.processes.sharing_errors():
            return self.task.remarks(self.sets["validation"], self.input_size)

    def prepared(self, inputs: Tensor) -> Tensor:
        """Return a network's input, on the device, for what a batch holds."""
        return self.task.prepared(inputs.to(self.device))

    def calibration_inputs(self, *, batch_size: int, num_batches: int, seed: int) -> Iterator[Tensor]:
        """Yield prepared training inputs as evaluation sees them, always the same for a seed, on all processes."""
        batches = train_batches(
            self.sets["train"],
            self.task,
            batch_size=batch_size,
            input_size=self.input_size,
            seed=seed,
            first_step=0,
            num_steps=num_batches,
            options=self._augment(AugmentOptions.none()),
            workers=self.workers,
        )
        for batch in self.processes.shared(batches):
            yield self.prepared(batch.inputs)

    def check_batch(self, architecture: Architecture, options: TrainingOptions) -> None:
        """Raise InputError for a batch that cannot be shared evenly by processes and micro-batches, or too small a one.

        Too small: a batch norm would see a single number a channel, from which nothing can be learnt.
        """
        count = self.processes.count
        check_shares(options.batch_size, count, options.accumulate)
        batch_size = options.batch_size // options.accumulate // (1 if options.sync_norm else count)
        coarsest = architecture.features[-1].stride
        area = math.prod(-(-side // coarsest) for side in self.input_size)
        if batch_size * area < 2:
            part = " in each part" if batch_size < options.batch_size else ""
            raise InputError(
                f"Batch size is {batch_size}{part} and the coarsest map of a {self.input_size} input is 1x1 (stride "
                f"{coarsest}); batch norm needs at least 2 numbers a channel. Raise the batch size or the input size."
            )

    def read_samples(self, *, steps: int, batch_size: int, seed: int) -> None:
        """Read once what a run of so many steps will read, so that a broken file or label stops it before it begins.

        Costs at most one epoch's reading, which processes share. Raises InputError naming the file.
        """
        if self.description.toycity is not None:
            return
        splits = [self.sets["train"], self.sets["validation"]]
        shown = epoch_order(len(splits[0]), seed, 0)[: steps * batch_size]
        samples = [
            (dataset, int(index))
            for dataset, indices in zip(splits, (shown, range(len(splits[1]))), strict=True)
            for index in indices[self.processes.rank :: self.processes.count]
        ]
        with (
            ThreadPoolExecutor(max(1, self.workers)) as pool,  # Pillow decodes without Python's lock
            counted_progress("Reading the data set once", len(samples)) as show,
        ):
            for number, _ in enumerate(pool.map(lambda sample: sample[0].read(sample[1]) and None, samples), start=1):
                show(number)

    @torch.no_grad()
    def evaluate(self, network: Network, split: Split, *, batch_size: int = EVALUATION_BATCH) -> dict[str, Any]:
        """Return the task's figures for a network in evaluation mode over a whole split, and the number of samples.

        The processes work on whole batches in turn and add up their counts, so the figures are those of one process.
        """
        dataset = self.sets[split]
        score = self.task.make_score(dataset, self.input_size)
        with self.processes.sharing_errors():
            for batch in self.evaluation_batches(
                split, batch_size=batch_size, share=(self.processes.rank, self.processes.count)
            ):
                score.update(self.outputs(network, batch.inputs), batch.truths)
        for part in score.sums:
            part.copy_(self.processes.sum(part))
        return {
            "metric": self.task.metric,
            "split": split,
            "samples": len(dataset),
            "input_size": list(self.input_size),
            **score.result(),
        }

    def evaluation_batches(
        self, split: Split, *, batch_size: int = EVALUATION_BATCH, share: tuple[int, int] = (0, 1)
    ) -> Iterator[EvaluationBatch]:
        """Return a split in batches, every `share[1]`-th of them from number `share[0]` on.

        batch_size: for images of the input size; of larger ones there are fewer in a batch.
        """
        return evaluation_batches(
            self.sets[split],
            self.task,
            batch_size=self.evaluation_batch(batch_size),
            input_size=self.input_size,
            workers=self.workers,
            share=share,
        )

    def evaluation_batch(self, batch_size: int) -> int:
        """Return how many images are evaluated at a time where so many of the input size would be."""
        area = math.prod(self.task.evaluation.size or self.input_size)
        return min(batch_size, max(1, batch_size * math.prod(self.input_size) // area))

    def outputs(self, network: Network, inputs: Tensor) -> Tensor:
        """Return what a network puts out for a batch's inputs, flip test included where there is one."""
        return flip_tested(self.task, network, self.prepared(inputs))


def open_session(
    data: str | Mapping[str, Any],
    *,
    input_size: InputSize | None,
    device: str,
    workers: int,
    splits: tuple[Split, ...],
    cache: int = 0,
    targets: TargetOptions | None = None,
    evaluation: EvaluationOptions | None = None,
) -> Session:
    """Open a data set: a data.yaml, its folder, the name of a built-in set, or what a run's config.yaml holds.

    splits: must be there and sound; they are checked by their headers. cache: bytes for decoded samples.
    targets, evaluation: the task's, which has its own choice for what they leave to it.
    Raises InputError naming what is wrong.
    Under torchrun all processes meet here.
    """
    with join_processes().sharing_errors():
        found_device = find_device(device)
    processes = join_processes(found_device)
    # One process of each machine goes first: what it renders into the cache, the others read there.
    for is_my_turn in (processes.local_rank == 0, processes.local_rank != 0):
        with processes.sharing_errors():
            if is_my_turn:
                if found_device.type == "cpu":
                    _prepare_kernels()
                description, opened = _open_splits(data, splits)
                task = make_task(description, targets, evaluation)
                if input_size is None:
                    first = next(iter(opened.values()))
                    input_size = InputSize(*(task.usual_input or first.read(0).content.shape[:2]))
                task.check_input(input_size)
    if cache and not is_in_memory(description):
        with processes.sharing_errors():
            memory = SampleMemory(cache)
        opened = {split: CachedSet(dataset, memory) for split, dataset in opened.items()}
    return Session(
        description=description,
        sets=opened,
        task=task,
        input_size=input_size,
        device=found_device,
        workers=workers,
        processes=processes,
    )


def _prepare_kernels() -> None:
    """Compile the CPU kernels where that was not done yet; say so where it cannot be done."""
    with rich.get_console().status("Looking for the CPU kernels (compiled once, some ten seconds) ..."):
        problem = compiling.problem()
    if problem is not None and not compiling.is_switched_off():
        rich.get_console().print(
            f"Without CPU kernels ({problem}): training takes two to three times as long.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _open_splits(
    data: str | Mapping[str, Any], splits: tuple[Split, ...]
) -> tuple[DataDescription, dict[Split, DataSet]]:
    if isinstance(data, Mapping):
        parsed = parse_description(dict(data), where="data", folder=Path.cwd())
        description = completed(parsed, where="data") if splits else parsed
    else:
        description = read_description(data)
    with rich.get_console().status("Opening the data set (Toy City is rendered once) ...") as status:

        @contextmanager
        def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
            status.stop()  # a terminal shows one thing at a time
            with counted_progress(what, total) as show:
                yield show
            status.start()

        return description, {split: open_split(description, split, progress) for split in splits}


def open_training_session(data: str | Mapping[str, Any], options: TrainingOptions) -> Session:
    """Open a data set for training and validation as the options of a run say. Raises InputError as `open_session`."""
    session = open_session(
        data,
        input_size=options.input_size,
        device=options.device,
        workers=options.workers,
        splits=("train", "validation"),
        cache=options.cache,
        targets=options.targets,
        evaluation=options.evaluation,
    )
    if options.precision == "bfloat16" and session.device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError(f"Device {session.device} computes no bfloat16. Use --precision float32 or a newer device.")
    return session


def find_device(name: str) -> torch.device:
    """Return the device of that name; "auto" takes CUDA when there is one. Raises InputError when it is not there.

    Where torchrun has started several processes on a machine, "cuda" is another device for each.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and is_launched():
        name = f"cuda:{local_rank()}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" makes tensors but holds no values
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise InputError(f"Device '{name}' cannot be used ({line}). Use auto, cpu, cuda or cuda:N.") from None
    return device


def sized_run_name(description: DataDescription, suffix: str) -> Path:
    """Return the default run directory: runs/ and the data set's name with a suffix."""
    dataset, task = description.dataset, description.task
    if dataset is not None:
        name = dataset if task == DATASETS[dataset][0] else f"{dataset}-{task}"
    else:
        name = description.path.name if description.path else "data"
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in suffix.replace("%", "pct"))
    return Path("runs") / "-".join(part for part in (name, plain) if part)
