"""The hidden channels of a search block as one differentiable function on a GPU, by Triton.

What `nn.hidden` does slice by slice on a CPU, on whole maps: a GPU has no cache that a slice would stay in, and wants
few launches. In bfloat16 the maps are bfloat16; what belongs to channels, and every sum, is float32.

B batch, C channels, E hidden channels, H height, W width; s stride.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CONV: Final = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)
"""Stride, padding, dilation, transposed, output padding, groups of a 1x1 convolution."""


class HiddenMaps(torch.autograd.Function):
    """Expansion to projection; arguments as `nn.hidden:hidden_paths` gives them. Two hidden maps are kept."""

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
        has_gradients: bool,
        sizes: tuple[int, ...],
        *weights: Tensor,
    ) -> Tensor:
        from hrnas.kernels import triton_depthwise as gpu  # needs Triton, which only comes with builds for GPUs

        kind, is_training = x.device.type, expand_norm.training
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        kernels = [(size, weight.contiguous()) for size, weight in zip(sizes, weights, strict=True)]
        with torch.autocast(kind, enabled=False):
            x = x.to(dtype).contiguous(memory_format=torch.channels_last)
            expand, project = expand.to(dtype), project.to(dtype)
            expanded = _in_format(F.conv2d(x, expand))  # (B, E, H, W)
            first = _statistics(expand_norm, expanded, gpu.channel_moments(expanded) if is_training else None)
            mixed = gpu.depthwise(expanded, *_affine(expand_scale, expand_shift, *first), kernels, stride)
            second = _statistics(depthwise_norm, mixed, gpu.channel_moments(mixed) if is_training else None)
            active = gpu.activate(mixed, *_affine(depthwise_scale, depthwise_shift, *second))
            output = F.conv2d(active, project)
        if has_gradients and any(ctx.needs_input_grad):
            scales = (expand_scale, expand_shift, depthwise_scale, depthwise_shift)
            ctx.save_for_backward(x, expanded, mixed, expand, project, *scales, *first, *second, *weights)
            ctx.is_training, ctx.stride, ctx.sizes = is_training, stride, sizes
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        from hrnas.kernels import triton_depthwise as gpu

        x, expanded, mixed, expand, project, scale1, shift1, scale2, shift2, *rest = ctx.saved_tensors
        mean1, rstd1, mean2, rstd2, *weights = rest
        kernels = [(size, weight.contiguous()) for size, weight in zip(ctx.sizes, weights, strict=True)]
        gradient = _in_format(gradients[0].to(x.dtype))
        after = _affine(scale2, shift2, mean2, rstd2)
        of_active = _convolution_backward(gradient, mixed, project, of_input=True)
        active, of_shift2, of_scale2 = gpu.activate_backward(mixed, of_active, *after, mean2, rstd2)
        of_project = _convolution_backward(gradient, active, project, of_input=False)
        del active
        through = _through_norm(ctx.is_training, mixed, after[0], mean2, rstd2, of_shift2, of_scale2)
        before = _affine(scale1, shift1, mean1, rstd1)
        of_expanded, of_weights, of_shift1, of_scale1 = gpu.depthwise_backward(
            expanded, *before, mean1, rstd1, kernels, ctx.stride, mixed, of_active, *after, *through
        )
        del of_active
        through = _through_norm(ctx.is_training, expanded, before[0], mean1, rstd1, of_shift1, of_scale1)
        of_expanded = gpu.norm_backward(of_expanded, expanded, before[0], *through)
        of_expand = _convolution_backward(of_expanded, x, expand, of_input=False).to(scale1)
        of_x = _convolution_backward(of_expanded, x, expand, of_input=True) if ctx.needs_input_grad[0] else None
        of_norms = (of_scale1, of_shift1, of_scale2, of_shift2)
        return of_x, of_expand, *of_norms, of_project.to(scale1), *[None] * 5, *of_weights


def move_on(norms: Sequence[tuple[nn.BatchNorm2d, Tensor, Tensor, int]]) -> None:
    """Move the running statistics of norms, as torch does; of each the batch's mean, biased variance, and pixels."""
    running: list[Tensor] = []
    reached: list[Tensor] = []
    momenta: list[float] = []
    for norm, mean, variance, pixels in norms:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        momenta += [1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum] * 2
        running += [norm.running_mean, norm.running_var]
        reached += [mean, variance * (pixels / max(pixels - 1, 1))]
    torch._foreach_lerp_(running, reached, momenta)


def _statistics(norm: nn.BatchNorm2d, x: Tensor, moments: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Return (mean, 1 / standard deviation) with which a norm normalises; moments, of the batch, move its own on."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    if moments is None:
        return norm.running_mean, torch.rsqrt(norm.running_var + norm.eps)
    mean, variance = moments
    move_on([(norm, mean, variance, x.numel() // x.shape[1])])
    return mean, torch.rsqrt(variance + norm.eps)


def _affine(scale: Tensor, shift: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a norm multiplies by and adds."""
    factor = scale * rstd
    return factor, torch.addcmul(shift, mean, factor, value=-1)


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
    return _in_format(of)


def _in_format(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
