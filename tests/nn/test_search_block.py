"""The fused search block against the textbook block of docs/method.md, written here from that page alone."""

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrnas.arch.architecture import Architecture, Block
from hrnas.arch.presets import search_space
from hrnas.nn.search_block import SearchBlock

MOMENTUM, EPS = 0.07, 1e-3
SETTINGS = Architecture(
    **{**vars(search_space("hr-small").supernet(None)), "norm_momentum": MOMENTUM, "norm_eps": EPS, "token_size": 2}
)


class TextbookBlock(nn.Module):
    """Skip + BN(sum over kernels of project(ReLU(BN(depthwise(ReLU(BN(expand(x)))))))), every layer on its own."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        c_in, c_out, stride = block.in_channels, block.out_channels, block.stride
        self.expand, self.expand_norm = nn.ModuleList(), nn.ModuleList()
        self.depthwise, self.depthwise_norm = nn.ModuleList(), nn.ModuleList()
        self.project = nn.ModuleList()
        for size, hidden in block.kernels:
            self.expand.append(nn.Conv2d(c_in, hidden, 1, bias=False))
            self.expand_norm.append(nn.BatchNorm2d(hidden, momentum=MOMENTUM, eps=EPS))
            padding = (size - 1) // 2
            self.depthwise.append(nn.Conv2d(hidden, hidden, size, stride, padding, groups=hidden, bias=False))
            self.depthwise_norm.append(nn.BatchNorm2d(hidden, momentum=MOMENTUM, eps=EPS))
            self.project.append(nn.Conv2d(hidden, c_out, 1, bias=False))
        self.shared_norm = nn.BatchNorm2d(c_out, momentum=MOMENTUM, eps=EPS)
        self.changes = stride == 2 or c_in != c_out
        if self.changes:
            self.skip = nn.Conv2d(c_in, c_out, 1, stride, groups=math.gcd(c_in, c_out), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        summed = torch.zeros(())
        for expand, expand_norm, depthwise, depthwise_norm, project in zip(
            self.expand, self.expand_norm, self.depthwise, self.depthwise_norm, self.project, strict=True
        ):
            summed = summed + project(torch.relu(depthwise_norm(depthwise(torch.relu(expand_norm(expand(x)))))))
        return self.shared_norm(summed) + (self.skip(x) if self.changes else x)


Pair = tuple[str, Tensor, Tensor, tuple[slice, ...]]


def pairs(textbook: TextbookBlock, fused: SearchBlock) -> Iterator[Pair]:
    """Yield name, tensor of the textbook block, tensor of the fused block, and which part of the latter it is."""

    def norm(name: str, plain: nn.Module, ours: nn.Module, part: slice) -> Iterator[Pair]:
        for field in ("weight", "bias", "running_mean", "running_var"):
            yield f"{name}.{field}", getattr(plain, field), getattr(ours, field), (part,)

    everything, start = slice(None), 0
    for index, (size, hidden) in enumerate(fused.block.kernels):
        part = slice(start, start + hidden)
        start += hidden
        yield f"expand {size}", textbook.expand[index].weight, fused.expand.weight, (part,)
        yield from norm(f"expand_norm {size}", textbook.expand_norm[index], fused.expand_norm, part)
        depthwise = fused.depthwise.convs[str(size)].weight
        yield f"depthwise {size}", textbook.depthwise[index].weight, depthwise, (everything,)
        yield from norm(f"depthwise_norm {size}", textbook.depthwise_norm[index], fused.depthwise_norm, part)
        yield f"project {size}", textbook.project[index].weight, fused.project.weight, (everything, part)
    yield from norm("shared_norm", textbook.shared_norm, fused.project_norm, everything)
    if textbook.changes:
        yield "skip", textbook.skip.weight, fused.skip.weight, (everything,)


def assert_same(found: Tensor, expected: Tensor, what: str) -> None:
    assert found.shape == expected.shape, what
    scale = expected.abs().max().item()
    assert scale > 0, f"{what} is all zero, so that nothing is compared"
    assert (found - expected).abs().max().item() <= 1e-10 * scale, what


BLOCKS = [
    Block(in_channels=6, out_channels=6, kernels=((3, 5), (5, 3), (7, 4))),
    Block(in_channels=6, out_channels=9, kernels=((3, 5), (5, 3), (7, 4))),
    Block(in_channels=6, out_channels=6, stride=2, kernels=((3, 5), (5, 3), (7, 4))),
    Block(in_channels=6, out_channels=8, stride=2, kernels=((3, 2), (7, 1))),
    Block(in_channels=5, out_channels=7, kernels=((5, 6),)),
]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: f"{b.in_channels}to{b.out_channels}s{b.stride}k{b.kernels}")
def test_fused_equals_textbook(block: Block) -> None:
    torch.manual_seed(0)
    textbook, fused = TextbookBlock(block).double(), SearchBlock(block, SETTINGS).double()
    with torch.no_grad():
        for name, plain, ours, part in pairs(textbook, fused):
            if "norm" in name:
                plain.uniform_(0.5, 1.5)
                if name.endswith("bias"):
                    plain.sub_(1)
            ours[part] = plain

    for step in range(3):  # training: outputs, gradients, running statistics
        x = torch.randn(4, block.in_channels, 9, 11, dtype=torch.float64)
        x_plain, x_ours = x.clone().requires_grad_(), x.clone().requires_grad_()
        out_plain, out_ours = textbook(x_plain), fused(x_ours)
        assert_same(out_ours, out_plain, f"output of step {step}")
        textbook.zero_grad()
        fused.zero_grad()
        direction = torch.randn_like(out_plain)
        (out_plain * direction).sum().backward()
        (out_ours * direction).sum().backward()
        assert_same(x_ours.grad, x_plain.grad, "gradient of the input")
        seen: dict[int, int] = {}
        for name, plain, ours, part in pairs(textbook, fused):
            assert_same(ours[part], plain, name)
            if plain.requires_grad:
                assert_same(ours.grad[part], plain.grad, f"gradient of {name}")
                seen[id(ours)] = seen.get(id(ours), 0) + plain.numel()
        # Every number of every parameter has been compared.
        assert seen == {id(parameter): parameter.numel() for parameter in fused.parameters()}

    textbook.eval()
    fused.eval()
    assert_same(fused(x), textbook(x), "output in evaluation mode")


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
    assert "kernels={}, tokens=0" in repr(block)
