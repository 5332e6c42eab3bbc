"""Networks with random values, a tiny search space, and masking: what a cut must equal."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from architectures import random_architecture
from hrnas.arch.architecture import Architecture, StemConv
from hrnas.arch.space import SearchSpace, StageSpace
from hrnas.models.network import Backbone, Network, build_model
from hrnas.searching import units
from hrnas.searching.units import blocks_of, unit_groups

SIZE: Final = (16, 20)
"""Input size of the tiny network."""

TINY: Final = SearchSpace(
    name="tiny",
    stem=(StemConv(out_channels=4),),
    stages=(StageSpace(blocks=(1,), channels=(4,)), StageSpace(blocks=(1, 1), channels=(4, 6))),
    head_channels=6,
    kernel_sizes=(3, 5),
    expand_ratio=3,
    head_expand_ratio=3,
)

TINY_TRANSFORMERS: Final = replace(
    TINY, name="tiny-transformers", transformers="all", tokens=5, token_size=4, dropout=0.0
)


TINY_GATED: Final = replace(
    TINY_TRANSFORMERS,
    name="tiny-gated",
    class_channels=(5, 8),
    class_features=7,
    class_dropout=0.0,
    activation="swish",
    squeeze_ratio=0.5,
)
"""With squeeze-excitation and Swish; its network has a head of classes."""


def tiny_network(seed: int, *, space: SearchSpace = TINY, outputs: int = 3) -> Network:
    """Return the tiny supernet, freshly initialised, with a head of classes where the space has one."""
    torch.manual_seed(seed)
    model = build_model(space.supernet(outputs, head="classes" if space.class_channels else "dense"))
    assert isinstance(model, Network)
    return model


@torch.no_grad()
def randomize(model: nn.Module, seed: int) -> None:
    """Give every norm random scales of both signs, shifts and statistics, so that no constant is zero by chance."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.weight.copy_(torch.randn(module.weight.shape, generator=generator))
            module.bias.copy_(torch.randn(module.bias.shape, generator=generator))
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator))
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)


def random_model(seed: int, *, with_units: bool = True) -> tuple[Backbone, Architecture]:
    """Return a random network in float64, with random norms; its architecture has units if so asked.

    Without dropout: what it draws depends on the number of tokens.
    """
    random = Random(seed)
    while True:
        architecture = replace(random_architecture(random), dropout=0.0)
        if not with_units or unit_groups(architecture, SIZE):
            break
    torch.manual_seed(seed)
    model = build_model(architecture).double()
    randomize(model, seed)
    return model, architecture


def num_units(architecture: Architecture) -> int:
    return units.num_units(unit_groups(architecture, SIZE))


@torch.no_grad()
def mask(model: Backbone, kept: Tensor) -> None:
    """Set the scales of the channels that are not kept to zero, and the presences of the tokens, in place.

    Behind a squeeze-excitation also the channels' shifts.
    """
    for name, first, groups in blocks_of(unit_groups(model.architecture, SIZE)):
        block = model.get_submodule(name)
        own = kept[first : first + sum(group.count for group in groups)]
        channels = 0
        if block.block.kernels:
            scale = block.depthwise_norm.weight
            channels = len(scale)
            scale[~own[:channels]] = 0
            if block.block.squeeze:
                block.depthwise_norm.bias[~own[:channels]] = 0
        if block.block.tokens:
            assert len(own) - channels == block.block.tokens
            block.transformer.set_presence(own[channels:].float())


def masked_copy(model: Backbone, kept: Tensor) -> Backbone:
    masked = copy.deepcopy(model)
    mask(masked, kept)
    return masked


def outputs_of(model: nn.Module, images: Tensor, seed: int = 0) -> list[Tensor]:
    """Return the outputs as a list, dropout drawn from `seed`."""
    torch.manual_seed(seed)
    with torch.no_grad():
        out = model(images)
    return [out] if isinstance(out, Tensor) else list(out)


def assert_equal_outputs(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    assert len(found) == len(expected)
    for got, wanted in zip(found, expected, strict=True):
        assert got.shape == wanted.shape
        assert bool(torch.isfinite(wanted).all())
        assert (got - wanted).abs().max() <= tolerance * wanted.abs().max().clamp_min(1e-3)


def synthetic(step: int, *, batch: int = 4, outputs: int = 3) -> tuple[Tensor, Tensor]:
    """Return images (B, 3, H, W) and a target (B, outputs, H/2, W/2) that depends on them, the same for a step."""
    images = torch.randn(batch, 3, *SIZE, generator=torch.Generator().manual_seed(1000 + step))
    small = nn.functional.avg_pool2d(images, 2)
    return images, torch.stack([small.sum(1), small[:, 0].abs(), small[:, 1] * small[:, 2]], dim=1)[:, :outputs]


def task_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the loss of the synthetic task; a vector an image is compared with the mean of its target."""
    return nn.functional.mse_loss(outputs, target if outputs.dim() == 4 else target.mean((2, 3)))
