"""The training state and one training step.

B batch (of this process), H height, W width.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from hrnas.engine.averages import Averages
from hrnas.engine.distributed import ALONE, Processes
from hrnas.engine.optimization import set_learning_rate
from hrnas.errors import NonFiniteError
from hrnas.models.network import Network

PRECISIONS: Final = ("float32", "bfloat16")


class Loss(Protocol):
    """What a step minimises: the sum of all terms over all targets, divided by the weight of all targets.

    So it does not depend on how a batch is divided among processes and micro-batches.
    """

    def loss_terms(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return named scalars, each a sum over the targets; the same names for every batch."""

    def weight(self, targets: Tensor) -> Tensor:
        """Return how many targets count, a scalar."""


@dataclass(kw_only=True)
class TrainState:
    """What a training run changes: the network, its optimizer, its averages, the number of steps done.

    processes: of the run; each holds the same state, bit for bit. sync_norm: batch norms see all processes' batches.
    seed: of the random numbers. replica: the network as it is trained, DDP with several processes.
    precision: one of PRECISIONS, of the operations in the network's forward and backward pass; all that is kept from
    step to step is float32, and so is the loss.
    """

    model: Network
    optimizer: torch.optim.Optimizer
    averages: Averages
    step: int = 0
    seconds: float = 0.0
    processes: Processes = ALONE
    sync_norm: bool = False
    seed: int = 0
    precision: str = "float32"
    replica: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.wrap()

    def wrap(self) -> None:
        """Make the replica; to be called anew whenever parameters of the model have been replaced."""
        self.replica = self.model  # lets go of the last one, and with it of its hooks on the gradients
        self.replica = self.processes.wrap(self.model, sync_norm=self.sync_norm)


def train_step(
    state: TrainState, images: Tensor, targets: Tensor, task: Loss, rate: float, *, accumulate: int = 1
) -> float:
    """Do one step and return its loss, that of all processes together.

    images: this process's share of the batch, normalised (B, 3, H, W); targets: what the task takes, B of them;
    rate: the learning rate; accumulate: micro-batches in which B images are worked on one after the other.
    Raises NonFiniteError, naming the loss term (or the gradient) and the step, on all processes, before weights,
    optimizer state or averages have changed.
    """
    processes = state.processes
    set_learning_rate(state.optimizer, rate)
    state.model.train()
    processes.seed(state.seed, state.step)
    weight = processes.sum(task.weight(targets)).clamp_min(1)
    totals: dict[str, Tensor] = {}
    parts = list(zip(images.chunk(accumulate), targets.chunk(accumulate), strict=True))
    for number, (part_images, part_targets) in enumerate(parts, 1):
        is_last = number == len(parts)
        with nullcontext() if is_last or processes.count == 1 else state.replica.no_sync():  # type: ignore[operator]
            with torch.autocast(images.device.type, torch.bfloat16, enabled=state.precision == "bfloat16"):
                outputs = state.replica(part_images)
            if outputs.dtype == torch.bfloat16:
                outputs = outputs.float()
            terms = {name: term / weight for name, term in task.loss_terms(outputs, part_targets).items()}
            totals = {name: term.detach() + totals.get(name, 0) for name, term in terms.items()}
            # DDP takes the mean over the processes, where the sum is wanted.
            (torch.stack(list(terms.values())).sum() * processes.count).backward()
    loss = _checked_loss(state, totals)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    processes.average_statistics(state.model)
    state.averages.update(state.model)
    state.step += 1
    return loss


def _checked_loss(state: TrainState, totals: dict[str, Tensor]) -> float:
    """Return the sum of the terms over all processes.

    Raises NonFiniteError on all of them when a term is not finite, or else the gradient. Both are asked at once, after
    the backward pass: each question waits for the device.
    """
    terms = state.processes.sum(torch.stack(list(totals.values())))
    gradients = [
        parameter.grad
        for group in state.optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    norm = torch.nn.utils.get_total_norm(gradients).to(terms)
    *values, norm_value = torch.cat([terms, norm[None]]).tolist()
    for name, value in zip(totals, values, strict=True):
        if not math.isfinite(value):
            raise _non_finite(state, f"Loss term '{name}'", value)
    if not math.isfinite(norm_value):
        raise _non_finite(state, "The gradient", norm_value)
    return sum(values)


def _non_finite(state: TrainState, what: str, value: float) -> NonFiniteError:
    state.optimizer.zero_grad(set_to_none=True)
    return NonFiniteError(
        f"{what} became {value} at step {state.step + 1}, before the optimizer step; checkpoints hold none of it. "
        "Lower optimizer.learning_rate or look at the data with 'hrnas check'."
    )
