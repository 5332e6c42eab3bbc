"""Whole networks against those written plainly from the method page (benchmarks/textbook.py), with the same weights."""

from dataclasses import replace
from random import Random

import pytest
import torch
from torch import Tensor

from architectures import random_architecture
from hrnas.arch.architecture import Architecture, ClassHead, DenseHead
from hrnas.arch.presets import search_space
from hrnas.models.network import Backbone, Network, build_model
from textbook import TextbookNetwork, load_weights, matches

SEEDS = (118, 241, 1144)
FORMATS = [torch.contiguous_format, torch.channels_last]
SUPERNETS = [("none", (47, 61)), ("all", (33, 47))]


def pair(
    architecture: Architecture, dtype: torch.dtype, layout: torch.memory_format
) -> tuple[TextbookNetwork, Network | Backbone]:
    """Return both networks of an architecture with the same random weights and statistics."""
    torch.manual_seed(0)
    # With such a momentum one step brings the statistics near the batch's: in evaluation mode no ReLU kills everything.
    architecture = replace(architecture, dropout=0.0, norm_momentum=0.5)
    if isinstance(architecture.head, ClassHead):
        architecture = replace(architecture, head=replace(architecture.head, dropout=0.0))
    ours = build_model(architecture)
    for name, tensor in ours.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
            if name.endswith(("bias", "running_mean")):
                tensor.sub_(1)
    textbook = TextbookNetwork(architecture)
    load_weights(textbook, ours, matches(architecture))
    return textbook.to(dtype), ours.to(dtype, memory_format=layout)


def maps(output: Tensor | list[Tensor]) -> list[Tensor]:
    return output if isinstance(output, list) else [output]


def largest(tensors: list[Tensor]) -> float:
    return max(tensor.abs().max().item() for tensor in tensors)


def difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference of two lists of maps, relative to the largest expected value."""
    assert [x.shape for x in found] == [x.shape for x in expected]
    return largest([x.double() - y.double() for x, y in zip(found, expected, strict=True)]) / largest(expected)


def assert_equal(architecture: Architecture, size: tuple[int, int], layout: torch.memory_format) -> None:
    """Check outputs, all gradients and all statistics in training and in evaluation mode, in float64."""
    textbook, ours = pair(architecture, torch.float64, layout)
    pairs = list(matches(architecture))
    for training in (True, False):
        textbook.train(training)
        ours.train(training)
        image = torch.randn(3, architecture.in_channels, *size, dtype=torch.float64)
        image_plain, image_ours = image.clone().requires_grad_(), image.to(memory_format=layout).requires_grad_()
        expected, found = maps(textbook(image_plain)), maps(ours(image_ours))
        assert difference(found, expected) <= 1e-10, f"outputs, training {training}"
        directions = [torch.randn_like(x) for x in expected]
        for model, outputs in ((textbook, expected), (ours, found)):
            model.zero_grad()
            sum((x * way).sum() for x, way in zip(outputs, directions, strict=True)).backward()
        assert image_plain.grad is not None
        assert image_ours.grad is not None
        assert difference([image_ours.grad], [image_plain.grad]) <= 1e-10, f"gradient of the input, training {training}"
        plain, state = textbook.state_dict(keep_vars=True), ours.state_dict(keep_vars=True)
        # Relative to the network's largest gradient: behind a channel that is nearly always off, one is nearly zero.
        scale = largest([parameter.grad for parameter in ours.parameters() if parameter.grad is not None])
        compared = dict.fromkeys(dict(ours.named_parameters()), 0)
        for match in pairs:
            one, other = plain[match.textbook], state[match.ours]
            torch.testing.assert_close(other.detach()[match.part], one.detach(), rtol=1e-10, atol=1e-10)
            if other.requires_grad:
                compared[match.ours] += one.numel()
                worst = (other.grad[match.part] - one.grad).abs().max().item()
                assert worst <= 1e-10 * scale, f"gradient of {match.textbook}, training {training}"
        assert compared == {name: parameter.numel() for name, parameter in ours.named_parameters()}


@pytest.mark.parametrize(("transformers", "size", "layout"), [(*SUPERNETS[0], FORMATS[0]), (*SUPERNETS[1], FORMATS[1])])
def test_the_supernet_equals_the_textbook(
    transformers: str, size: tuple[int, int], layout: torch.memory_format
) -> None:
    assert_equal(search_space("hr-small", transformers).supernet(5), size, layout)


@pytest.mark.parametrize("seed", SEEDS)
def test_ragged_networks_equal_the_textbook(seed: int) -> None:
    assert_equal(random_architecture(Random(seed)), (61, 77), FORMATS[seed % 2])


def test_the_ragged_networks_have_every_kind_of_block() -> None:
    """Guards the test above: strides, emptied blocks with and without a constant, tokens, one kernel path and more.

    And every head, activation and squeeze-excitation.
    """
    architectures = [random_architecture(Random(seed)) for seed in SEEDS]
    blocks = [block for architecture in architectures for _, block in architecture.blocks()]
    kinds = {(block.stride, min(len(block.kernels), 2), block.tokens > 0) for block in blocks}
    assert kinds == {(stride, paths, tokens) for stride in (1, 2) for paths in (0, 1, 2) for tokens in (True, False)}
    emptied = {(block.shift, block.is_residual) for block in blocks if not block.kernels}
    assert emptied == {(True, True), (True, False), (False, True), (False, False)}
    assert {type(architecture.head) for architecture in architectures} == {DenseHead, ClassHead, type(None)}
    squeezed = {(a.activation, block.squeeze > 0) for a in architectures for _, block in a.blocks() if block.kernels}
    assert squeezed == {(activation, squeeze) for activation in ("relu", "swish") for squeeze in (True, False)}
    assert max(len(a.head.down) for a in architectures if isinstance(a.head, ClassHead)) >= 2


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("transformers", "size"), SUPERNETS)
def test_single_precision_is_as_near_as_the_textbook_is(
    transformers: str, size: tuple[int, int], training: bool
) -> None:
    """In float32 a whole network's error grows with its depth; single blocks agree to 1e-5 (tests/nn)."""
    architecture = search_space("hr-small", transformers).supernet(5)
    torch.manual_seed(1)
    image = torch.randn(3, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        textbook, _ = pair(architecture, torch.float64, torch.channels_last)
        exact = textbook.train(training)(image)
        single, ours = (
            model.train(training)(image.float()) for model in pair(architecture, torch.float32, torch.channels_last)
        )
    errors = [((found.double() - exact).norm() / exact.norm()).item() for found in (ours, single)]
    assert errors[0] <= 3e-5
    # torch's sums over a channels_last map are less exact than over a contiguous one.
    assert errors[0] <= 4 * errors[1]
