"""Options that several verbs share, typed and checked when built."""

import os
import re
from dataclasses import dataclass, field
from typing import Final

from hrnas.data.sizes import InputSize
from hrnas.data.transforms import AugmentOptions
from hrnas.engine.optimization import OptimizerOptions
from hrnas.engine.training import PRECISIONS
from hrnas.errors import InputError, did_you_mean
from hrnas.tasks.task import EvaluationOptions, TargetOptions


class MemorySize(int):
    """A number of bytes; written 512MiB, with KiB, MiB, GiB or no unit."""

    def __str__(self) -> str:
        for unit, size in reversed(_UNITS.items()):
            if self and self % size == 0:
                return f"{self // size}{unit}"
        return "0"

    @classmethod
    def parse(cls, text: object) -> "MemorySize":
        """Return the size that a text means. Raises ValueError otherwise."""
        match = re.fullmatch(r"(\d+) ?(|KiB|MiB|GiB)", str(text).strip())
        if match is None:
            raise ValueError(f"memory is '{text}'; write a whole number of KiB, MiB or GiB, as 512MiB, or 0")
        return cls(int(match[1]) * _UNITS[match[2]])


_UNITS: Final = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

DEFAULT_CACHE: Final = MemorySize(512 * 2**20)


def default_workers() -> int:
    """Return how many processes read data beside the one that computes; torchrun's on one machine share its cores."""
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(8, max(1, cores - 1))


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What search and train have in common.

    run: the run directory; runs/ and a name made of the data set and the budget or network where left out.
    overwrite: replace what the run directory holds.
    input_size: of the network's input, HEIGHTxWIDTH; images are resized to it, clouds lie on a grid of so many rows and
        columns of pillars. Where left out what is usual for the task: the first training image's size, or 256x192 for
        people, or 224x224 for classes, or 496x432 for clouds.
    steps: optimizer steps of the whole run; all schedules run in steps.
    batch_size: images a step, over all processes.
    accumulate: micro-batches a step; each process works on its share of the batch in so many parts, to save memory.
    sync_norm: with several processes, batch norms see the batches of all of them.
    seed: of weights, order and augmentation.
    workers: processes that read and augment; 0 reads in the main process.
    cache: memory for decoded images and masks, of each process that trains, shared by those that read for it; 0
        decodes them anew each time.
    device: auto, cpu, cuda, cuda:0, ...
    precision: float32 or bfloat16, of the training step's operations; weights, loss and evaluation stay float32.
    recompute: keep only the inputs of the search blocks for the backward pass and compute them again there: less
        memory, up to a third more time, the same numbers.
    optimizer: its kind and its schedule.
    augment: random views in training; the task's own choice where left out.
    targets: what the network is asked for.
    evaluation: how the network is evaluated.
    log_every: steps between two lines of metrics.jsonl.
    evaluations: validations over the run, evenly spaced, the last at its end.
    checkpoints: resumable checkpoints over the run, evenly spaced.
    keep_checkpoints: how many of the last stay on disk.
    calibration_batches: batches that make the batch-norm statistics anew before an evaluation.
    """

    run: str | None = None
    overwrite: bool = False
    input_size: InputSize | None = None
    steps: int = 3000
    batch_size: int = 16
    accumulate: int = 1
    sync_norm: bool = False
    seed: int = 0
    workers: int = field(default_factory=default_workers)
    cache: MemorySize = DEFAULT_CACHE
    device: str = "auto"
    precision: str = "float32"
    recompute: bool = False
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    targets: TargetOptions = field(default_factory=TargetOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    log_every: int = 10
    evaluations: int = 10
    checkpoints: int = 10
    keep_checkpoints: int = 2
    calibration_batches: int = 10

    def __post_init__(self) -> None:
        if self.input_size is not None and not isinstance(self.input_size, InputSize):
            object.__setattr__(self, "input_size", InputSize(*self.input_size))  # a plain (H, W) from Python
        cache = MemorySize.parse(self.cache) if isinstance(self.cache, str) else MemorySize(self.cache)
        object.__setattr__(self, "cache", cache)  # a plain number or text from Python
        for name in (
            "steps",
            "batch_size",
            "accumulate",
            "log_every",
            "evaluations",
            "keep_checkpoints",
            "calibration_batches",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; at least 1 is needed.")
        for name in ("workers", "cache", "checkpoints", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; it cannot be negative.")
        if self.precision not in PRECISIONS:
            raise InputError(f"Unknown precision '{self.precision}'. {did_you_mean(self.precision, PRECISIONS)}")

    @property
    def evaluation_steps(self) -> set[int]:
        """The steps after which the network is validated."""
        return _evenly_spaced(self.evaluations, self.steps)

    @property
    def checkpoint_steps(self) -> set[int]:
        """The steps after which a checkpoint is written."""
        return _evenly_spaced(self.checkpoints, self.steps)


def _evenly_spaced(count: int, steps: int) -> set[int]:
    """Return `count` steps evenly spaced over 1..steps, the last included; fewer where they coincide."""
    return {round(steps * (index + 1) / count) for index in range(count)} - {0}
