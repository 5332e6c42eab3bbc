"""Moving averages of a network's weights, by name, so that a cut can cut them too."""

from typing import Final

import torch
from torch import Tensor, nn

REFERENCE_DECAY: Final = 0.9999
REFERENCE_BATCH: Final = 4096
"""The method's decay and the batch size it is for; at batch b it is decay^(b / 4096)."""


class Averages:
    """Exponential moving average of all parameters and floating-point buffers of a network.

    tensors: the averages by their names in the state dict. The decay is the method's, but in the first steps
    (1 + n) / (10 + n) after n updates, so that a short run averages over its last tenth and not over its start.
    """

    def __init__(self, model: nn.Module, batch_size: int) -> None:
        self.decay = REFERENCE_DECAY ** (batch_size / REFERENCE_BATCH)
        self.num_updates = 0
        self.tensors: dict[str, Tensor] = {
            name: value.detach().clone() for name, value in model.state_dict().items() if value.is_floating_point()
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move every average towards the network's present value."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        values = model.state_dict()
        assert len(self.tensors) == sum(value.is_floating_point() for value in values.values()), "shapes have parted"
        names = list(self.tensors)
        torch._foreach_lerp_([self.tensors[name] for name in names], [values[name] for name in names], 1 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Put the averages into a network of the same architecture; its integer buffers stay."""
        model.load_state_dict({**model.state_dict(), **self.tensors})
