"""Search spaces: the rule that makes the supernet, the widest network of the space (method: Search space)."""

from dataclasses import dataclass, replace
from typing import Final

from hrnas.arch.architecture import Architecture, Block, DenseHead, FusionPath, Stage, StemConv
from hrnas.errors import InputError, did_you_mean

TRANSFORMERS: Final = ("none", "residual", "all")


@dataclass(frozen=True, kw_only=True)
class StageSpace:
    """One stage: for every branch, the number of blocks and the channels."""

    blocks: tuple[int, ...]
    channels: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.blocks or len(self.blocks) != len(self.channels):
            raise InputError(
                f"a stage has {len(self.blocks)} block counts and {len(self.channels)} channel counts; "
                "give one of each for every branch."
            )
        if min(self.blocks) < 0 or min(self.channels) < 1:
            raise InputError(f"a stage has blocks {self.blocks}, channels {self.channels}; none may be negative.")


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """A family of networks, given by its widest member.

    name: goes into the architectures it makes.
    stem: the stem's convolutions.
    stages: branches, blocks and channels of every stage; each stage has as many branches as the last, or more.
    kernel_sizes: the kernel paths of every search block.
    expand_ratio: hidden channels of one kernel path = expand_ratio * in_channels.
    head_channels: width of the dense head's block ("last_channel").
    head_expand_ratio: expand ratio of the head's block, which works on all branches concatenated.
    transformers: "none", "residual" (blocks with an identity skip) or "all".
    tokens: tokens of each transformer in the supernet.
    token_size, attention_heads, dropout, norm_momentum, norm_eps: as in Architecture.
    """

    name: str
    stem: tuple[StemConv, ...]
    stages: tuple[StageSpace, ...]
    head_channels: int
    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    expand_ratio: int = 4
    head_expand_ratio: int = 4
    transformers: str = "none"
    tokens: int = 64
    token_size: int = 8
    attention_heads: int = 1
    dropout: float = 0.1
    norm_momentum: float = 0.01
    norm_eps: float = 1e-3

    def __post_init__(self) -> None:
        if self.transformers not in TRANSFORMERS:
            hint = did_you_mean(self.transformers, TRANSFORMERS)
            raise InputError(f"Unknown transformers '{self.transformers}'. {hint}")
        if self.expand_ratio < 1 or self.head_expand_ratio < 1 or self.head_channels < 1 or self.tokens < 1:
            raise InputError(f"Space '{self.name}': expand ratios, head_channels and tokens must be at least 1.")
        if not self.stem:
            raise InputError(f"Space '{self.name}' has an empty stem; give it at least one convolution.")
        counts = [len(stage.blocks) for stage in self.stages]
        if not counts or counts != sorted(counts):
            raise InputError(f"Space '{self.name}' has stages of {counts} branches; their number must never fall.")

    def supernet(self, outputs: int | None, in_channels: int = 3) -> Architecture:
        """Return the widest network of the space.

        outputs: classes (or joints) of a dense head; None for a backbone without head.
        """
        widths = [self.stem[-1].out_channels]
        stages = []
        for stage in self.stages:
            stages.append(self._stage(stage, widths))
            widths = list(stage.channels)
        head = None
        if outputs is not None:
            block = self._block(sum(widths), self.head_channels, 1, self.head_expand_ratio)
            head = DenseHead(block=block, outputs=outputs)
        return Architecture(
            name=self.name,
            in_channels=in_channels,
            stem=self.stem,
            stages=tuple(stages),
            head=head,
            token_size=self.token_size,
            attention_heads=self.attention_heads,
            dropout=self.dropout,
            norm_momentum=self.norm_momentum,
            norm_eps=self.norm_eps,
        )

    def _stage(self, stage: StageSpace, widths_in: list[int]) -> Stage:
        num_in, num_out = len(widths_in), len(stage.channels)
        num_fused = min(num_in, num_out)
        paths = tuple(
            FusionPath(
                source=source,
                target=target,
                block=self._block(
                    widths_in[source], stage.channels[target], 2 if target > source else 1, self.expand_ratio
                ),
            )
            for target in range(num_fused)
            for source in range(num_in)
            if abs(target - source) <= 1
        )
        grow = tuple(
            self._block(stage.channels[branch - 1], stage.channels[branch], 2, self.expand_ratio)
            for branch in range(num_fused, num_out)
        )
        branches = tuple(
            tuple(self._block(channels, channels, 1, self.expand_ratio) for _ in range(blocks))
            for blocks, channels in zip(stage.blocks, stage.channels, strict=True)
        )
        return Stage(paths=paths, grow=grow, branches=branches)

    def _block(self, in_channels: int, out_channels: int, stride: int, expand_ratio: int) -> Block:
        block = Block(
            in_channels=in_channels,
            out_channels=out_channels,
            stride=stride,
            kernels=tuple((size, expand_ratio * in_channels) for size in sorted(self.kernel_sizes)),
        )
        has_transformer = self.transformers == "all" or (self.transformers == "residual" and block.is_residual)
        return replace(block, tokens=self.tokens) if has_transformer else block
