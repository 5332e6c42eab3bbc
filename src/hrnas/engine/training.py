"""The training state and one training step.

B batch, H height, W width.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hrnas.engine.averages import Averages
from hrnas.engine.optimization import set_learning_rate
from hrnas.errors import NonFiniteError
from hrnas.models.network import Network

LossTerms = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""Logits and targets to named loss terms, scalars whose sum is minimised."""


@dataclass(kw_only=True)
class TrainState:
    """What a training run changes: the network, its optimizer, its averages, the number of steps done."""

    model: Network
    optimizer: torch.optim.Optimizer
    averages: Averages
    step: int = 0
    seconds: float = 0.0


def train_step(state: TrainState, images: Tensor, targets: Tensor, loss_terms: LossTerms, rate: float) -> float:
    """Do one step and return its loss.

    images: normalised (B, 3, H, W); targets: what loss_terms takes; rate: the learning rate.
    Raises NonFiniteError, naming the loss term and the step, before weights, optimizer state or averages have changed.
    """
    set_learning_rate(state.optimizer, rate)
    state.model.train()
    terms = loss_terms(state.model(images), targets)
    for name, term in terms.items():
        value = float(term.detach())
        if not math.isfinite(value):
            raise NonFiniteError(
                f"Loss term '{name}' became {value} at step {state.step + 1}, before the optimizer step; the "
                "last checkpoint is good. Lower optimizer.learning_rate or look at the data with 'hrnas check'."
            )
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.averages.update(state.model)
    state.step += 1
    return float(loss.detach())
