"""Moving averages of a network's weights, by name, so that a cut can cut them too."""

from typing import Final

import torch
from torch import Tensor

from hrnas.arch.architecture import Architecture
from hrnas.models.network import Backbone

REFERENCE_DECAY: Final = 0.9999
REFERENCE_BATCH: Final = 4096
"""The method's decay and the batch size it is for; at batch b it is decay^(b / 4096)."""


class Averages:
    """Exponential moving average of all parameters and floating-point buffers of a network.

    tensors: the averages by their names in the state dict. The decay is the method's, but in the first steps
    (1 + n) / (10 + n) after n updates, so that a short run averages over its last tenth and not over its start.
    """

    def __init__(self, model: Backbone, batch_size: int) -> None:
        self.decay = REFERENCE_DECAY ** (batch_size / REFERENCE_BATCH)
        self.num_updates = 0
        self.tensors: dict[str, Tensor] = {
            name: value.detach().clone() for name, value in model.state_dict().items() if value.is_floating_point()
        }
        self._paired: tuple[Backbone, Architecture] | None = None
        self._averages: list[Tensor] = []
        self._values: list[Tensor] = []

    @torch.no_grad()
    def update(self, model: Backbone) -> None:
        """Move every average towards the network's present value."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        # To ask a network for its tensors takes longer than to average them. A cut, which replaces tensors, also gives
        # the network another architecture.
        if self._paired is None or self._paired[0] is not model or self._paired[1] is not model.architecture:
            self._pair(model)
        torch._foreach_lerp_(self._averages, self._values, 1 - decay)

    def _pair(self, model: Backbone) -> None:
        """List the averages and the network's values, in the same order."""
        values = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
        assert self.tensors.keys() == values.keys(), "shapes have parted"
        self._averages, self._values = list(self.tensors.values()), [values[name] for name in self.tensors]
        self._paired = (model, model.architecture)

    @torch.no_grad()
    def copy_to(self, model: Backbone) -> None:
        """Put the averages into a network of the same architecture; its integer buffers stay."""
        model.load_state_dict({**model.state_dict(), **self.tensors})
