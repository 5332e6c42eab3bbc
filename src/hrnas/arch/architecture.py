"""The frozen description of a network: the single source of its modules, its cost and its report.

Names of blocks are the module paths inside the built network, so `model.get_submodule(name)` is the block:
`stages.S.fusion.paths.P`, `stages.S.fusion.grow.G`, `stages.S.branches.B.K`; `head.block` of a dense head,
`head.widen.B` and `head.down.D` of a head of classes; a head of anchors has none.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

from hrnas.arch.codec import LATER
from hrnas.errors import InputError, did_you_mean

ACTIVATIONS: Final = ("relu", "swish")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def _check_outputs(outputs: int) -> None:
    _require(outputs >= 1, f"outputs is {outputs}; a head needs at least 1 (the number of classes).")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A search block: parallel kernel paths, a skip, and a lightweight transformer when `tokens` > 0.

    in_channels, out_channels: widths of the input and output maps.
    stride: 1 or 2.
    kernels: kernel size -> hidden channels of that kernel path; a path without channels is not listed.
    tokens: number of tokens of the transformer; 0 = no transformer.
    shift: only for a block without kernels: it keeps the per-channel constant its kernel paths had.
    squeeze: hidden width of the squeeze-excitation before the projection; 0 = none. Only for a block with kernels.
    """

    in_channels: int
    out_channels: int
    stride: int = 1
    kernels: tuple[tuple[int, int], ...] = ()
    tokens: int = 0
    shift: bool = False
    squeeze: int = field(default=0, metadata=LATER)

    def __post_init__(self) -> None:
        for label, value in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            _require(value >= 1, f"{label} is {value}; a block needs at least 1 channel.")
        _require(self.stride in (1, 2), f"stride is {self.stride}; a block has stride 1 or 2.")
        sizes = [size for size, _ in self.kernels]
        _require(
            sizes == sorted(set(sizes)) and all(size % 2 == 1 and size >= 1 for size in sizes),
            f"kernels have sizes {sizes}; kernel sizes are odd, each at most once, in ascending order.",
        )
        for size, channels in self.kernels:
            _require(channels >= 1, f"kernel {size} has {channels} channels; leave the kernel out to have none.")
        _require(self.tokens >= 0, f"tokens is {self.tokens}; it cannot be negative.")
        _require(not (self.shift and self.kernels), "shift is set on a block with kernels; only an empty block has it.")
        _require(self.squeeze >= 0, f"squeeze is {self.squeeze}; it cannot be negative.")
        _require(
            bool(self.kernels) or not self.squeeze,
            f"squeeze is {self.squeeze} on a block without kernels; there it is 0, for it has no hidden channels.",
        )

    @property
    def hidden_channels(self) -> int:
        """Hidden channels of all kernel paths together."""
        return sum(channels for _, channels in self.kernels)

    def with_kernels(self, kernels: tuple[tuple[int, int], ...], *, shift: bool = False) -> "Block":
        """Return this block with other kernel paths; without any it has no squeeze-excitation either."""
        return replace(self, kernels=kernels, shift=shift, squeeze=self.squeeze if kernels else 0)

    @property
    def is_residual(self) -> bool:
        """True when the skip is the identity: stride 1 and equal widths."""
        return self.stride == 1 and self.in_channels == self.out_channels

    @property
    def skip_groups(self) -> int:
        """Groups of the 1x1 skip convolution of a block that changes width or stride (method: gcd of the widths)."""
        return math.gcd(self.in_channels, self.out_channels)


@dataclass(frozen=True, kw_only=True)
class StemConv:
    """One 3x3 convolution of the stem, with BN and the network's activation."""

    out_channels: int
    stride: int = 2

    def __post_init__(self) -> None:
        _require(self.out_channels >= 1, f"stem out_channels is {self.out_channels}; at least 1 is needed.")
        _require(self.stride in (1, 2), f"stem stride is {self.stride}; 1 or 2 is needed.")


@dataclass(frozen=True, kw_only=True)
class Pillars:
    """How a point cloud becomes the input map: pillars of points on a grid, a feature vector for each.

    Source: PointPillars (Lang et al. 2019), section 2.1.
    cell: side of a pillar in metres. rows, columns: of the grid: x from 0 to columns * cell, y from -rows * cell / 2 to
    rows * cell / 2. bottom, top: the points' range of z in metres.
    points: at most so many of a pillar. train_pillars, pillars: at most so many of a cloud, in training and else.
    channels: of a feature vector, the channels of the map.
    """

    FEATURES: ClassVar[int] = 9
    """Of a point: x, y, z, reflectance, its offsets to the mean of its pillar's points (3), the pillar's middle (2)."""

    cell: float = 0.16
    rows: int = 496
    columns: int = 432
    bottom: float = -3.0
    top: float = 1.0
    points: int = 32
    train_pillars: int = 16_000
    pillars: int = 40_000
    channels: int = 64

    def __post_init__(self) -> None:
        _require(0.01 <= self.cell <= 10, f"pillars.cell is {self.cell}; a number of metres in 0.01..10 is needed.")
        for name in ("rows", "columns", "points", "train_pillars", "pillars", "channels"):
            _require(getattr(self, name) >= 1, f"pillars.{name} is {getattr(self, name)}; at least 1 is needed.")
        _require(
            -1000 <= self.bottom < self.top <= 1000,
            f"pillars reach from {self.bottom} to {self.top}; within -1000..1000 bottom must lie below top.",
        )

    @property
    def reach(self) -> tuple[float, float]:
        """Metres ahead of the lidar and to either side that the grid covers."""
        return self.columns * self.cell, self.rows * self.cell / 2

    @property
    def reach_words(self) -> str:
        """The reach, in words."""
        ahead, aside = self.reach
        return f"{ahead:.4g} m ahead and {aside:.4g} m to either side"


@dataclass(frozen=True, kw_only=True)
class FusionPath:
    """The search block that carries branch `source` into branch `target`; neighbours only."""

    source: int
    target: int
    block: Block

    def __post_init__(self) -> None:
        _require(
            abs(self.source - self.target) <= 1 and min(self.source, self.target) >= 0,
            f"a fusion path goes from branch {self.source} to {self.target}; only neighbours (or the same) are joined.",
        )
        stride = 2 if self.target > self.source else 1
        _require(
            self.block.stride == stride,
            f"the path from branch {self.source} to {self.target} has stride {self.block.stride}; it needs {stride}.",
        )


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A fusion module, then a parallel module.

    paths: the fusion paths, ordered by target, then by source.
    grow: the stride-2 blocks that make new branches, each from the branch above it.
    branches: the blocks of every branch of the parallel module, highest resolution first.
    """

    paths: tuple[FusionPath, ...]
    grow: tuple[Block, ...]
    branches: tuple[tuple[Block, ...], ...]


@dataclass(frozen=True, kw_only=True)
class DenseHead:
    """Head of dense tasks: branches resized to branch 0, concatenated, one search block, a 1x1 convolution.

    block: the search block on the concatenated branches.
    outputs: classes of a segmentation, joints of a pose.
    """

    kind: ClassVar[str] = "dense"

    block: Block
    outputs: int

    def __post_init__(self) -> None:
        _check_outputs(self.outputs)


@dataclass(frozen=True, kw_only=True)
class ClassHead:
    """Head of classification: every branch widened, then from the top one block down and the next branch added.

    The sum at the lowest resolution goes through a 1x1 convolution with BN and activation, the global average, dropout
    and a linear layer.
    widen: a block of stride 1 for every branch. down: the blocks of stride 2 between them, one fewer.
    features: width of the 1x1 convolution. outputs: classes. dropout: before the linear layer, in training.
    """

    kind: ClassVar[str] = "classes"

    widen: tuple[Block, ...]
    down: tuple[Block, ...]
    features: int
    outputs: int
    dropout: float = 0.2

    def __post_init__(self) -> None:
        _check_outputs(self.outputs)
        _require(self.features >= 1, f"features is {self.features}; a head of classes needs at least 1.")
        _require(0 <= self.dropout < 1, f"dropout is {self.dropout}; it must lie in [0, 1).")
        _require(
            len(self.widen) == len(self.down) + 1,
            f"widen has {len(self.widen)} blocks and down {len(self.down)}; down has one fewer, between the branches.",
        )
        for index, block in enumerate(self.widen):
            _require(block.stride == 1, f"widen.{index} has stride 2; it needs 1.")
        for index, block in enumerate(self.down):
            got, needed = (block.in_channels, block.out_channels), self._widths(index)
            _require(block.stride == 2, f"down.{index} has stride 1; it needs 2.")
            _require(got == needed, f"down.{index} goes from {got[0]} to {got[1]} channels; widen has {needed}.")

    def _widths(self, index: int) -> tuple[int, int]:
        return self.widen[index].out_channels, self.widen[index + 1].out_channels


@dataclass(frozen=True, kw_only=True)
class AnchorHead:
    """Head of 3D detection: branches resized to branch 0, concatenated, a 1x1 convolution to all anchors of a place.

    Source: PointPillars (Lang et al. 2019), section 2.3: classes, boxes and directions, each with a bias.
    outputs: classes of objects; at each place each of them has YAWS anchors.
    """

    kind: ClassVar[str] = "anchors"
    BOX: ClassVar[int] = 7
    """Numbers of a box: three of its place, three of its size, its yaw."""
    DIRECTIONS: ClassVar[int] = 2
    YAWS: ClassVar[int] = 2
    """Along the lidar's x and across."""

    outputs: int

    def __post_init__(self) -> None:
        _check_outputs(self.outputs)

    @property
    def anchors(self) -> int:
        """Boxes at each place, of all classes."""
        return self.YAWS * self.outputs

    @property
    def channels(self) -> int:
        """Of the map: anchors * outputs of scores, then anchors * 7 of boxes, then anchors * 2 of directions."""
        return self.anchors * (self.outputs + self.BOX + self.DIRECTIONS)


Head = DenseHead | ClassHead | AnchorHead


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What a branch gives to a head: its width and its stride against the input image."""

    channels: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A whole network.

    name: for people; the fingerprint of the file tells networks apart.
    stem: the convolutions before the first stage.
    stages: fusion and parallel modules.
    head: None gives the branches themselves (a backbone).
    in_channels: channels of the input image or map.
    pillars: makes the input map of a point cloud; None for a network that takes images. It is not searched.
    activation: "relu" or "swish" (x * sigmoid(x)), everywhere but in the transformers, whose feed-forward has ReLU.
    token_size: side s of the map a transformer resizes to; a token is s*s wide.
    attention_heads: heads of the transformers' attention.
    dropout: dropout of the transformers, in training.
    norm_momentum, norm_eps: of every batch norm.
    """

    name: str
    stem: tuple[StemConv, ...]
    stages: tuple[Stage, ...]
    head: Head | None
    in_channels: int = 3
    pillars: Pillars | None = field(default=None, metadata=LATER)
    activation: str = field(default="relu", metadata=LATER)
    token_size: int = 8
    attention_heads: int = 1
    dropout: float = 0.1
    norm_momentum: float = 0.01
    norm_eps: float = 1e-3

    def __post_init__(self) -> None:
        _require(self.in_channels >= 1, f"in_channels is {self.in_channels}; an image has at least 1.")
        if self.pillars is not None:
            got, needed = self.in_channels, self.pillars.channels
            _require(got == needed, f"in_channels is {got}; pillars.channels is {needed}. Make them equal.")
        if self.activation not in ACTIVATIONS:
            raise InputError(f"Unknown activation '{self.activation}'. {did_you_mean(self.activation, ACTIVATIONS)}")
        _require(self.token_size >= 1, f"token_size is {self.token_size}; at least 1 is needed.")
        _require(
            self.attention_heads >= 1 and self.token_size**2 % self.attention_heads == 0,
            f"attention_heads is {self.attention_heads}; it must divide the token width {self.token_size**2}.",
        )
        _require(0 <= self.dropout < 1, f"dropout is {self.dropout}; it must lie in [0, 1).")
        _require(0 < self.norm_momentum <= 1, f"norm_momentum is {self.norm_momentum}; it must lie in (0, 1].")
        _require(0 < self.norm_eps < math.inf, f"norm_eps is {self.norm_eps}; it must be positive and finite.")
        _require(len(self.stem) >= 1, "stem is empty; it needs at least one convolution.")
        _require(len(self.stages) >= 1, "stages is empty; a network needs at least one stage.")
        widths = [self.stem[-1].out_channels]
        for index, stage in enumerate(self.stages):
            widths = _check_stage(f"stages.{index}", stage, widths)
        if isinstance(self.head, DenseHead):
            got, needed = self.head.block.in_channels, sum(widths)
            _require(got == needed, f"head.block takes {got} channels; the branches together have {needed}.")
            _require(self.head.block.stride == 1, "head.block has stride 2; the head's block has stride 1.")
        elif isinstance(self.head, ClassHead):
            taken = [block.in_channels for block in self.head.widen]
            _require(taken == widths, f"head.widen takes {taken} channels; the branches have {widths}.")

    @property
    def features(self) -> tuple[Feature, ...]:
        """Width and stride of every branch after the last stage, highest resolution first."""
        stride = math.prod(conv.stride for conv in self.stem)
        branches = self.stages[-1].branches
        widths = _branch_widths(self.stages[-1], branches)
        return tuple(Feature(channels=width, stride=stride * 2**index) for index, width in enumerate(widths))

    def blocks(self) -> Iterator[tuple[str, Block]]:
        """Yield every search block with its name, in the order the 2021 code lists them."""
        for index, stage in enumerate(self.stages):
            prefix = f"stages.{index}"
            for position, path in enumerate(stage.paths):
                yield f"{prefix}.fusion.paths.{position}", path.block
            for position, block in enumerate(stage.grow):
                yield f"{prefix}.fusion.grow.{position}", block
            for branch, blocks in enumerate(stage.branches):
                for position, block in enumerate(blocks):
                    yield f"{prefix}.branches.{branch}.{position}", block
        if isinstance(self.head, DenseHead):
            yield "head.block", self.head.block
        elif isinstance(self.head, ClassHead):
            for part, blocks in (("widen", self.head.widen), ("down", self.head.down)):
                for position, block in enumerate(blocks):
                    yield f"head.{part}.{position}", block

    def with_blocks(self, changed: Mapping[str, Block]) -> "Architecture":
        """Return this architecture with the named blocks replaced; an unknown name is an error of ours."""
        unknown = set(changed) - {name for name, _ in self.blocks()}
        assert not unknown, f"no such blocks: {sorted(unknown)}"

        def new(name: str, block: Block) -> Block:
            return changed.get(name, block)

        stages = []
        for index, stage in enumerate(self.stages):
            fusion = f"stages.{index}.fusion"
            stages.append(
                Stage(
                    paths=tuple(
                        replace(path, block=new(f"{fusion}.paths.{position}", path.block))
                        for position, path in enumerate(stage.paths)
                    ),
                    grow=tuple(new(f"{fusion}.grow.{position}", block) for position, block in enumerate(stage.grow)),
                    branches=tuple(
                        tuple(
                            new(f"stages.{index}.branches.{branch}.{position}", block)
                            for position, block in enumerate(blocks)
                        )
                        for branch, blocks in enumerate(stage.branches)
                    ),
                )
            )
        head = self.head
        if isinstance(head, DenseHead):
            head = replace(head, block=new("head.block", head.block))
        elif isinstance(head, ClassHead):
            head = replace(
                head,
                widen=tuple(new(f"head.widen.{position}", block) for position, block in enumerate(head.widen)),
                down=tuple(new(f"head.down.{position}", block) for position, block in enumerate(head.down)),
            )
        return replace(self, stages=tuple(stages), head=head)


def _check_stage(name: str, stage: Stage, widths_in: list[int]) -> list[int]:
    """Check that a stage's blocks fit each other and the branches that come in; return the widths going out."""
    num_in, num_out = len(widths_in), len(stage.branches)
    num_fused = num_out - len(stage.grow)
    _require(
        1 <= num_fused <= num_in,
        f"{name} has {num_out} branches, {len(stage.grow)} of them new, from {num_in}; "
        "branches that are not new must come from those before.",
    )
    order = [(path.target, path.source) for path in stage.paths]
    _require(order == sorted(set(order)), f"{name} lists its paths as {order}; order them by target, then by source.")
    fused: list[int] = []
    for target in range(num_fused):
        paths = [path for path in stage.paths if path.target == target]
        # A path from below alone would give the branch another size than its own when the input's is odd.
        _require(
            any(path.source <= target for path in paths),
            f"{name} has no path into branch {target} from itself or from the branch above it; every branch needs one.",
        )
        outs = {path.block.out_channels for path in paths}
        _require(len(outs) == 1, f"{name}: the paths into branch {target} give {sorted(outs)} channels; must agree.")
        fused.append(outs.pop())
    for path in stage.paths:
        _require(
            path.source < num_in and path.target < num_fused,
            f"{name} joins branch {path.source} to {path.target}; it has {num_in} going in, {num_fused} fused.",
        )
        got, needed = path.block.in_channels, widths_in[path.source]
        _require(
            got == needed, f"{name}: the path {path.source} to {path.target} takes {got} channels; it gets {needed}."
        )
    for position, block in enumerate(stage.grow):
        _require(block.stride == 2, f"{name}.grow.{position} has stride {block.stride}; a new branch needs stride 2.")
        got, needed = block.in_channels, fused[-1]
        _require(got == needed, f"{name}.grow.{position} takes {got} channels; it gets {needed}.")
        fused.append(block.out_channels)
    for branch, blocks in enumerate(stage.branches):
        for position, block in enumerate(blocks):
            where = f"{name}.branches.{branch}.{position}"
            _require(block.stride == 1, f"{where} has stride 2; blocks of a branch have stride 1.")
            got, needed = block.in_channels, fused[branch]
            _require(got == needed, f"{where} takes {got} channels; it gets {needed}.")
            fused[branch] = block.out_channels
    return fused


def _branch_widths(stage: Stage, branches: tuple[tuple[Block, ...], ...]) -> list[int]:
    widths = {path.target: path.block.out_channels for path in stage.paths}
    for block in stage.grow:
        widths[len(widths)] = block.out_channels
    for branch, blocks in enumerate(branches):
        if blocks:
            widths[branch] = blocks[-1].out_channels
    return [widths[branch] for branch in range(len(branches))]
