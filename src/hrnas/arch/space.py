"""Search spaces: the rule that makes the supernet, the widest network of the space (method: Search space)."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from hrnas.arch.architecture import (
    AnchorHead,
    Architecture,
    Block,
    ClassHead,
    DenseHead,
    FusionPath,
    Head,
    Pillars,
    Stage,
    StemConv,
)
from hrnas.errors import InputError, did_you_mean

TRANSFORMERS: Final = ("none", "residual", "all")
HEADS: Final = (DenseHead.kind, ClassHead.kind, AnchorHead.kind)


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
    class_channels: for every branch the width that a head of classes widens it to; empty where there is no such head.
    class_features, class_dropout: "features" and "dropout" of that head.
    head_expand_ratio: expand ratio of a head's blocks.
    squeeze_ratio: hidden width of each block's squeeze-excitation = round(squeeze_ratio * in_channels); 0 for none.
    transformers: "none", "residual" (blocks with an identity skip) or "all".
    tokens: tokens of each transformer in the supernet.
    activation, token_size, attention_heads, dropout, norm_momentum, norm_eps: as in Architecture.
    """

    name: str
    stem: tuple[StemConv, ...]
    stages: tuple[StageSpace, ...]
    head_channels: int
    class_channels: tuple[int, ...] = ()
    class_features: int = 1600
    class_dropout: float = 0.2
    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    expand_ratio: int = 4
    head_expand_ratio: int = 4
    activation: str = "relu"
    squeeze_ratio: float = 0.0
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
        if not 0 <= self.squeeze_ratio < math.inf:
            raise InputError(
                f"Space '{self.name}': squeeze_ratio is {self.squeeze_ratio}; it must be 0 or a positive number."
            )

    def supernet(
        self,
        outputs: int | None,
        in_channels: int = 3,
        head: str = DenseHead.kind,
        pillars: Pillars | None = None,
    ) -> Architecture:
        """Return the widest network of the space.

        outputs: classes (or joints) of the head; None for a backbone without head.
        in_channels: of an image; with pillars they are those of the map the pillars make.
        head: "dense" (a map of outputs), "classes" (one vector of outputs an image) or "anchors" (boxes in space).
        Raises InputError for another head, or one of classes where the space has no class_channels for it.
        """
        widths = [self.stem[-1].out_channels]
        stages = []
        for stage in self.stages:
            stages.append(self._stage(stage, widths))
            widths = list(stage.channels)
        return Architecture(
            name=self.name,
            in_channels=in_channels if pillars is None else pillars.channels,
            pillars=pillars,
            stem=self.stem,
            stages=tuple(stages),
            head=None if outputs is None else self._head(head, outputs, widths),
            activation=self.activation,
            token_size=self.token_size,
            attention_heads=self.attention_heads,
            dropout=self.dropout,
            norm_momentum=self.norm_momentum,
            norm_eps=self.norm_eps,
        )

    def _head(self, kind: str, outputs: int, widths: list[int]) -> Head:
        if kind not in HEADS:
            raise InputError(f"Unknown head '{kind}'. {did_you_mean(kind, HEADS)}")
        ratio = self.head_expand_ratio
        if kind == DenseHead.kind:
            return DenseHead(block=self._block(sum(widths), self.head_channels, 1, ratio), outputs=outputs)
        if kind == AnchorHead.kind:
            return AnchorHead(outputs=outputs)
        wider = self.class_channels
        if len(wider) != len(widths):
            raise InputError(
                f"Space '{self.name}' has {len(wider)} class_channels; "
                f"a head of classes needs one for each of its {len(widths)} branches. Choose another space."
            )
        return ClassHead(
            widen=tuple(self._block(width, wide, 1, ratio) for width, wide in zip(widths, wider, strict=True)),
            down=tuple(self._block(wide, below, 2, ratio) for wide, below in pairwise(wider)),
            features=self.class_features,
            outputs=outputs,
            dropout=self.class_dropout,
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
            squeeze=max(1, round(self.squeeze_ratio * in_channels)) if self.squeeze_ratio else 0,
        )
        has_transformer = self.transformers == "all" or (self.transformers == "residual" and block.is_residual)
        return replace(block, tokens=self.tokens) if has_transformer else block
