"""A layer of the lightweight transformer on a CPU, each pass one call. Nothing here is recorded for autograd.

B batch, N tokens, D token width, P heads. All tensors are contiguous.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from hrnas.kernels.calling import call, longs, pointers


@dataclass(frozen=True)
class Weights:
    """Of the linear maps, (out, in), and of the layer norms, (D,); their gradients have the same shapes."""

    query_key_value: Tensor
    out: Tensor
    scale1: Tensor
    shift1: Tensor
    first: Tensor
    second: Tensor
    scale2: Tensor
    shift2: Tensor

    def tensors(self) -> list[Tensor]:
        """Return them in this order."""
        return [getattr(self, field.name) for field in fields(self)]


@dataclass(frozen=True)
class Layer:
    """What goes through a layer. x: (B, N, D). queries: (N, D), those of every image; None: x attends to itself.

    key_bias: (N,), added to the scores of each key. masks: what dropout multiplies the attention's output, the hidden
    values, the output (B, N, D) and the attention's weights (B * P, N, N) by, in this order; none without dropout.
    """

    x: Tensor
    queries: Tensor | None
    key_bias: Tensor | None
    weights: Weights
    masks: Sequence[Tensor]
    heads: int
    eps: float

    def arguments(self) -> list[object]:
        """Return what the library takes for it."""
        assert not self.masks or len(self.masks) == 4
        return [
            longs((*self.x.shape, self.heads)),
            ctypes.c_double(self.eps),
            pointers([self.x, self.queries, self.key_bias]),
            pointers(self.weights.tensors()),
            pointers([*self.masks] or [None] * 4),
        ]


def layer(given: Layer) -> tuple[Tensor, Tensor]:
    """Return what comes out, (B, N, D), and what `layer_backward` needs of the pass."""
    x = given.x
    batch, tokens, width = x.shape
    of_queries = width * tokens * (1 if given.queries is not None else batch)
    kept = x.new_empty(6 * x.numel() + of_queries + batch * given.heads * tokens**2 + 2 * batch * tokens)
    out = torch.empty_like(x)
    call("layer", x.dtype, *given.arguments(), kept, out)
    return out, kept


def layer_backward(given: Layer, kept: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor | None, Weights]:
    """Return the gradients of x, of queries and of the weights from that of what came out."""
    of_x = torch.empty_like(given.x)
    of_queries = None if given.queries is None else torch.empty_like(given.queries)
    of_weights = Weights(*map(torch.empty_like, given.weights.tensors()))
    found = pointers([of_x, of_queries, *of_weights.tensors()])
    call("layer_backward", given.x.dtype, *given.arguments(), kept, gradient, found)
    return of_x, of_queries, of_weights
