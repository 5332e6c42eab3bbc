"""Mixed depthwise convolution with batch norm and ReLU around it, on a CPU (float32 and float64).

N images, C channels, H height, W width, c channels of one kernel size. Maps are (N, C, H, W) in channels_last memory;
what belongs to channels is (C,). Nothing here is recorded for autograd: `nn.hidden` is the function that is.
"""

import ctypes
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from hrnas.kernels.compiling import library

Kernels = Sequence[tuple[int, Tensor]]
"""(size, weights (c, 1, size, size)) of every kernel size, in the order of the channels."""
_NAMES: Final = {torch.float32: "float32", torch.float64: "float64"}


def supports(x: Tensor) -> bool:
    """Return whether the kernels can work on a map: on the CPU, of one of their types, and compiled at all."""
    return x.device.type == "cpu" and x.dtype in _NAMES and library() is not None


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of every channel of (N, C, H, W)."""
    mean, variance = _vectors(x, 2)
    _call("moments", x, *_pixels(x), x, mean, variance)
    return mean, variance


def depthwise(x: Tensor, scale: Tensor, shift: Tensor, kernels: Kernels, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the convolution of relu(x * scale + shift), (N, C, ceil(H / s), ceil(W / s)), with its moments.

    The zeros around the map are not normalised.
    """
    count, channels, height, width = x.shape
    out = torch.empty(
        (count, channels, -(-height // stride), -(-width // stride)), dtype=x.dtype, memory_format=torch.channels_last
    )
    mean, variance = _vectors(x, 2)
    _call("depthwise", x, *_layer(x, kernels, stride), x, scale, shift, out, mean, variance)
    return out, mean, variance


def activate(x: Tensor, scale: Tensor, shift: Tensor, *, in_place: bool = False) -> Tensor:
    """Return relu(x * scale + shift)."""
    out = x if in_place else torch.empty_like(x)
    _call("activate", x, *_pixels(x), x, scale, shift, out)
    return out


def activate_backward(
    x: Tensor, gradient: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return relu(x * scale + shift), and the sums of g and g * (x - mean) * rstd; g is the gradient behind it."""
    activated = torch.empty_like(x)
    total, product = _vectors(x, 2)
    _call(
        "activate_backward", x, *_pixels(x), x, _like(gradient, x), scale, shift, mean, rstd, activated, total, product
    )
    return activated, total, product


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
    """Go back through `depthwise` and the norm and ReLU behind it.

    gradient: of relu(d * d_scale + d_shift). The gradient of d is d_scale * (gradient behind the ReLU) + c1 * d + c0.
    Returns g, the gradient of x * scale + shift; those of the weights; the sums of g and of g * (x - mean) * rstd.
    """
    out = torch.empty_like(x)
    weight_gradients = torch.empty(sum(weight.numel() for _, weight in kernels), dtype=x.dtype)
    total, product = _vectors(x, 2)
    vectors = (scale, shift, mean, rstd, d, _like(gradient, d), d_scale, d_shift, c1, c0)
    _call("depthwise_backward", x, *_layer(x, kernels, stride), x, *vectors, out, weight_gradients, total, product)
    parts = weight_gradients.split([weight.numel() for _, weight in kernels])
    return out, [part.view_as(weight) for part, (_, weight) in zip(parts, kernels, strict=True)], total, product


def norm_backward(gradient: Tensor, x: Tensor, scale: Tensor, c1: Tensor, c0: Tensor) -> Tensor:
    """Return scale * gradient + c1 * x + c0, in the place of the gradient."""
    _call("norm_backward", x, *_pixels(x), gradient, x, scale, c1, c0)
    return gradient


def _like(tensor: Tensor, x: Tensor) -> Tensor:
    """Return a tensor in channels_last memory and of the type of another."""
    return tensor.to(x.dtype).contiguous(memory_format=torch.channels_last)


def _vectors(x: Tensor, count: int) -> tuple[Tensor, ...]:
    return torch.empty((count, x.shape[1]), dtype=x.dtype).unbind(0)


def _pixels(x: Tensor) -> tuple[int, int]:
    return x.numel() // max(x.shape[1], 1), x.shape[1]


def _layer(x: Tensor, kernels: Kernels, stride: int) -> tuple[object, ...]:
    count, channels, height, width = x.shape
    assert stride in (1, 2)
    assert sum(len(weight) for _, weight in kernels) == channels
    assert all(weight.is_contiguous() or weight.shape[2] == 1 for _, weight in kernels)
    longs, pointers = ctypes.c_int64 * len(kernels), ctypes.c_void_p * len(kernels)
    return (
        (ctypes.c_int64 * 5)(count, height, width, channels, stride),
        len(kernels),
        longs(*(size for size, _ in kernels)),
        longs(*(len(weight) for _, weight in kernels)),
        pointers(*(weight.data_ptr() for _, weight in kernels)),
    )


def _call(name: str, x: Tensor, *arguments: object) -> None:
    """Call a function of the library for the type of a map; all tensors lie as the module's head says."""
    compiled = library()
    assert compiled is not None
    function = compiled[f"{name}_{_NAMES[x.dtype]}"]
    given: list[object] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            is_map = argument.dim() == 4
            assert argument.dtype == x.dtype
            assert argument.is_contiguous(memory_format=torch.channels_last if is_map else torch.contiguous_format)
            given.append(ctypes.c_void_p(argument.data_ptr()))
        else:
            given.append(ctypes.c_int64(argument) if isinstance(argument, int) else argument)
    function.restype = None
    function(*given)
