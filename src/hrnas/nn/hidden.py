"""The hidden channels of a search block, from expansion to projection, as one differentiable function.

What torch would keep for the backward pass is four maps of the hidden channels and their copies. This keeps what the
depthwise convolutions put out, and where the input is wide what the expansion does; the rest is computed again. The
channels are worked on in slices, each a matrix of its own: a slice stays in the cache from one operation to the next,
and is small enough that its memory is used again and not taken from the system anew.

B batch, C channels, E hidden channels, H height, W width, P = B * H * W pixels; s stride.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hrnas.kernels import compiling, depthwise
from hrnas.kernels.slicing import EXPANDED_AGAIN, Slice, bundles
from hrnas.nn.compiled import is_plain, runs_compiled
from hrnas.nn.hidden_maps import HiddenMaps, move_on


def applies(x: Tensor, norms: Sequence[nn.Module]) -> bool:
    """Return whether `hidden_paths` can take the place of torch's operators.

    It works with plain batch norms of one mode: on a CPU where the compiled kernels run, on a GPU where Triton's are
    switched on.
    """
    first, second = norms
    return (
        type(first) is type(second) is nn.BatchNorm2d
        and first.training == second.training
        and all(norm.affine and norm.track_running_stats for norm in (first, second))
        and (
            runs_compiled(x, second.weight.dtype)
            or (is_plain(x) and x.dtype != torch.float64 and compiling.has_triton(x.device.type))
        )
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
    function = _HiddenPaths if runs_compiled(x, expand_norm.weight.dtype) else HiddenMaps
    output: Tensor = function.apply(  # type: ignore[no-untyped-call]
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
        torch.is_grad_enabled(),  # off within the function
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
        has_gradients: bool,
        sizes: tuple[int, ...],
        *weights: Tensor,
    ) -> Tensor:
        is_training, is_kept = expand_norm.training, has_gradients and any(ctx.needs_input_grad)
        size = (x.shape[0], x.shape[2], x.shape[3], stride)
        pixels = _matrix(x)
        to_hidden, from_hidden = expand.flatten(1), project.flatten(1)  # (E, C), (O, E)
        of_first, of_second = (x.new_empty((3, len(to_hidden))) for _ in range(2))  # mean, variance, rstd of the batch
        first = _norm(expand_norm, expand_scale, expand_shift, of_first)
        second = _norm(depthwise_norm, depthwise_scale, depthwise_shift, of_second)
        output = _Sum(x)
        expanded: list[Tensor] = []
        mixed: list[Tensor] = []
        for bundle in bundles(tuple(map(len, weights)), pixels.shape[0] * pixels.element_size()):
            start, end = bundle[0].first, bundle[-1].last
            layer = depthwise.Layer(*size, [(sizes[part.kernel], part.of(weights)) for part in bundle])
            before = _expanded(pixels, to_hidden, bundle)
            if is_training:
                depthwise.moments(before, expand_norm.eps, of_first[:, start:end])
            after = depthwise.depthwise(
                layer, before, first.part(start, end), depthwise_norm.eps, of_second[:, start:end]
            )
            active = depthwise.activate(after, second.part(start, end), in_place=not is_kept)
            for part, values in zip(bundle, active, strict=True):
                output.add(values, from_hidden[:, part.first : part.last].t())
            if is_kept:
                expanded += before if pixels.shape[1] > EXPANDED_AGAIN else []
                mixed += after
        result = output.result().contiguous()
        if is_training:
            move_on([(expand_norm, *of_first[:2], len(pixels)), (depthwise_norm, *of_second[:2], len(result))])
        if is_kept:
            norms = (first.mean, first.rstd, second.mean, second.rstd)
            scales = (expand_scale, expand_shift, depthwise_scale, depthwise_shift)
            ctx.save_for_backward(pixels, expand, project, *norms, *scales, *weights, *expanded, *mixed)
            ctx.is_training, ctx.size, ctx.sizes = is_training, size, sizes
        return _map(result, size)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    @torch.autocast("cpu", enabled=False)  # a backward pass within it would come in two types
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        pixels, expand, project, mean1, rstd1, mean2, rstd2, scale1, shift1, scale2, shift2, *rest = ctx.saved_tensors
        first, second = depthwise.Norm(mean1, rstd1, scale1, shift1), depthwise.Norm(mean2, rstd2, scale2, shift2)
        count = len(ctx.sizes)
        weights, maps = rest[:count], rest[count:]
        is_again = pixels.shape[1] <= EXPANDED_AGAIN
        expanded, mixed = iter(maps[: len(maps) // 2]), iter(maps if is_again else maps[len(maps) // 2 :])
        to_hidden, from_hidden = expand.flatten(1), project.flatten(1)
        of_output = _matrix(gradients[0])
        of_x = _Sum(pixels) if ctx.needs_input_grad[0] else None
        # With the strides of the parameters: DDP and fused optimizers go through both in the order of memory.
        of_expand, of_project, *of_weights = (torch.empty_like(weight) for weight in (expand, project, *weights))
        of_to_hidden, of_from_hidden = of_expand.flatten(1), of_project.flatten(1)
        of_first, of_second = (pixels.new_empty((2, len(to_hidden))) for _ in range(2))  # of shifts, of scales
        for bundle in bundles(tuple(map(len, weights)), pixels.shape[0] * pixels.element_size()):
            start, end = bundle[0].first, bundle[-1].last
            layer = depthwise.Layer(*ctx.size, [(ctx.sizes[part.kernel], part.of(weights)) for part in bundle])
            before = _expanded(pixels, to_hidden, bundle) if is_again else [next(expanded) for _ in bundle]
            after = [next(mixed) for _ in bundle]
            norm, norm_after = first.part(start, end), second.part(start, end)
            sums, sums_after = of_first[:, start:end], of_second[:, start:end]
            of_active = [of_output @ from_hidden[:, part.first : part.last] for part in bundle]
            active = depthwise.activate_backward(after, of_active, norm_after, sums_after)
            for part, values in zip(bundle, active, strict=True):
                of_from_hidden[:, part.first : part.last] = of_output.t() @ values
            del active
            of_before, found = depthwise.depthwise_backward(
                layer, before, norm, after, of_active, norm_after, sums_after, sums, is_training=ctx.is_training
            )
            del of_active
            of_before = depthwise.norm_backward(of_before, before, norm, sums, is_training=ctx.is_training)
            for part, values, of_weight in zip(bundle, of_before, found, strict=True):
                part.of(of_weights).copy_(of_weight)
                torch.mm(values.t(), pixels, out=of_to_hidden[part.first : part.last])
                if of_x is not None:
                    of_x.add(values, to_hidden[part.first : part.last])
        of_input = None if of_x is None else _map(of_x.result(), (*ctx.size[:3], 1))
        of_norms = of_first[1], of_first[0], of_second[1], of_second[0]
        return of_input, of_expand, *of_norms, of_project, *[None] * 5, *of_weights


def _expanded(pixels: Tensor, to_hidden: Tensor, bundle: Sequence[Slice]) -> list[Tensor]:
    """Return what the expansion puts out in the slices of a bundle, (P, c) each."""
    return [pixels @ to_hidden[part.first : part.last].t() for part in bundle]


class _Sum:
    """A sum of matrix products.

    Long rows begin on a boundary of 64 bytes while products are added: a product then takes two thirds of the time.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._sum: Tensor | None = None

    def add(self, left: Tensor, right: Tensor) -> None:
        """Add left @ right."""
        if self._sum is not None:
            self._sum.addmm_(left, right)
            return
        rows, width = len(left), right.shape[1]
        pitch = -(-width // 16) * 16 if width > 128 else width
        self._sum = torch.mm(left, right, out=self._like.new_empty((rows, pitch))[:, :width])

    def result(self) -> Tensor:
        """Return the sum; between its rows there may be gaps."""
        assert self._sum is not None
        return self._sum


def _norm(norm: nn.BatchNorm2d, scale: Tensor, shift: Tensor, of_batch: Tensor) -> depthwise.Norm:
    """Return a norm with the statistics of the batch, which are yet to be written, or in evaluation its own."""
    if norm.training:
        return depthwise.Norm(of_batch[0], of_batch[2], scale, shift)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return depthwise.Norm(norm.running_mean, torch.rsqrt(norm.running_var + norm.eps), scale, shift)


def _matrix(x: Tensor) -> Tensor:
    """Return a map (B, C, H, W) as (P, C); a view where it lies so already."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _map(matrix: Tensor, size: tuple[int, int, int, int]) -> Tensor:
    """Return (P, C) as a map; size: images, height and width before the stride, stride."""
    images, height, width, stride = size
    return matrix.view(images, -(-height // stride), -(-width // stride), -1).permute(0, 3, 1, 2)
