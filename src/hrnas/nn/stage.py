"""The fusion and parallel modules: one stage of a multi-branch network (method: Search space).

B batch, C channels, H height, W width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from hrnas.arch.architecture import Architecture, Stage
from hrnas.nn.conv import make_activation
from hrnas.nn.resizing import resize_to
from hrnas.nn.search_block import SearchBlock


class FusionModule(nn.Module):
    """Each branch becomes the activation of the sum of the paths from its neighbours and itself; new ones are grown.

    A path going up has stride 1 and nearest x2 upsampling after it. Where sizes differ (odd inputs) a path is resized
    to the size of the first one, that of the lowest source branch.
    """

    def __init__(self, stage: Stage, settings: Architecture) -> None:
        super().__init__()
        self.routes = [(path.source, path.target) for path in stage.paths]
        self.paths = nn.ModuleList(SearchBlock(path.block, settings) for path in stage.paths)
        self.grow = nn.ModuleList(SearchBlock(block, settings) for block in stage.grow)
        # Not in place: a sum of one path may be what came in.
        self.activation = make_activation(settings.activation, in_place=False)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """Take and return one map (B, C_i, H_i, W_i) a branch, highest resolution first."""
        fused: list[Tensor] = []
        for (source, target), block in zip(self.routes, self.paths, strict=True):
            x = block(branches[source])
            if source > target:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            if target == len(fused):
                fused.append(x)
            else:
                size = (fused[target].shape[2], fused[target].shape[3])
                fused[target] = fused[target] + resize_to(x, size)
        fused = [self.activation(x) for x in fused]
        for block in self.grow:
            fused.append(block(fused[-1]))  # no activation after it
        return fused


class StageModule(nn.Module):
    """A fusion module, then a parallel module, in which every branch runs its own blocks."""

    def __init__(self, stage: Stage, settings: Architecture) -> None:
        super().__init__()
        self.fusion = FusionModule(stage, settings)
        self.branches = nn.ModuleList(
            nn.Sequential(*(SearchBlock(block, settings) for block in blocks)) for blocks in stage.branches
        )

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """Take and return one map (B, C_i, H_i, W_i) a branch, highest resolution first."""
        fused = self.fusion(branches)
        return [blocks(x) for blocks, x in zip(self.branches, fused, strict=True)]
