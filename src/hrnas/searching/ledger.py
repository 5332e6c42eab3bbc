"""The ledger: exact MACs and parameters of a network while units are taken out of it and put back.

Units do not cost alike: a token costs more the more there are, and the last unit of a block or of a transformer takes
with it what belongs to none alone. The ledger counts as `costing.analytic` does, without making every network.
"""

from hrnas.arch.architecture import Architecture
from hrnas.costing.analytic import Size, cost, last_channel_params, transformer_macs, transformer_params
from hrnas.searching.units import unit_groups


class Ledger:
    """Cost of a network less the units taken; groups are those of `unit_groups`, by their place there.

    counts: "macs" and "params" as they stand.
    """

    def __init__(self, architecture: Architecture, input_size: Size) -> None:
        self.groups = unit_groups(architecture, input_size)
        self.counts = cost(architecture, input_size).counts
        self._blocks = dict(architecture.blocks())
        self._token_width = architecture.token_size**2
        self._left = [group.count for group in self.groups]
        self._hidden = {name: block.hidden_channels for name, block in self._blocks.items()}

    def take(self, group: int, count: int = 1) -> None:
        """Take `count` units out of a group; a negative count puts them back."""
        name, left = self.groups[group].block, self._left[group]
        block = self._blocks[name]
        if self.groups[group].kernel_size is None:
            macs = self._transformer(name, left)[0] - self._transformer(name, left - count)[0]
            params = self._transformer(name, left)[1] - self._transformer(name, left - count)[1]
        else:
            hidden = self._hidden[name]
            self._hidden[name] = hidden - count
            macs, params = count * self.groups[group].macs, count * self.groups[group].params
            params += last_channel_params(block) * ((hidden > 0) - (hidden > count))
        assert 0 <= left - count <= self.groups[group].count, "no such units"
        self._left[group] = left - count
        self.counts["macs"] -= macs
        self.counts["params"] -= params

    def take_all(self) -> None:
        """Take every unit: the smallest network that can be cut from here."""
        for group, left in enumerate(self._left.copy()):
            self.take(group, left)

    def _transformer(self, name: str, tokens: int) -> tuple[int, int]:
        if not tokens:
            return 0, 0
        block = self._blocks[name]
        widths = (block.in_channels, block.out_channels, tokens, self._token_width)
        return transformer_macs(*widths), transformer_params(*widths)
