"""The functions of `hrnas.kernels` in plain torch, for every dtype torch convolves: what the fast ones are held to.

N batch, C channels, H height, W width; per-channel vectors are (C,); kernels: (size, weight (c, 1, size, size)) of
every slice of the channels, in order, padded by size // 2.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Kernels = Sequence[tuple[int, Tensor]]


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of every channel of (N, C, H, W)."""
    mean = x.mean(dim=(0, 2, 3))
    return mean, (x - _wide(mean)).square().mean(dim=(0, 2, 3))


def depthwise(x: Tensor, scale: Tensor, shift: Tensor, kernels: Kernels, stride: int) -> Tensor:
    """Convolve relu(x * scale + shift), (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
    return _convolve(activate(x, scale, shift), kernels, stride)


def activate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return relu(x * scale + shift); what is not a number stays so."""
    before = x * _wide(scale) + _wide(shift)
    return torch.where(before <= 0, torch.zeros_like(before), before)


def activate_backward(
    x: Tensor, gradient: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return relu(x * scale + shift) and two sums over each channel of its masked gradient g.

    The sums are of g and of g * (x - mean) * rstd.
    """
    _, sum_g, sum_gx = _masked(x, gradient, scale, shift, mean, rstd)
    return activate(x, scale, shift), sum_g, sum_gx


def depthwise_backward(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    rstd: Tensor,
    kernels: Kernels,
    stride: int,
    d: Tensor,
    gradient: Tensor,
    d_scale: Tensor,
    d_shift: Tensor,
    c1: Tensor,
    c0: Tensor,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """Go back from the gradient of relu(d * d_scale + d_shift), where d = depthwise(x, ...).

    Returns the masked gradient g of x * scale + shift, the gradients of the weights, and the sums over each channel of
    g and of g * (x - mean) * rstd. c1 and c0 carry what the batch norm of d adds to its gradient: c1 * d + c0.
    """
    masked = torch.where(d * _wide(d_scale) + _wide(d_shift) <= 0, torch.zeros_like(gradient), gradient)
    gd = _wide(d_scale) * masked + _wide(c1) * d + _wide(c0)
    activated = activate(x, scale, shift).detach().requires_grad_()
    weights = [weight.detach().requires_grad_() for _, weight in kernels]
    with torch.enable_grad():
        out = _convolve(activated, [(size, weight) for (size, _), weight in zip(kernels, weights, strict=True)], stride)
    ga, *weight_gradients = torch.autograd.grad(out, [activated, *weights], gd)
    g, sum_g, sum_gx = _masked(x, ga, scale, shift, mean, rstd)
    return g, weight_gradients, sum_g, sum_gx


def norm_backward(g: Tensor, x: Tensor, scale: Tensor, c1: Tensor, c0: Tensor) -> Tensor:
    """Return scale * g + c1 * x + c0, written over g."""
    return g.copy_(_wide(scale) * g + _wide(c1) * x + _wide(c0))


def _wide(vector: Tensor) -> Tensor:
    return vector.view(1, -1, 1, 1)


def _convolve(a: Tensor, kernels: Kernels, stride: int) -> Tensor:
    parts = a.split([len(weight) for _, weight in kernels], dim=1)
    return torch.cat(
        [
            F.conv2d(part, weight, stride=stride, padding=size // 2, groups=len(weight))
            for part, (size, weight) in zip(parts, kernels, strict=True)
        ],
        dim=1,
    )


def _masked(
    x: Tensor, gradient: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.where(x * _wide(scale) + _wide(shift) <= 0, torch.zeros_like(gradient), gradient)
    return g, g.sum(dim=(0, 2, 3)), (g * (x - _wide(mean)) * _wide(rstd)).sum(dim=(0, 2, 3))
