"""The fusion rule of docs/method.md, written plainly here, against the fusion module."""

from random import Random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from architectures import random_architecture
from hrnas.arch.architecture import Architecture, Stage
from hrnas.arch.presets import search_space
from hrnas.nn.resizing import resize_to
from hrnas.nn.stage import FusionModule, StageModule


def plain_fusion(module: FusionModule, stage: Stage, branches: list[Tensor], activation: str = "relu") -> list[Tensor]:
    blocks = {(path.source, path.target): block for path, block in zip(stage.paths, module.paths, strict=True)}
    outputs: list[Tensor] = []
    for target in range(len(stage.branches) - len(stage.grow)):
        total = None
        for source in range(len(branches)):  # from the lowest source: its size counts
            if (source, target) not in blocks:
                continue
            x = blocks[source, target](branches[source])
            if source > target:
                x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            if total is None:
                total = x
                continue
            if x.shape != total.shape:
                x = F.interpolate(x, total.shape[2:], mode="bilinear", align_corners=False)
            total = total + x
        assert total is not None
        outputs.append(torch.relu(total) if activation == "relu" else total * torch.sigmoid(total))
    for block in module.grow:
        outputs.append(block(outputs[-1]))
    return outputs


def branch_inputs(widths: list[int], size: tuple[int, int]) -> list[Tensor]:
    """Return one map a branch: each half as large as the one before, rounded up."""
    maps = []
    for width in widths:
        maps.append(torch.randn(2, width, *size))
        size = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    return maps


def widths_into(architecture: Architecture, index: int) -> list[int]:
    paths = architecture.stages[index].paths
    return [
        next(p.block.in_channels for p in paths if p.source == source) for source in sorted({p.source for p in paths})
    ]


@pytest.mark.parametrize("size", [(24, 32), (23, 31), (9, 13), (17, 8)])
@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_fusion_follows_the_rule(index: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    architecture = search_space("hr-small").supernet(None)
    stage = architecture.stages[index]
    module = FusionModule(stage, architecture).eval()
    branches = branch_inputs(widths_into(architecture, index), size)
    found, expected = module(branches), plain_fusion(module, stage, branches)
    assert len(found) == len(stage.branches)
    for ours, plain, size_in in zip(found, expected, branch_inputs([1] * len(found), size), strict=True):
        assert ours.shape[2:] == size_in.shape[2:]
        torch.testing.assert_close(ours, plain)
    num_fused = len(stage.branches) - len(stage.grow)
    assert all(x.min() >= 0 for x in found[:num_fused])
    assert all(x.min() < 0 for x in found[num_fused:])  # a new branch has no ReLU after it


@pytest.mark.parametrize("seed", range(12))
def test_fusion_follows_the_rule_in_random_stages(seed: int) -> None:
    torch.manual_seed(seed)
    architecture = random_architecture(Random(seed))
    for index, stage in enumerate(architecture.stages):
        module = StageModule(stage, architecture).eval()
        branches = branch_inputs(widths_into(architecture, index), (13, 18))
        fused = plain_fusion(module.fusion, stage, branches, architecture.activation)
        for ours, plain in zip(module.fusion(branches), fused, strict=True):
            torch.testing.assert_close(ours, plain)
        for ours, blocks, x in zip(module(branches), module.branches, fused, strict=True):
            for block in blocks:
                x = block(x)
            torch.testing.assert_close(ours, x)


def test_resize_to_leaves_a_map_of_that_size_alone() -> None:
    x = torch.randn(1, 2, 5, 7)
    assert resize_to(x, (5, 7)) is x
    assert resize_to(x, (6, 7)).shape == (1, 2, 6, 7)
    assert resize_to(x, (5, 9)).shape == (1, 2, 5, 9)
