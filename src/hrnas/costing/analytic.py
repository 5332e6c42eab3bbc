"""Exact cost from an Architecture alone (method: Golden figures).

MACs of one image: convolutions, linears, and both attentions of each transformer; nothing for norms, activations,
resizing, the position map. Parameters: all that are used. Sizes are (height, width) in pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from hrnas.arch.architecture import AnchorHead, Architecture, Block, ClassHead, DenseHead, Pillars

Size = tuple[int, int]


NORM_PARAMS: Final = 2
"""Parameters of a batch norm, for each channel: scale and shift."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of one forward pass of one image.

    macs: multiply-accumulates.
    params: parameters.
    """

    macs: int
    params: int

    @property
    def counts(self) -> dict[str, int]:
        """What a budget can limit, by its name there."""
        return {"macs": self.macs, "params": self.params}

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(macs=self.macs + other.macs, params=self.params + other.params)


@dataclass(frozen=True, kw_only=True)
class PlacedBlock:
    """A search block with the size of the map it works on."""

    name: str
    block: Block
    size_in: Size

    @property
    def size_out(self) -> Size:
        """Size of the map the block puts out."""
        return halved(self.size_in, self.block.stride)


def halved(size: Size, stride: int) -> Size:
    """Return the size after a padded convolution of that stride: the quotient, rounded up."""
    return (-(-size[0] // stride), -(-size[1] // stride))


def place_blocks(architecture: Architecture, input_size: Size) -> Iterator[PlacedBlock]:
    """Yield every search block with the size of its input, in the order of `architecture.blocks()`."""
    size = input_size
    for conv in architecture.stem:
        size = halved(size, conv.stride)
    sizes = [size]
    blocks = dict(architecture.blocks())
    for index, stage in enumerate(architecture.stages):
        fusion = f"stages.{index}.fusion"
        for position, path in enumerate(stage.paths):
            name = f"{fusion}.paths.{position}"
            yield PlacedBlock(name=name, block=blocks[name], size_in=sizes[path.source])
        sizes = sizes[: len(stage.branches) - len(stage.grow)]
        for position in range(len(stage.grow)):
            name = f"{fusion}.grow.{position}"
            yield PlacedBlock(name=name, block=blocks[name], size_in=sizes[-1])
            sizes.append(halved(sizes[-1], 2))
        for branch, branch_blocks in enumerate(stage.branches):
            for position in range(len(branch_blocks)):
                name = f"stages.{index}.branches.{branch}.{position}"
                yield PlacedBlock(name=name, block=blocks[name], size_in=sizes[branch])
    head = architecture.head
    if isinstance(head, DenseHead):
        yield PlacedBlock(name="head.block", block=head.block, size_in=sizes[0])
    elif isinstance(head, ClassHead):
        for part, head_blocks in (("widen", head.widen), ("down", head.down)):
            for position, block in enumerate(head_blocks):
                yield PlacedBlock(name=f"head.{part}.{position}", block=block, size_in=sizes[position])


def channel_macs(placed: PlacedBlock, kernel_size: int) -> int:
    """Return the MACs the network loses with one hidden channel: its expand, depthwise and project, and its gate's."""
    area_in, area_out = _area(placed.size_in), _area(placed.size_out)
    block = placed.block
    return area_in * block.in_channels + area_out * (kernel_size**2 + block.out_channels) + 2 * block.squeeze


def channel_params(block: Block, kernel_size: int) -> int:
    """Return the parameters the network loses with one hidden channel: its weights, two norms, and its gate's."""
    gate = 2 * block.squeeze + 1 if block.squeeze else 0
    return block.in_channels + kernel_size**2 + block.out_channels + 2 * NORM_PARAMS + gate


def last_channel_params(block: Block) -> int:
    """Return the parameters that go with a block's last hidden channel beside its own, where its constant stays.

    Of the shared norm the scale, of a squeeze-excitation the biases between its convolutions.
    """
    return block.out_channels + block.squeeze


def token_macs(block: Block, token_width: int) -> int:
    """Return the derivative of a transformer's MACs with respect to its tokens, at its present number of them."""
    projections = token_width * (block.in_channels + 2 + block.out_channels)
    return projections + 12 * token_width**2 + 8 * block.tokens * token_width


def transformer_macs(in_channels: int, out_channels: int, tokens: int, token_width: int) -> int:
    """Return the MACs of a lightweight transformer: width*n*(c+2+c_out) + 12*n*d^2 + 4*n^2*d."""
    projections = token_width * tokens * (in_channels + 2 + out_channels)
    return projections + 12 * tokens * token_width**2 + 4 * tokens**2 * token_width


def transformer_params(in_channels: int, out_channels: int, tokens: int, token_width: int) -> int:
    """Return the parameters of a lightweight transformer of at least one token.

    `12*d^2 + 8*d + 2*c_out` of them do not depend on its tokens: they go with the last one.
    """
    encoder_and_decoder = 12 * token_width**2 + 4 * NORM_PARAMS * token_width
    projections = tokens * (in_channels + 2 + out_channels)
    norms = NORM_PARAMS * (tokens + out_channels)
    return encoder_and_decoder + projections + norms + tokens * token_width


def block_cost(placed: PlacedBlock, token_size: int) -> Cost:
    """Return the cost of one search block, its skip and its transformer included."""
    block, token_width = placed.block, token_size**2
    area_out = _area(placed.size_out)
    macs = sum(channels * channel_macs(placed, size) for size, channels in block.kernels)
    params = sum(channels * channel_params(block, size) for size, channels in block.kernels)
    if block.kernels:
        params += NORM_PARAMS * block.out_channels + block.squeeze
    elif block.shift:
        params += block.out_channels
    if not block.is_residual:
        skip = block.in_channels * block.out_channels // block.skip_groups
        macs += area_out * skip
        params += skip
    if block.tokens:
        macs += transformer_macs(block.in_channels, block.out_channels, block.tokens, token_width)
        params += transformer_params(block.in_channels, block.out_channels, block.tokens, token_width)
    return Cost(macs=macs, params=params)


def cost(architecture: Architecture, input_size: Size) -> Cost:
    """Return the exact cost of a network for one image, or one map of pillars, of `input_size`.

    Of a network that takes point clouds it is the two-dimensional part's: what the pillars cost depends on the cloud
    (`pillar_cost`), and no search changes it.
    """
    total = Cost(macs=0, params=0)
    size, channels = input_size, architecture.in_channels
    for conv in architecture.stem:
        size = halved(size, conv.stride)
        weights = 9 * channels * conv.out_channels
        total += Cost(
            macs=_area(size) * weights,
            params=weights + NORM_PARAMS * conv.out_channels,
        )
        channels = conv.out_channels
    for placed in place_blocks(architecture, input_size):
        total += block_cost(placed, architecture.token_size)
    head = architecture.head
    if isinstance(head, DenseHead):
        weights = head.block.out_channels * head.outputs
        total += Cost(macs=_area(size) * weights, params=weights + head.outputs)
    elif isinstance(head, AnchorHead):
        weights = sum(feature.channels for feature in architecture.features) * head.channels
        total += Cost(macs=_area(size) * weights, params=weights + head.channels)
    elif head is not None:
        lowest = size
        for _ in head.down:
            lowest = halved(lowest, 2)
        convolution, linear = head.widen[-1].out_channels * head.features, head.features * head.outputs
        total += Cost(
            macs=_area(lowest) * convolution + linear,
            params=convolution + NORM_PARAMS * head.features + linear + head.outputs,
        )
    return total


def pillar_cost(pillars: Pillars) -> Cost:
    """Return what the pillars cost for each point that counts, and the pillar net's parameters.

    Each point's features go through one linear layer, so a cloud costs as much as it has points within the grid.
    """
    weights = pillars.FEATURES * pillars.channels
    return Cost(macs=weights, params=weights + NORM_PARAMS * pillars.channels)


def _area(size: Size) -> int:
    return size[0] * size[1]
