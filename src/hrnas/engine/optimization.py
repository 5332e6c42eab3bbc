"""The optimizer and its learning-rate schedule (method: Training, per task)."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn

from hrnas.errors import InputError


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """AdamW under a one-cycle schedule.

    learning_rate: the highest, for `reference_batch` images a step; it scales linearly with the batch size.
    reference_batch: batch size that learning_rate is for.
    weight_decay: decoupled; on the weights of convolutions and linears only.
    warmup: share of the steps in which the learning rate rises.
    start_division: the schedule starts at the highest rate divided by this (method: 25).
    end_division: and ends at the starting rate divided by this.
    """

    learning_rate: float = 0.04
    reference_batch: int = 32
    weight_decay: float = 1e-5
    warmup: float = 0.1
    start_division: float = 25.0
    end_division: float = 1e4

    def __post_init__(self) -> None:
        for name in ("learning_rate", "reference_batch", "start_division", "end_division"):
            if getattr(self, name) <= 0:
                raise InputError(f"optimizer.{name} is {getattr(self, name)}; it must be positive.")
        if self.weight_decay < 0:
            raise InputError(f"optimizer.weight_decay is {self.weight_decay}; it cannot be negative.")
        if not 0 <= self.warmup < 1:
            raise InputError(f"optimizer.warmup is {self.warmup}; it must lie in [0, 1).")


def learning_rate(options: OptimizerOptions, *, step: int, steps: int, batch_size: int) -> float:
    """Return the learning rate of a step, 0 <= step < steps: half a cosine up, half a cosine down (one-cycle)."""
    highest = options.learning_rate * batch_size / options.reference_batch
    lowest = highest / options.start_division
    peak = options.warmup * (steps - 1)
    if step < peak:
        return _between(lowest, highest, step / peak)
    return _between(highest, lowest / options.end_division, (step - peak) / max(steps - 1 - peak, 1))


def make_optimizer(
    model: nn.Module, options: OptimizerOptions, *, scaled: Collection[nn.Parameter] = (), scale: float = 1.0
) -> torch.optim.AdamW:
    """Return AdamW over all parameters; groups carry "lr_scale", by which `set_learning_rate` multiplies.

    scaled: parameters that learn `scale` times as fast.
    """
    scaled_ids = {id(parameter) for parameter in scaled}
    decayed_ids = {id(module.weight) for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        decay = options.weight_decay if id(parameter) in decayed_ids else 0.0
        groups.setdefault((decay, scale if id(parameter) in scaled_ids else 1.0), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "lr_scale": lr_scale}
            for (decay, lr_scale), parameters in groups.items()
        ],
        lr=options.learning_rate,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group, times the group's own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def _between(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
