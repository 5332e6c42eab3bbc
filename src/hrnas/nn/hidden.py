"""The hidden channels of a search block, from expansion to projection, as one differentiable function.

What torch would keep for the backward pass is four maps of the hidden channels and their copies; this keeps two, what
the expansion and what the depthwise convolutions put out, and computes normalised and activated values again.

B batch, C channels, E hidden channels, H height, W width; s stride.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrnas.kernels import cpu

_CONV: Final = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)
"""Stride, padding, dilation, transposed, output padding, groups of a 1x1 convolution."""


def applies(x: Tensor, norms: Sequence[nn.Module]) -> bool:
    """Return whether `hidden_paths` can take the place of torch's operators.

    It works on real float32 and float64 maps on a CPU for which the kernels are compiled, with plain batch norms of one
    mode. Autocast has its own types, and what traces a network must see torch's operators.
    """
    first, second = norms
    return (
        type(first) is type(second) is nn.BatchNorm2d
        and first.training == second.training
        and type(x) is Tensor
        and x.dtype == second.weight.dtype
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and cpu.supports(x)
        and not torch.is_autocast_enabled("cpu")
    )


def hidden_paths(
    x: Tensor,
    expand: nn.Conv2d,
    expand_norm: nn.BatchNorm2d,
    kernels: Sequence[tuple[int, nn.Conv2d]],
    depthwise_norm: nn.BatchNorm2d,
    project: nn.Conv2d,
    *,
    stride: int,
) -> Tensor:
    """Map (B, C, H, W) through expansion, batch norm, ReLU, mixed depthwise convolution, batch norm, ReLU, projection.

    kernels: (size, convolution) of every kernel path. Returns (B, out_channels, ceil(H / s), ceil(W / s)). In training
    the running statistics of both norms move on, as torch's would.
    """
    output: Tensor = _HiddenPaths.apply(  # type: ignore[no-untyped-call]
        x,
        expand.weight,
        expand_norm.weight,
        expand_norm.bias,
        depthwise_norm.weight,
        depthwise_norm.bias,
        project.weight,
        expand_norm,
        depthwise_norm,
        stride,
        tuple(size for size, _ in kernels),
        *(conv.weight for _, conv in kernels),
    )
    return output


class _HiddenPaths(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        expand: Tensor,
        expand_scale: Tensor,
        expand_shift: Tensor,
        depthwise_scale: Tensor,
        depthwise_shift: Tensor,
        project: Tensor,
        expand_norm: nn.BatchNorm2d,
        depthwise_norm: nn.BatchNorm2d,
        stride: int,
        sizes: tuple[int, ...],
        *weights: Tensor,
    ) -> Tensor:
        kernels = list(zip(sizes, weights, strict=True))
        is_training = expand_norm.training
        x = x.contiguous(memory_format=torch.channels_last)
        expanded = F.conv2d(x, expand).contiguous(memory_format=torch.channels_last)  # (B, E, H, W)
        moments = cpu.channel_moments(expanded) if is_training else None
        first = _statistics(expand_norm, expanded, moments)
        mixed, *found = cpu.depthwise(
            expanded, *_affine(expand_scale, expand_shift, *first), kernels, stride
        )  # (B, E, H', W')
        second = _statistics(depthwise_norm, mixed, tuple(found) if is_training else None)
        is_kept = any(ctx.needs_input_grad)
        scale, shift = _affine(depthwise_scale, depthwise_shift, *second)
        output = F.conv2d(cpu.activate(mixed, scale, shift, in_place=not is_kept), project)
        if is_kept:
            ctx.save_for_backward(
                x, expanded, mixed, expand, expand_scale, expand_shift, depthwise_scale, depthwise_shift, project,
                *first, *second, *weights,
            )  # fmt: skip
            ctx.is_training, ctx.stride, ctx.sizes = is_training, stride, sizes
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (
            x, expanded, mixed, expand, expand_scale, expand_shift, depthwise_scale, depthwise_shift, project,
            mean1, rstd1, mean2, rstd2, *weights,
        ) = ctx.saved_tensors  # fmt: skip
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        scale2, shift2 = _affine(depthwise_scale, depthwise_shift, mean2, rstd2)
        of_active = _convolution_backward(gradient, mixed, project, of_input=True)
        active, of_shift2, of_scale2 = cpu.activate_backward(mixed, of_active, scale2, shift2, mean2, rstd2)
        of_project = _convolution_backward(gradient, active, project, of_input=False)
        del active
        c1, c0 = _through_norm(ctx.is_training, mixed, scale2, mean2, rstd2, of_shift2, of_scale2)
        scale1, shift1 = _affine(expand_scale, expand_shift, mean1, rstd1)
        kernels = list(zip(ctx.sizes, weights, strict=True))
        of_expanded, of_weights, of_shift1, of_scale1 = cpu.depthwise_backward(
            expanded, scale1, shift1, mean1, rstd1, kernels, ctx.stride, mixed, of_active, scale2, shift2, c1, c0
        )
        del of_active
        c1, c0 = _through_norm(ctx.is_training, expanded, scale1, mean1, rstd1, of_shift1, of_scale1)
        of_expanded = cpu.norm_backward(of_expanded, expanded, scale1, c1, c0)
        of_expand = _convolution_backward(of_expanded, x, expand, of_input=False)
        of_x = _convolution_backward(of_expanded, x, expand, of_input=True) if ctx.needs_input_grad[0] else None
        own = (of_x, of_expand, of_scale1, of_shift1, of_scale2, of_shift2, of_project)
        return (*own, None, None, None, None, *of_weights)


def _statistics(norm: nn.BatchNorm2d, x: Tensor, moments: tuple[Tensor, ...] | None) -> tuple[Tensor, Tensor]:
    """Return (mean, 1 / standard deviation) with which a norm normalises; moments, of the batch, move its own on."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    if moments is None:
        return norm.running_mean, torch.rsqrt(norm.running_var + norm.eps)
    mean, variance = moments
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    momentum = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    count = x.numel() // x.shape[1]
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(variance * (count / max(count - 1, 1)), momentum)
    return mean, torch.rsqrt(variance + norm.eps)


def _affine(scale: Tensor, shift: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a norm multiplies by and adds."""
    factor = scale.detach() * rstd
    return factor, torch.addcmul(shift.detach(), mean, factor, value=-1)


def _through_norm(
    is_training: bool, x: Tensor, factor: Tensor, mean: Tensor, rstd: Tensor, total: Tensor, product: Tensor
) -> tuple[Tensor, Tensor]:
    """Return c1, c0 with which the gradient of x is factor * g + c1 * x + c0; total, product: sums of g and g * x̂."""
    if not is_training:  # the statistics are constants
        return torch.zeros_like(factor), torch.zeros_like(factor)
    scaled = factor / -(x.numel() // x.shape[1])
    c1 = scaled * rstd * product
    return c1, torch.addcmul(scaled * total, c1, mean, value=-1)


def _convolution_backward(gradient: Tensor, x: Tensor, weight: Tensor, *, of_input: bool) -> Tensor:
    """Return the gradient of a 1x1 convolution's input, or of its weight."""
    found = torch.ops.aten.convolution_backward(gradient, x, weight, None, *_CONV, [of_input, not of_input, False])
    of: Tensor = found[0] if of_input else found[1]
    return of.contiguous(memory_format=torch.channels_last)
