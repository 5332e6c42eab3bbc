"""Evaluation of the averaged weights on recalibrated batch-norm statistics (method: The search)."""

from collections.abc import Iterable

import torch
from torch import Tensor

from hrnas.engine.averages import Averages
from hrnas.models.network import Network
from hrnas.nn.recalibration import recalibrate
from hrnas.nn.transformer import copy_presences


def averaged_network(model: Network, averages: Averages, calibration: Iterable[Tensor]) -> Network:
    """Return a new network, in evaluation mode, with the averaged weights and statistics of the calibration batches.

    model: gives the architecture and, during a search, the presences of its tokens; it is not changed.
    calibration: normalised batches (B, 3, H, W).
    """
    network = Network(model.architecture)
    network.to(next(model.parameters()).device, memory_format=torch.channels_last)
    averages.copy_to(network)
    copy_presences(model, network)
    recalibrate(network, calibration)
    return network.eval()
