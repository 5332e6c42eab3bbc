"""Retiring: units on their way out of a network, smoothly, so that no cut is felt.

A unit that is to leave gets a deadline. Until then its presence falls from 1 to 0 with the third power of the steps
left, so that it arrives flat. A channel's factor falls alike: at factor zero it puts out a constant, which a cut
preserves. Behind a squeeze-excitation, which weighs it anew for every image, it is no constant: there the channel's
shift falls with the factor, and at zero the channel is silent. A token at presence zero is out of attention
(`nn.transformer`); its factor stays as it is, for the layer norms behind it would undo a small one. A block that loses
all its channels fades with the scale of its shared norm, which would undo any common scale of theirs. Freed units are
held at zero until they are cut.

U number of units.
"""

from collections.abc import Iterator, MutableMapping

import torch
from torch import Tensor

from hrnas.models.network import Backbone
from hrnas.nn.transformer import LightweightTransformer, set_presences
from hrnas.searching.units import UnitGroup, blocks_of, num_units

STAYS = -1


class Retirement:
    """Which units of a network are leaving, and how far they have gone.

    Fades the model's scales and the averaged ones alike, so that the cut is felt in neither network.
    deadline: int64 (U,), the step after which a unit is at zero; STAYS for those that stay.
    presence: float (U,), 1 for those that stay.
    """

    def __init__(
        self, model: Backbone, groups: tuple[UnitGroup, ...], averages: MutableMapping[str, Tensor] | None = None
    ) -> None:
        self._averages = {} if averages is None else averages
        count = num_units(groups)
        self.deadline = torch.full((count,), STAYS, dtype=torch.int64)
        self.presence = torch.ones(count)
        self.attach(model, groups)

    def attach(self, model: Backbone, groups: tuple[UnitGroup, ...]) -> None:
        """Work on a network that has these units; after each cut, and when presences were set from outside."""
        assert num_units(groups) == len(self.deadline), "deadlines and presences belong to another network"
        self._model = model
        self._channels: list[tuple[str, slice]] = []  # a block that has channels, and which they are
        self._gated: list[tuple[str, slice]] = []  # the same, of those with a squeeze-excitation
        transformers, is_token = [], []
        blocks = dict(model.architecture.blocks())
        for name, first, own in blocks_of(groups):
            count = sum(group.count for group in own if group.kernel_size is not None)
            if count:
                self._channels.append((name, slice(first, first + count)))
            if blocks[name].squeeze:
                self._gated.append(self._channels[-1])
            is_token.append(torch.zeros(count, dtype=torch.bool))
            if own[-1].kernel_size is None:
                transformer = model.get_submodule(f"{name}.transformer")
                assert isinstance(transformer, LightweightTransformer)
                transformers.append(transformer)
                is_token.append(torch.ones(own[-1].count, dtype=torch.bool))
        self._is_token = torch.cat(is_token) if is_token else torch.zeros(0, dtype=torch.bool)
        self._transformers = transformers
        self._show_presence()

    @property
    def leaving(self) -> Tensor:
        """bool (U,): units that have a deadline."""
        return self.deadline != STAYS

    @property
    def fades(self) -> Tensor:
        """bool (U,): units of which much may be left at factor zero, so that they cannot vanish at once."""
        fades = self._is_token.clone()
        for _, own in self._gated:
            fades[own] = True
        return fades

    @property
    def gone(self) -> Tensor:
        """bool (U,): units that are at zero and can be cut."""
        return self.presence == 0

    def retire(self, chosen: Tensor, deadline: int) -> None:
        """Let units leave by a step; chosen: bool (U,). An earlier deadline of theirs stays."""
        later = chosen & ((self.deadline == STAYS) | (self.deadline > deadline))
        self.deadline[later] = deadline

    @torch.no_grad()
    def vanish(self, chosen: Tensor, step: int) -> None:
        """Put units at zero at once, bool (U,): dead ones, of which little is left; none of those that fade."""
        self.deadline[chosen] = step
        self.presence[chosen] = 0.0
        self._scale_channels((~chosen).float())

    def release(self, chosen: Tensor) -> None:
        """Let units stay after all, bool (U,); their factors grow again from where they are."""
        self.deadline[chosen] = STAYS
        self.presence[chosen] = 1.0
        self._show_presence()

    @torch.no_grad()
    def step(self, step: int) -> None:
        """Fade the leaving units as they shall be after `step`; call once a step, after the optimizer's."""
        leaving = self.leaving
        if not bool(leaving.any()):
            return
        left = (self.deadline - step + 1).clamp_min(1).float()  # steps to go, this one included
        ratio = torch.where(leaving, ((left - 1) / left) ** 3, torch.ones_like(left))
        self.presence *= ratio
        self._scale_channels(ratio)
        deadline = self.deadline.numpy()
        # A block closes as its last channels do.
        closing = [
            (name, own) for name, own in self._channels if deadline[own].min() != STAYS and deadline[own].max() >= step
        ]
        for tensors, slices in self._of_blocks("project_norm.weight", closing):
            torch._foreach_mul_(tensors, [float(ratio[own].max()) for own in slices])
        self._show_presence()

    def keep(self, kept: Tensor) -> None:
        """Forget units that were cut; kept: bool (U,). `attach` must follow."""
        self.deadline, self.presence = self.deadline[kept], self.presence[kept]

    def _scale_channels(self, ratio: Tensor) -> None:
        """Multiply the factors of the channels, and their averages, by their ratios; ratio: float (U,).

        Behind a squeeze-excitation their shifts too.
        """
        for name, blocks in (("depthwise_norm.weight", self._channels), ("depthwise_norm.bias", self._gated)):
            for tensors, slices in self._of_blocks(name, blocks):
                there = ratio.to(tensors[0].device)
                torch._foreach_mul_(tensors, [there[own] for own in slices])

    def _of_blocks(self, name: str, blocks: list[tuple[str, slice]]) -> Iterator[tuple[list[Tensor], list[slice]]]:
        """Yield a parameter of each of some blocks, with the blocks' units; then the averages of these parameters."""
        names = [(f"{block}.{name}", own) for block, own in blocks]
        of_model = [(self._model.get_parameter(full), own) for full, own in names]
        averaged = [(self._averages[full], own) for full, own in names if full in self._averages]
        for tensors in (of_model, averaged):
            if tensors:
                yield [tensor for tensor, _ in tensors], [own for _, own in tensors]

    def _show_presence(self) -> None:
        """Give every transformer the presences of its tokens."""
        set_presences(self._transformers, self.presence[self._is_token])
