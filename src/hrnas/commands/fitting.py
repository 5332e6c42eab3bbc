"""Whether a training step fits into memory, and what would."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from hrnas.arch.architecture import Architecture
from hrnas.costing.analytic import Size
from hrnas.costing.memory import training_memory

MARGIN: Final = 1.2
"""A step fits when so many times its prediction is free: the prediction is good to 20 %."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the memory of a step depends on beside the network; device: its type; kernels: the CPU has them."""

    batch_size: int
    accumulate: int
    precision: str
    recompute: bool
    device: str
    kernels: bool

    def peak(self, architecture: Architecture, input_size: Size) -> int:
        """Return the predicted bytes at the highest point of a step."""
        return training_memory(
            architecture,
            input_size,
            -(-self.batch_size // self.accumulate),
            batch_size=self.batch_size,
            precision=self.precision,
            recompute=self.recompute,
            device=self.device,
            kernels=self.kernels,
        ).peak


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """Options that make a step fit, and its predicted bytes with them."""

    options: str
    predicted: int


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a step fits; bytes.

    free: None when the system does not say; then fits and largest_batch_size are None too.
    largest_batch_size: that fits with the other options as they are, 0 when none does.
    remedies: what would make the batch fit, when it does not.
    """

    predicted: int
    free: int | None
    fits: bool | None
    largest_batch_size: int | None
    remedies: tuple[Remedy, ...]


def fit(architecture: Architecture, input_size: Size, setting: Setting, free: int | None) -> Fit:
    """Compare the predicted memory of a step with the bytes that are free."""
    predicted = setting.peak(architecture, input_size)
    if free is None:
        return Fit(predicted=predicted, free=None, fits=None, largest_batch_size=None, remedies=())

    def is_fitting(candidate: Setting) -> bool:
        return MARGIN * candidate.peak(architecture, input_size) <= free

    fits = is_fitting(setting)
    return Fit(
        predicted=predicted,
        free=free,
        fits=fits,
        largest_batch_size=_largest(lambda size: is_fitting(replace(setting, batch_size=size))),
        remedies=() if fits else _remedies(architecture, input_size, setting, is_fitting),
    )


def _remedies(
    architecture: Architecture, input_size: Size, setting: Setting, is_fitting: Callable[[Setting], bool]
) -> tuple[Remedy, ...]:
    """Return the options, alone and together, with which the batch fits; with the fewest micro-batches that do.

    The setting's own number of micro-batches divides the batch.
    """
    remedies = []
    for recompute in sorted({setting.recompute, True}):
        for precision in dict.fromkeys((setting.precision, "bfloat16")):
            changed = replace(setting, recompute=recompute, precision=precision)
            words = ["--recompute"] * (recompute and not setting.recompute)
            words += [f"--precision {precision}"] * (precision != setting.precision)
            candidates = [
                replace(changed, accumulate=count)
                for count in range(setting.accumulate, setting.batch_size + 1)
                if setting.batch_size % count == 0  # a search refuses others
            ]
            position = bisect_left(candidates, True, key=is_fitting)
            if position < len(candidates):
                words += [f"--accumulate {candidates[position].accumulate}"] * (position > 0)
                peak = candidates[position].peak(architecture, input_size)
                remedies.append(Remedy(options=" ".join(words), predicted=peak))
    return tuple(remedies)


def _largest(is_fitting: Callable[[int], bool]) -> int:
    """Return the largest size that fits, 0 when 1 does not; whatever is smaller than one that fits does too."""
    if not is_fitting(1):
        return 0
    size = 1
    while is_fitting(2 * size):
        size *= 2
    low, high = size, 2 * size
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_fitting(middle) else (low, middle)
    return low
