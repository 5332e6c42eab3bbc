"""Whole networks: shapes at odd sizes, published features, gradients, names of the weights."""

from dataclasses import replace
from random import Random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from architectures import random_architecture
from hrnas.arch.architecture import Architecture, Block, DenseHead, FusionPath, Stage, StemConv
from hrnas.arch.presets import SPACES, search_space
from hrnas.models.network import Backbone, Network, build_model

Size = tuple[int, int]


def divided(size: Size, stride: int) -> Size:
    """Return the size divided by a power of two, rounded up."""
    return (-(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("size", [(45, 61), (33, 47)])
@pytest.mark.parametrize("name", sorted(SPACES))
def test_features_and_logits_have_the_published_shapes(name: str, size: Size) -> None:
    architecture = SPACES[name].supernet(7)
    model = build_model(architecture).eval()
    with torch.no_grad():
        features = Backbone.forward(model, torch.randn(2, 3, *size))
        logits = model.head(features)
    assert model.features == architecture.features
    assert len(features) == len(model.features)
    for tensor, feature in zip(features, model.features, strict=True):
        assert tensor.shape == (2, feature.channels, *divided(size, feature.stride))
    assert logits.shape == (2, 7, *divided(size, model.features[0].stride))


def test_published_features_of_the_presets() -> None:
    published = {
        name: [(feature.channels, feature.stride) for feature in space.supernet(None).features]
        for name, space in SPACES.items()
    }
    assert published == {
        "hr": [(18, 4), (36, 8), (72, 16), (144, 32)],
        "hr-small": [(12, 4), (24, 8), (48, 16), (96, 32)],
    }


@pytest.mark.parametrize("seed", range(20))
def test_random_networks_have_the_published_shapes(seed: int) -> None:
    architecture = random_architecture(Random(seed))
    model = build_model(architecture).eval()
    image = torch.randn(2, architecture.in_channels, 29, 43)
    with torch.no_grad():
        out = model(image)
        features = Backbone.forward(model, image)
    for tensor, feature in zip(features, model.features, strict=True):
        assert tensor.shape == (2, feature.channels, *divided((29, 43), feature.stride))
    if architecture.head is None:
        assert type(model) is Backbone
        for found, feature in zip(out, features, strict=True):
            assert torch.equal(found, feature)
    else:
        size = divided((29, 43), model.features[0].stride) if isinstance(architecture.head, DenseHead) else ()
        assert out.shape == (2, architecture.head.outputs, *size)


GATED = search_space("hr-small", activation="swish", squeeze_ratio=0.5)


@pytest.mark.parametrize(
    "architecture",
    [
        SPACES["hr"].supernet(5),
        SPACES["hr-small"].supernet(5),
        SPACES["hr-small"].supernet(None),
        GATED.supernet(5, head="classes"),
    ],
    ids=["hr", "hr-small", "backbone", "classes"],
)
def test_every_parameter_gets_a_gradient(architecture: Architecture) -> None:
    torch.manual_seed(0)
    model = build_model(architecture)
    out = model(torch.randn(2, 3, 33, 47))
    maps = out if isinstance(out, list) else [out]
    sum((x * torch.randn_like(x)).sum() for x in maps).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


def test_dropout_stands_before_the_linear_layer_of_classes_in_training() -> None:
    torch.manual_seed(0)
    model = build_model(replace(GATED, class_dropout=0.5).supernet(5, head="classes"))
    seen = []
    model.head.output.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for mode in (True, False):
        model.train(mode)(torch.randn(2, 3, 33, 47))
    shares = [(x == 0).float().mean().item() for x in seen]  # of 512 numbers, which a Swish leaves none of at zero
    assert 0.4 < shares[0] < 0.6
    assert shares[1] == 0


@pytest.mark.parametrize("head", ["dense", "classes"])
def test_every_parameter_of_an_emptied_network_gets_a_gradient(head: str) -> None:
    architecture = search_space("hr-small", "all").supernet(4, head=head)
    emptied = {
        name: Block(
            in_channels=block.in_channels,
            out_channels=block.out_channels,
            stride=block.stride,
            tokens=index % 2 and 3,
            shift=True,
        )
        for index, (name, block) in enumerate(architecture.blocks())
    }
    torch.manual_seed(0)
    model = build_model(architecture.with_blocks(emptied))
    (model(torch.randn(2, 3, 33, 47)) ** 2).sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


def test_block_names_are_module_paths() -> None:
    for seed in range(10):
        architecture = random_architecture(Random(seed))
        model = build_model(architecture)
        for name, block in architecture.blocks():
            assert model.get_submodule(name).block == block


def test_head_resizes_concatenates_and_convolves() -> None:
    torch.manual_seed(0)
    model = build_model(search_space("hr-small").supernet(5)).eval()
    branches = Backbone.forward(model, torch.randn(1, 3, 45, 61))
    size = branches[0].shape[2:]
    resized = [F.interpolate(x, size, mode="bilinear", align_corners=False) for x in branches[1:]]
    x = model.head.block(torch.cat([branches[0], *resized], dim=1))
    expected = F.conv2d(x, model.head.output.weight, model.head.output.bias)
    torch.testing.assert_close(model.head(branches), expected)


@pytest.mark.parametrize("in_channels", [1, 3, 5])
def test_other_numbers_of_input_channels(in_channels: int) -> None:
    model = build_model(search_space("hr-small").supernet(4, in_channels=in_channels)).eval()
    assert model(torch.randn(1, in_channels, 32, 40)).shape == (1, 4, 8, 10)


def test_only_the_output_convolution_has_a_bias() -> None:
    model = build_model(search_space("hr-small", "all").supernet(4))
    assert [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None
    ] == ["head.output"]


def test_norms_follow_the_architecture_except_in_transformers() -> None:
    architecture = search_space("hr-small", "all").supernet(4)
    for name, module in build_model(architecture).named_modules():
        if isinstance(module, nn.BatchNorm2d):
            expected = (0.1, 1e-5) if ".transformer." in name else (architecture.norm_momentum, architecture.norm_eps)
            assert (module.momentum, module.eps) == expected, name


def test_the_same_seed_gives_the_same_weights() -> None:
    architecture = search_space("hr-small").supernet(4)
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(build_model(architecture).state_dict())
    first, same, other = states
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["stem.0.conv.weight"], other["stem.0.conv.weight"])


TINY = Architecture(
    name="tiny",
    stem=(StemConv(out_channels=2),),
    stages=(
        Stage(
            paths=(FusionPath(source=0, target=0, block=Block(in_channels=2, out_channels=2, kernels=((3, 2),))),),
            grow=(Block(in_channels=2, out_channels=4, stride=2, shift=True),),
            branches=((Block(in_channels=2, out_channels=2, kernels=((5, 1), (7, 1)), tokens=2),), ()),
        ),
    ),
    head=DenseHead(block=Block(in_channels=6, out_channels=3), outputs=4),
    token_size=2,
)

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def norm(name: str) -> list[str]:
    return [f"{name}.{field}" for field in NORM]


def layer(name: str) -> list[str]:
    return [
        f"{name}.attention.query_key_value.weight",
        f"{name}.attention.out.weight",
        f"{name}.norm1.weight",
        f"{name}.norm1.bias",
        f"{name}.feed_forward.0.weight",
        f"{name}.feed_forward.3.weight",
        f"{name}.norm2.weight",
        f"{name}.norm2.bias",
    ]


def test_names_of_the_weights_are_anchored() -> None:
    """Weights and checkpoints are files of these names: who changes one must translate the old files."""
    path, block = "stages.0.fusion.paths.0", "stages.0.branches.0.0"
    transformer = f"{block}.transformer"
    model = build_model(TINY)
    assert isinstance(model, Network)
    assert sorted(model.state_dict()) == sorted(
        [
            "stem.0.conv.weight",
            *norm("stem.0.norm"),
            f"{path}.expand.weight",
            *norm(f"{path}.expand_norm"),
            f"{path}.depthwise.convs.3.weight",
            *norm(f"{path}.depthwise_norm"),
            f"{path}.project.weight",
            *norm(f"{path}.project_norm"),
            "stages.0.fusion.grow.0.skip.weight",
            *norm("stages.0.fusion.grow.0.project_norm"),
            f"{block}.expand.weight",
            *norm(f"{block}.expand_norm"),
            f"{block}.depthwise.convs.5.weight",
            f"{block}.depthwise.convs.7.weight",
            *norm(f"{block}.depthwise_norm"),
            f"{block}.project.weight",
            *norm(f"{block}.project_norm"),
            f"{transformer}.projector.weight",
            *norm(f"{transformer}.token_norm"),
            *layer(f"{transformer}.encoder"),
            *layer(f"{transformer}.decoder"),
            f"{transformer}.queries",
            f"{transformer}.inverse_projector.weight",
            *norm(f"{transformer}.out_norm"),
            "head.block.skip.weight",
            "head.output.weight",
            "head.output.bias",
        ]
    )
