"""The backbone, its heads, and both together.

B batch, C channels, F features, H height, W width, P points.
"""

import math
from typing import Final

import torch
from torch import Tensor, nn

from hrnas.arch.architecture import AnchorHead, Architecture, ClassHead, DenseHead, Feature, Head
from hrnas.nn.conv import ConvNorm
from hrnas.nn.pillars import PillarNet
from hrnas.nn.resizing import resize_to
from hrnas.nn.search_block import SearchBlock
from hrnas.nn.stage import StageModule


class Backbone(nn.Module):
    """Stem and stages: an image to one map a branch. Before them, of a network for point clouds, the pillars.

    features: (channels, stride) of each branch, highest resolution first.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        if architecture.pillars is not None:
            self.pillars = PillarNet(architecture.pillars, architecture)
        self.stem = _stem(architecture)
        self.stages = nn.ModuleList(StageModule(stage, architecture) for stage in architecture.stages)

    @property
    def features(self) -> tuple[Feature, ...]:
        """Width and stride of every branch, highest resolution first."""
        return self.architecture.features

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map an image (B, in_channels, H, W) of any size to features (B, C_i, ceil(H / s_i), ceil(W / s_i)).

        With pillars it is not an image that comes in, but clouds (B, P, 4), as `PillarNet` takes them.
        """
        if self.architecture.pillars is not None:
            image = self.pillars(image)
        branches = [self.stem(image)]
        for stage in self.stages:
            branches = stage(branches)
        return branches


class DenseHeadModule(nn.Module):
    """Branches resized to branch 0 and concatenated, one search block, a 1x1 convolution with bias."""

    def __init__(self, head: DenseHead, settings: Architecture) -> None:
        super().__init__()
        self.block = SearchBlock(head.block, settings)
        self.output = nn.Conv2d(head.block.out_channels, head.outputs, 1)

    def forward(self, branches: list[Tensor]) -> Tensor:
        """Map features (B, C_i, H_i, W_i) to logits (B, outputs, H_0, W_0)."""
        return self.output(self.block(_joined(branches)))


class AnchorHeadModule(nn.Module):
    """Branches resized to branch 0 and concatenated, a 1x1 convolution with bias to scores, boxes and directions.

    At the start every score is that of an anchor that holds an object with a probability of PRIOR (Lin et al. 2017,
    section 3.3): among so many anchors without, the first steps would be lost on them.
    """

    PRIOR: Final = 0.01

    def __init__(self, head: AnchorHead, settings: Architecture) -> None:
        super().__init__()
        self.output = nn.Conv2d(sum(feature.channels for feature in settings.features), head.channels, 1)
        nn.init.constant_(self.output.bias[: head.anchors * head.outputs], -math.log((1 - self.PRIOR) / self.PRIOR))

    def forward(self, branches: list[Tensor]) -> Tensor:
        """Map features (B, C_i, H_i, W_i) to (B, channels, H_0, W_0), channels as `AnchorHead` orders them."""
        return self.output(_joined(branches))


class ClassHeadModule(nn.Module):
    """From the highest resolution down, every branch widened and added; 1x1 convolution, average, dropout, linear.

    A block of stride 2 gives the very size of the branch below, odd sizes included: nothing is resized.
    """

    def __init__(self, head: ClassHead, settings: Architecture) -> None:
        super().__init__()
        self.widen = nn.ModuleList(SearchBlock(block, settings) for block in head.widen)
        self.down = nn.ModuleList(SearchBlock(block, settings) for block in head.down)
        width = head.widen[-1].out_channels
        self.features = ConvNorm(width, head.features, size=1, stride=1, settings=settings)
        self.dropout = nn.Dropout(head.dropout)
        self.output = nn.Linear(head.features, head.outputs)

    def forward(self, branches: list[Tensor]) -> Tensor:
        """Map features (B, C_i, H_i, W_i) to logits (B, outputs)."""
        x, *below = (block(branch) for block, branch in zip(self.widen, branches, strict=True))
        for block, branch in zip(self.down, below, strict=True):
            x = block(x) + branch
        average = self.features(x).mean((2, 3))  # (B, F)
        return self.output(self.dropout(average))


class Network(Backbone):
    """A backbone with its head: an image to logits or heatmaps at the stride of branch 0, or to logits of classes.

    A head of anchors gives scores, boxes and directions at the stride of branch 0.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        assert architecture.head is not None, "build_model makes a Backbone when there is no head"
        self.head = _head(architecture.head, architecture)

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        """Map an image (B, in_channels, H, W) to logits.

        (B, outputs, ceil(H / s), ceil(W / s)), s of branch 0, by a dense head, and by a head of anchors with its
        channels; (B, outputs) by a head of classes. With pillars clouds (B, P, 4) come in.
        """
        return self.head(super().forward(image))


def build_model(architecture: Architecture) -> Network | Backbone:
    """Return the network of an architecture, with torch's initial weights drawn from its random state.

    A Network when the architecture has a head; otherwise a Backbone, which returns the list of its branches.
    """
    return Backbone(architecture) if architecture.head is None else Network(architecture)


def _head(head: Head, settings: Architecture) -> nn.Module:
    if isinstance(head, DenseHead):
        return DenseHeadModule(head, settings)
    return AnchorHeadModule(head, settings) if isinstance(head, AnchorHead) else ClassHeadModule(head, settings)


def _joined(branches: list[Tensor]) -> Tensor:
    """Concatenate maps (B, C_i, H_i, W_i), resized to the first: (B, sum of C_i, H_0, W_0)."""
    size = (branches[0].shape[2], branches[0].shape[3])
    return torch.cat([resize_to(branch, size) for branch in branches], dim=1)


def _stem(architecture: Architecture) -> nn.Sequential:
    widths = [architecture.in_channels, *(conv.out_channels for conv in architecture.stem)]
    return nn.Sequential(
        *(
            ConvNorm(width, conv.out_channels, size=3, stride=conv.stride, settings=architecture)
            for width, conv in zip(widths, architecture.stem, strict=False)
        )
    )
