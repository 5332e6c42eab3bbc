"""The training state and one training step.

B batch, H height, W width.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from hrnas.engine.averages import Averages
from hrnas.engine.optimization import set_learning_rate
from hrnas.errors import NonFiniteError
from hrnas.models.network import Network

PRECISIONS: Final = ("float32", "bfloat16")

LossTerms = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""Logits and targets to named loss terms, scalars whose sum is minimised."""


@dataclass(kw_only=True)
class TrainState:
    """What a training run changes: the network, its optimizer, its averages, the number of steps done.

    precision: one of PRECISIONS, of the operations in the network's forward and backward pass; all that is kept from
    step to step is float32, and so is the loss.
    """

    model: Network
    optimizer: torch.optim.Optimizer
    averages: Averages
    step: int = 0
    seconds: float = 0.0
    precision: str = "float32"


def train_step(state: TrainState, images: Tensor, targets: Tensor, loss_terms: LossTerms, rate: float) -> float:
    """Do one step and return its loss.

    images: normalised (B, 3, H, W); targets: what loss_terms takes; rate: the learning rate.
    Raises NonFiniteError, naming the loss term (or the gradient) and the step, before weights, optimizer state or
    averages have changed.
    """
    set_learning_rate(state.optimizer, rate)
    state.model.train()
    with torch.autocast(images.device.type, torch.bfloat16, enabled=state.precision == "bfloat16"):
        outputs = state.model(images)
    terms = loss_terms(outputs.float(), targets)
    for name, term in terms.items():
        value = float(term.detach())
        if not math.isfinite(value):
            raise _non_finite(f"Loss term '{name}'", value, state.step + 1)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    gradients = [parameter.grad for parameter in state.model.parameters() if parameter.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients))
    if not math.isfinite(norm):
        state.optimizer.zero_grad(set_to_none=True)
        raise _non_finite("The gradient", norm, state.step + 1)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.averages.update(state.model)
    state.step += 1
    return float(loss.detach())


def _non_finite(what: str, value: float, step: int) -> NonFiniteError:
    return NonFiniteError(
        f"{what} became {value} at step {step}, before the optimizer step; checkpoints hold none of it. "
        "Lower optimizer.learning_rate or look at the data with 'hrnas check'."
    )
