"""The independent count: run the built network on the meta device and let torch count what it does."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hrnas.costing.analytic import Cost, Size


def count(model: nn.Module, input_size: Size, in_channels: int = 3) -> Cost:
    """Return the MACs of one forward pass and the parameters of a network, counted by torch.

    model: on the meta device, in evaluation mode; elsewhere torch counts scaled_dot_product_attention as 0. One without
    pillars: the two-dimensional part is counted at the size of its map.
    """
    image = torch.empty(1, in_channels, *input_size, device="meta")
    # With gradients on: under no_grad the counter stumbles over parameters that enter a module as arguments.
    with FlopCounterMode(display=False) as counter:
        model(image)
    # The counter's unit is the floating-point operation, two for each MAC.
    macs, rest = divmod(counter.get_total_flops(), 2)
    assert rest == 0
    return Cost(macs=macs, params=sum(parameter.numel() for parameter in model.parameters()))
