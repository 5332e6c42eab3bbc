"""The fused search block against the textbook block, written from the method page alone (benchmarks/textbook.py)."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hrnas.arch.architecture import Architecture, Block
from hrnas.arch.presets import search_space
from hrnas.nn.search_block import SearchBlock
from textbook import TextbookBlock, block_matches, load_weights

MOMENTUM, EPS = 0.07, 1e-3
SETTINGS = Architecture(
    **{**vars(search_space("hr-small").supernet(None)), "norm_momentum": MOMENTUM, "norm_eps": EPS, "token_size": 2}
)


def assert_same(found: Tensor, expected: Tensor, what: str, tolerance: float = 1e-10) -> None:
    assert found.shape == expected.shape, what
    scale = expected.abs().max().item()
    assert scale > 0, f"{what} is all zero, so that nothing is compared"
    assert (found - expected).abs().max().item() <= tolerance * scale, what


BLOCKS = [
    Block(in_channels=6, out_channels=6, kernels=((3, 5), (5, 3), (7, 4))),
    Block(in_channels=6, out_channels=9, kernels=((3, 5), (5, 3), (7, 4))),
    Block(in_channels=6, out_channels=6, stride=2, kernels=((3, 5), (5, 3), (7, 4))),
    Block(in_channels=6, out_channels=8, stride=2, kernels=((3, 2), (7, 1))),
    Block(in_channels=5, out_channels=7, kernels=((5, 6),)),
    Block(in_channels=6, out_channels=6, kernels=((3, 5), (7, 4)), tokens=3),
    Block(in_channels=6, out_channels=4, stride=2, shift=True, tokens=2),
]
CASES = [
    *((block, "relu") for block in BLOCKS),
    (replace(BLOCKS[0], squeeze=3), "relu"),
    (BLOCKS[2], "swish"),
    (replace(BLOCKS[3], squeeze=2), "swish"),
]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["64", "32"])
@pytest.mark.parametrize(
    ("block", "activation"),
    CASES,
    ids=[f"{b.in_channels}to{b.out_channels}s{b.stride}k{b.kernels}t{b.tokens}q{b.squeeze}{a}" for b, a in CASES],
)
def test_fused_equals_textbook(block: Block, activation: str, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    settings = replace(SETTINGS, dropout=0.0, activation=activation)
    textbook, fused = TextbookBlock(block, settings).to(dtype), SearchBlock(block, settings).to(dtype)
    for name, tensor in fused.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
            if name.endswith("bias"):
                tensor.sub_(1)
    load_weights(textbook, fused, block_matches(block))

    for step in range(3):  # training: outputs, gradients, running statistics
        x = torch.randn(4, block.in_channels, 9, 11, dtype=dtype)
        x_plain, x_ours = x.clone().requires_grad_(), x.clone().requires_grad_()
        out_plain, out_ours = textbook(x_plain), fused(x_ours)
        assert_same(out_ours, out_plain, f"output of step {step}", tolerance)
        textbook.zero_grad()
        fused.zero_grad()
        direction = torch.randn_like(out_plain)
        (out_plain * direction).sum().backward()
        (out_ours * direction).sum().backward()
        assert_same(x_ours.grad, x_plain.grad, "gradient of the input", tolerance)
        plain, ours = textbook.state_dict(keep_vars=True), fused.state_dict(keep_vars=True)
        seen = dict.fromkeys(dict(fused.named_parameters()), 0)
        for match in block_matches(block):
            one, other = plain[match.textbook], ours[match.ours]
            assert_same(other[match.part], one, match.textbook, tolerance)
            if other.requires_grad:
                assert_same(other.grad[match.part], one.grad, f"gradient of {match.textbook}", tolerance)
                seen[match.ours] += one.numel()
        # Every number of every parameter has been compared.
        assert seen == {name: parameter.numel() for name, parameter in fused.named_parameters()}

    textbook.eval()
    fused.eval()
    assert_same(fused(x), textbook(x), "output in evaluation mode", tolerance)


def test_the_transformer_is_added_to_the_skip() -> None:
    for out_channels, stride in ((6, 1), (9, 1), (6, 2)):
        torch.manual_seed(0)
        kernels = ((3, 4), (5, 2))
        block = Block(in_channels=6, out_channels=out_channels, stride=stride, kernels=kernels, tokens=3)
        fused = SearchBlock(block, SETTINGS).double().eval()
        x = torch.randn(2, 6, 9, 11, dtype=torch.float64)
        with_transformer = fused(x)
        transformer, fused.transformer = fused.transformer, None
        assert transformer is not None
        added = transformer(x, tuple(with_transformer.shape[2:]))
        assert_same(with_transformer, fused(x) + added, f"{out_channels} channels, stride {stride}")


@pytest.mark.parametrize(("out_channels", "stride"), [(6, 1), (4, 1), (6, 2)])
def test_an_empty_block_is_its_skip_and_shift(out_channels: int, stride: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 9, 11)
    bare = SearchBlock(Block(in_channels=6, out_channels=out_channels, stride=stride), SETTINGS)
    skip = x
    if (out_channels, stride) != (6, 1):
        skip = F.conv2d(x, bare.skip.weight, stride=stride, groups=math.gcd(6, out_channels))
    assert torch.equal(bare(x), skip)

    kept = SearchBlock(Block(in_channels=6, out_channels=out_channels, stride=stride, shift=True), SETTINGS)
    kept.skip.load_state_dict(bare.skip.state_dict())
    with torch.no_grad():
        kept.project_norm.bias.copy_(torch.arange(out_channels))
    torch.testing.assert_close(kept(x), skip + torch.arange(out_channels)[:, None, None])


def test_resize_keeps_the_mode() -> None:
    """The 2021 code brought modules back in training mode after a shrink (docs/method.md, known faults)."""
    block = SearchBlock(Block(in_channels=4, out_channels=4, kernels=((3, 2), (5, 2)), tokens=2), SETTINGS).eval()
    block.resize(Block(in_channels=4, out_channels=4, kernels=((5, 1),), tokens=1))
    assert not any(module.training for module in block.modules())
    assert block(torch.randn(1, 4, 5, 5)).shape == (1, 4, 5, 5)
    assert [tuple(block.depthwise.convs[name].weight.shape) for name in block.depthwise.convs] == [(1, 1, 5, 5)]
    block.train().resize(Block(in_channels=4, out_channels=4, shift=True))
    assert all(module.training for module in block.modules())
    assert "kernels={}, tokens=0, squeeze=0" in repr(block)
