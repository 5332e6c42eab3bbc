"""Convolutions, and the batch norm of an emptied block."""

import pytest
import torch
from torch import nn

from hrnas.arch.presets import search_space
from hrnas.nn.conv import ConvNorm, EmptyNorm, MixedDepthwise


@pytest.mark.parametrize("momentum", [0.01, 0.3, None])
def test_empty_norm_equals_a_batch_norm_fed_with_zeros(momentum: float | None) -> None:
    torch.manual_seed(0)
    full = nn.BatchNorm2d(5, momentum=momentum, eps=1e-3).double()
    empty = EmptyNorm(5, momentum=momentum, eps=1e-3).double()
    with torch.no_grad():
        for tensor in full.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 2)
        full.num_batches_tracked.fill_(3)
    empty.load_state_dict(full.state_dict())
    zeros = torch.zeros(2, 5, 3, 4, dtype=torch.float64)

    for training in (False, True, True, True, False, True, False):
        full.train(training)
        empty.train(training)
        expected, found = full(zeros), empty(torch.randn_like(zeros))
        torch.testing.assert_close(found.expand_as(expected), expected, rtol=1e-12, atol=1e-12)
        direction = torch.randn_like(expected)
        full.zero_grad()
        empty.zero_grad()
        (expected * direction).sum().backward()
        (found * direction).sum().backward()
        torch.testing.assert_close(empty.bias.grad, full.bias.grad, rtol=1e-12, atol=1e-12)
        for name, tensor in full.state_dict().items():
            torch.testing.assert_close(empty.state_dict()[name], tensor, rtol=1e-12, atol=1e-12, msg=name)


def test_empty_norm_trains_its_bias_only() -> None:
    norm = EmptyNorm(3, momentum=0.1, eps=1e-5)
    assert [name for name, _ in norm.named_parameters()] == ["bias"]
    assert "weight" in norm.state_dict()
    assert norm(torch.randn(2, 3, 4, 4)).requires_grad
    assert norm(torch.randn(2, 3, 4, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_empty_norm_after_recalibration_gives_its_bias() -> None:
    norm = EmptyNorm(3, momentum=None, eps=1e-5)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([1.0, -2.0, 3.0]))
        norm.running_mean.fill_(7.0)
    norm.num_batches_tracked.zero_()
    for _ in range(3):
        norm(torch.randn(2, 3, 4, 4))
    assert norm.eval()(torch.randn(2, 3, 4, 4)).flatten().tolist() == [1.0, -2.0, 3.0]


@pytest.mark.parametrize("stride", [1, 2])
def test_mixed_depthwise_convolves_each_slice_with_its_kernel(stride: int) -> None:
    torch.manual_seed(0)
    mixed = MixedDepthwise([(1, 2), (3, 1), (7, 3)], stride=stride)
    x = torch.randn(2, 6, 7, 10)
    out = mixed(x)
    assert out.shape == (2, 6, -(-7 // stride), -(-10 // stride))
    sizes = [1, 1, 3, 7, 7, 7]
    weights = [kernel for conv in mixed.convs.values() for kernel in conv.weight]
    for channel, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        one = nn.functional.conv2d(x[:, channel : channel + 1], weight[None], stride=stride, padding=size // 2)
        torch.testing.assert_close(out[:, channel], one[:, 0])


def test_conv_norm_rounds_sizes_up_and_is_never_negative() -> None:
    torch.manual_seed(0)
    settings = search_space("hr-small", norm_momentum=0.02, norm_eps=0.5).supernet(None)
    layer = ConvNorm(3, 4, size=3, stride=2, settings=settings)
    out = layer(torch.randn(2, 3, 9, 12))
    assert out.shape == (2, 4, 5, 6)
    assert out.min() == 0
    assert layer.conv.bias is None
    assert (layer.norm.momentum, layer.norm.eps) == (0.02, 0.5)
