"""Mixed depthwise convolution with batch norm and ReLU around it, on a CPU (float32 and float64).

N images, H height, W width, P = N * H * W pixels, c channels of a slice, E of all slices. The channels of a map are
divided into slices, each of one kernel size and with memory of its own: a matrix (P, c), channels innermost. What
belongs to channels is (E,), over the slices in their order. Nothing here is recorded for autograd: `nn.hidden` is the
function that is.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hrnas.kernels.calling import call, longs, pointers


@dataclass(frozen=True)
class Norm:
    """A batch norm as it is applied: (value - mean) * rstd * weight + bias, (E,) each."""

    mean: Tensor
    rstd: Tensor
    weight: Tensor
    bias: Tensor

    def part(self, first: int, last: int) -> "Norm":
        """Return the norm of some of the channels."""
        if (first, last) == (0, len(self.mean)):
            return self
        return Norm(*(vector[first:last] for vector in (self.mean, self.rstd, self.weight, self.bias)))


@dataclass(frozen=True)
class Layer:
    """A mixed depthwise convolution. images, height, width: of what goes in; stride: 1 or 2.

    kernels: (size, weights (c, 1, size, size)) of every slice; sizes are odd, and a map is padded by size // 2 zeros.
    """

    images: int
    height: int
    width: int
    stride: int
    kernels: Sequence[tuple[int, Tensor]]

    @property
    def pixels(self) -> int:
        """P of what goes in."""
        return self.images * self.height * self.width

    @property
    def out_pixels(self) -> int:
        """P of what comes out."""
        return self.images * -(-self.height // self.stride) * -(-self.width // self.stride)

    def arguments(self) -> list[object]:
        """Return what the library takes for it."""
        assert self.stride in (1, 2)
        assert all(size % 2 for size, _ in self.kernels)
        return [
            longs((self.images, self.height, self.width, self.stride)),
            len(self.kernels),
            longs([len(weight) for _, weight in self.kernels]),
            longs([size for size, _ in self.kernels]),
            pointers([weight for _, weight in self.kernels]),
        ]


Maps = Sequence[Tensor]
"""A map's slices, (P, c) each."""


def moments(x: Maps, eps: float, out: Tensor) -> None:
    """Write mean, biased variance and 1 / sqrt(variance + eps) of every channel into (3, E)."""
    call("moments", x[0].dtype, *_sizes(x), pointers(x), ctypes.c_double(eps), *out)


def depthwise(layer: Layer, x: Maps, norm: Norm, eps: float, out: Tensor) -> list[Tensor]:
    """Return the convolution of relu(norm(x)), and write its moments into (3, E) as `moments` does.

    The zeros around a map are not normalised.
    """
    d = [x[0].new_empty((layer.out_pixels, part.shape[1])) for part in x]
    call(
        "depthwise", x[0].dtype, *layer.arguments(), pointers(x), *_vectors(norm), pointers(d), ctypes.c_double(eps),
        *out,
    )  # fmt: skip
    return d


def activate(x: Maps, norm: Norm, *, in_place: bool = False) -> Maps:
    """Return relu(norm(x))."""
    out = x if in_place else [torch.empty_like(part) for part in x]
    call("activate", x[0].dtype, *_sizes(x), pointers(x), *_vectors(norm), pointers(out))
    return out


def activate_backward(x: Maps, gradient: Maps, norm: Norm, out: Tensor) -> Maps:
    """Return relu(norm(x)); write the sums of g, its gradient behind the ReLU, and g * (x - mean) * rstd to (2, E)."""
    active = [torch.empty_like(part) for part in x]
    call(
        "activate_backward", x[0].dtype, *_sizes(x), pointers(x), pointers(gradient), *_vectors(norm),
        pointers(active), *out,
    )  # fmt: skip
    return active


def depthwise_backward(
    layer: Layer,
    x: Maps,
    norm: Norm,
    d: Maps,
    gradient: Maps,
    d_norm: Norm,
    d_sums: Tensor,
    out: Tensor,
    *,
    is_training: bool,
) -> tuple[Maps, list[Tensor]]:
    """Go back through `depthwise` and the norm and ReLU behind it: from the gradient of relu(d_norm(d)).

    d_sums: (2, E) of `activate_backward`; is_training: the norms' statistics are those of the maps, and not constants.
    Returns g, the gradient of norm(x) behind its ReLU, and the gradients of the weights; writes the sums of g and of
    g * (x - mean) * rstd into (2, E).
    """
    g = [torch.empty_like(part) for part in x]
    of_weights = x[0].new_empty(sum(weight.numel() for _, weight in layer.kernels))
    call(
        "depthwise_backward", x[0].dtype, *layer.arguments(), pointers(x), *_vectors(norm), pointers(d),
        pointers(gradient), *_vectors(d_norm), *d_sums, int(is_training), pointers(g), of_weights, *out,
    )  # fmt: skip
    parts = of_weights.split([weight.numel() for _, weight in layer.kernels])
    return g, [part.view_as(weight) for part, (_, weight) in zip(parts, layer.kernels, strict=True)]


def norm_backward(g: Maps, x: Maps, norm: Norm, sums: Tensor, *, is_training: bool) -> Maps:
    """Return the gradient of x from g, that of norm(x), and its sums (2, E); in the place of g."""
    call("norm_backward", x[0].dtype, *_sizes(x), pointers(g), pointers(x), *_vectors(norm), *sums, int(is_training))
    return g


def _sizes(x: Maps) -> list[object]:
    return [len(x[0]), len(x), longs([part.shape[1] for part in x])]


def _vectors(norm: Norm) -> tuple[Tensor, ...]:
    return norm.mean, norm.rstd, norm.weight, norm.bias
