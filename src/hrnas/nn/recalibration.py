"""Batch-norm statistics made anew before an evaluation: reset, then a cumulative average over batches."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def recalibrate(model: nn.Module, images: Iterable[Tensor]) -> None:
    """Replace the running statistics of every batch norm by the plain average over the given batches, in place.

    images: normalised batches (B, C, H, W), on the model's device; with none given the statistics stay as they are.
    Only the batch norms run in training mode, so dropout stays off; afterwards every module has the mode it had.
    """
    modes = {module: module.training for module in model.modules()}
    norms = {module: module.momentum for module in model.modules() if isinstance(module, _BatchNorm)}
    model.eval()
    is_first = True
    try:
        for batch in images:
            if is_first:
                for norm in norms:
                    norm.reset_running_stats()
                    norm.momentum = None  # a cumulative average
                    norm.training = True
                is_first = False
            model(batch)
    finally:
        for norm, momentum in norms.items():
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
