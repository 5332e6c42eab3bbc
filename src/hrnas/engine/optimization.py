"""The optimizer and its learning-rate schedule (method: Training, per task)."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from hrnas.errors import InputError, did_you_mean

KINDS: Final = ("adamw", "adam", "rmsprop")
SCHEDULES: Final = ("one-cycle", "steps", "exponential")

_OWN: Final[dict[str, dict[str, Any]]] = {
    "adamw": {"betas": (0.9, 0.999)},
    "adam": {"betas": (0.9, 0.999)},
    "rmsprop": {"momentum": 0.9, "alpha": 0.9},
    "one-cycle": {"end_division": 1e4},
    "steps": {"milestones": (0.6, 0.85), "decay": 0.1},
    "exponential": {"decay_every": 2.4 / 350, "decay": 0.97},
}
"""What one kind or one schedule alone has, with its defaults."""
_EPS: Final = {"adamw": 1e-8, "adam": 1e-8, "rmsprop": 1e-3}


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """An optimizer and the schedule of its learning rate; None is the kind's or the schedule's own value.

    kind: adamw, adam or rmsprop.
    schedule: one-cycle (half a cosine up, half a cosine down), steps (times `decay` at `milestones`) or exponential
        (times `decay` every `decay_every`).
    learning_rate: the highest, for `reference_batch` images a step; it scales linearly with the batch size. 0.04 for 32
        is for adamw (method: adam 0.001 for 384, rmsprop 0.016 for 256).
    reference_batch: batch size that learning_rate is for.
    weight_decay: on the weights of convolutions and linears only; decoupled in adamw, added to the gradient in adam and
        rmsprop.
    betas: of adam's and adamw's averages of the gradients and of their squares, 0.9 and 0.999; the second forgets the
        gradients of a run's start, often the largest, over 1 / (1 - beta) steps, and importances with them.
    momentum: of rmsprop, 0.9; each gradient moves a weight by learning_rate / (1 - momentum) in the end.
    alpha: of rmsprop's average of squared gradients, 0.9.
    eps: added to the root of the squared gradients; 1e-8, rmsprop 1e-3.
    warmup: share of the steps in which the learning rate rises: half a cosine in one-cycle, else a straight line.
    start_division: the warm-up starts at the highest rate divided by this (method: 25).
    end_division: one-cycle ends at the highest rate divided by start_division and by this, 1e4.
    milestones: of steps, rising shares of the run, 0.6 and 0.85.
    decay: factor of steps, 0.1, and of exponential, 0.97.
    decay_every: of exponential, a share of the run, counted from its start: 2.4 of 350 epochs.
    """

    kind: str = "adamw"
    schedule: str = "one-cycle"
    learning_rate: float = 0.04
    reference_batch: int = 32
    weight_decay: float = 1e-5
    betas: tuple[float, float] | None = None
    momentum: float | None = None
    alpha: float | None = None
    eps: float | None = None
    warmup: float = 0.1
    start_division: float = 25.0
    end_division: float | None = None
    milestones: tuple[float, ...] | None = None
    decay: float | None = None
    decay_every: float | None = None

    def __post_init__(self) -> None:
        for name, known in (("kind", KINDS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                value = getattr(self, name)
                raise InputError(f"optimizer.{name} is unknown: '{value}'. {did_you_mean(str(value), known)}")
        self._refuse_unused()
        for name in ("learning_rate", "reference_batch", "eps", "start_division", "end_division"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"optimizer.{name} is {value}; it must be positive.")
        if not self.weight_decay >= 0:
            raise InputError(f"optimizer.weight_decay is {self.weight_decay}; it cannot be negative.")
        for name in ("warmup", "momentum", "alpha"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise InputError(f"optimizer.{name} is {value}; it must lie in [0, 1).")
        if self.betas is not None and not (len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)):
            raise InputError(
                f"optimizer.betas is {list(self.betas)}; two numbers in [0, 1) are needed, such as [0.9, 0.99]."
            )
        for name in ("decay", "decay_every"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise InputError(f"optimizer.{name} is {value}; it must lie in (0, 1].")
        shares = self.milestones
        if shares is not None and not (
            shares and all(0 < share < 1 for share in shares) and list(shares) == sorted(set(shares))
        ):
            raise InputError(
                f"optimizer.milestones is {list(shares)}; rising shares of the run within (0, 1) are needed, such as"
                " [0.6, 0.85]."
            )

    @property
    def reach(self) -> float:
        """How far a gradient moves a weight in the end, against a step without momentum.

        1 for Adam, whose momentum is an average of gradients; RMSprop's is their sum.
        """
        return 1 / (1 - self.value("momentum")) if self.kind == "rmsprop" else 1.0

    def value(self, name: str) -> Any:
        """Return what was given for an option of the kind or schedule, else that one's own value."""
        given = getattr(self, name)
        if given is not None:
            return given
        return _EPS[self.kind] if name == "eps" else (_OWN.get(self.kind, {}) | _OWN[self.schedule])[name]

    def _refuse_unused(self) -> None:
        used = _OWN.get(self.kind, {}).keys() | _OWN[self.schedule].keys()
        for owner, values in _OWN.items():
            for name in values:
                if name not in used and getattr(self, name) is not None:
                    switch = "kind" if owner in KINDS else "schedule"
                    owners = " or ".join(other for other, own in _OWN.items() if name in own)
                    raise InputError(
                        f"optimizer.{name} is given, but {getattr(self, switch)} has none. Leave it out (null where a"
                        f" recipe sets it), or set optimizer.{switch} to {owners}."
                    )


def learning_rate(options: OptimizerOptions, *, step: int, steps: int, batch_size: int) -> float:
    """Return the learning rate of a step, 0 <= step < steps."""
    highest = options.learning_rate * batch_size / options.reference_batch
    lowest = highest / options.start_division
    if options.schedule == "one-cycle":
        peak = options.warmup * (steps - 1)
        if step < peak:
            return _between(lowest, highest, step / peak)
        return _between(highest, lowest / options.value("end_division"), (step - peak) / max(steps - 1 - peak, 1))
    if options.schedule == "steps":
        falls = sum(step >= round(share * steps) for share in options.value("milestones"))
    else:
        # A little more than nothing, so that 0.07 * 100 steps is 7 and not 7.000000000000001.
        falls = math.floor(step / (options.value("decay_every") * steps) + 1e-9)
    rising = options.warmup * steps
    top = highest if step >= rising else lowest + (highest - lowest) * step / rising
    return float(top * options.value("decay") ** falls)


def make_optimizer(
    model: nn.Module, options: OptimizerOptions, *, scaled: Collection[nn.Parameter] = (), scale: float = 1.0
) -> torch.optim.Optimizer:
    """Return the optimizer over all parameters; groups carry "lr_scale", by which `set_learning_rate` multiplies.

    scaled: parameters that learn `scale` times as fast.
    """
    scaled_ids = {id(parameter) for parameter in scaled}
    decayed_ids = {id(module.weight) for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        decay = options.weight_decay if id(parameter) in decayed_ids else 0.0
        groups.setdefault((decay, scale if id(parameter) in scaled_ids else 1.0), []).append(parameter)
    plain = [
        {"params": parameters, "weight_decay": decay, "lr_scale": lr_scale}
        for (decay, lr_scale), parameters in groups.items()
    ]
    rate, eps = options.learning_rate, options.value("eps")
    if options.kind == "rmsprop":  # which torch has no fused one of
        momentum, alpha = options.value("momentum"), options.value("alpha")
        return torch.optim.RMSprop(plain, lr=rate, alpha=alpha, eps=eps, momentum=momentum, foreach=True)
    betas = options.value("betas")
    if options.kind == "adam":
        return torch.optim.Adam(plain, lr=rate, betas=betas, eps=eps, fused=True)
    return torch.optim.AdamW(plain, lr=rate, betas=betas, eps=eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group, times the group's own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def _between(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
