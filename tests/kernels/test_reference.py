"""The reference of the kernels is held too: chained, its functions are torch's batch norms and their gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import reference

EPS = 1e-3


def folded(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return mean, rstd, and the batch norm of x as scale and shift."""
    mean, variance = reference.channel_moments(x)
    rstd = torch.rsqrt(variance + EPS)
    return mean, rstd, weight * rstd, bias - mean * weight * rstd


def corrections(
    x: Tensor, mean: Tensor, rstd: Tensor, scale: Tensor, sum_g: Tensor, sum_gx: Tensor
) -> tuple[Tensor, Tensor]:
    """Return c1 and c0: a batch norm's input gradient is scale * g + c1 * x + c0."""
    count = x.numel() // x.shape[1]
    c1 = -scale * rstd * sum_gx / count
    return c1, -scale * sum_g / count - c1 * mean


@pytest.mark.parametrize("stride", [1, 2])
def test_the_chain_is_the_batch_norms_and_their_gradients(stride: int) -> None:
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_()

    x, weight, bias, d_weight, d_bias = normal(2, 6, 5, 8), normal(6), normal(6), normal(6), normal(6)
    kernels = [(3, normal(1, 1, 3, 3)), (5, normal(2, 1, 5, 5)), (7, normal(3, 1, 7, 7))]
    hidden = F.relu(F.batch_norm(x, None, None, weight, bias, training=True, eps=EPS))
    slices = hidden.split([1, 2, 3], dim=1)
    convolved = torch.cat(
        [
            F.conv2d(part, kernel, stride=stride, padding=size // 2, groups=len(kernel))
            for part, (size, kernel) in zip(slices, kernels, strict=True)
        ],
        dim=1,
    )
    out = F.relu(F.batch_norm(convolved, None, None, d_weight, d_bias, training=True, eps=EPS))
    gradient = normal(*out.shape).detach()
    leaves = [x, weight, bias, d_weight, d_bias, *(kernel for _, kernel in kernels)]
    expected = torch.autograd.grad(out, leaves, gradient)

    with torch.no_grad():
        mean, rstd, scale, shift = folded(x, weight, bias)
        d = reference.depthwise(x, scale, shift, kernels, stride)
        d_mean, d_rstd, d_scale, d_shift = folded(d, d_weight, d_bias)
        activated, d_sum_g, d_sum_gx = reference.activate_backward(d, gradient, d_scale, d_shift, d_mean, d_rstd)
        c1, c0 = corrections(d, d_mean, d_rstd, d_scale, d_sum_g, d_sum_gx)
        g, weight_gradients, sum_g, sum_gx = reference.depthwise_backward(
            x, scale, shift, mean, rstd, kernels, stride, d, gradient, d_scale, d_shift, c1, c0
        )
        c1, c0 = corrections(x, mean, rstd, scale, sum_g, sum_gx)
        over = reference.norm_backward(g, x, scale, c1, c0)

    assert over.data_ptr() == g.data_ptr()
    torch.testing.assert_close(activated, out.detach(), rtol=1e-10, atol=1e-10)
    for got, want in zip((over, sum_gx, sum_g, d_sum_gx, d_sum_g, *weight_gradients), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
