"""A layer of the lightweight transformer as one differentiable function of the compiled CPU kernels.

B batch, N tokens, D token width, P heads.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hrnas.kernels import transformer


def compiled_layer(
    x: Tensor,
    queries: Tensor | None,
    key_bias: Tensor | None,
    masks: Sequence[Tensor],
    weights: transformer.Weights,
    *,
    heads: int,
    eps: float,
) -> Tensor:
    """Map (B, N, D) to the same shape; arguments as in `kernels.transformer:Layer`."""
    bias = None if key_bias is None else key_bias.to(x.dtype)
    output: Tensor = _CompiledLayer.apply(x, queries, bias, heads, eps, tuple(masks), *weights.tensors())  # type: ignore[no-untyped-call]
    return output


class _CompiledLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        queries: Tensor | None,
        key_bias: Tensor | None,
        heads: int,
        eps: float,
        masks: tuple[Tensor, ...],
        *weights: Tensor,
    ) -> Tensor:
        given = _given(x, queries, key_bias, masks, weights, heads, eps)
        out, kept = transformer.layer(given)
        ctx.save_for_backward(given.x, queries, key_bias, kept, *weights, *masks)
        ctx.heads, ctx.eps, ctx.num_weights = heads, eps, len(weights)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, queries, key_bias, kept, *rest = ctx.saved_tensors
        weights, masks = rest[: ctx.num_weights], rest[ctx.num_weights :]
        given = _given(x, queries, key_bias, masks, weights, ctx.heads, ctx.eps)
        of_x, of_queries, of_weights = transformer.layer_backward(given, kept, gradients[0].contiguous())
        return of_x, of_queries, None, None, None, None, *of_weights.tensors()


def _given(
    x: Tensor,
    queries: Tensor | None,
    key_bias: Tensor | None,
    masks: Sequence[Tensor],
    weights: Sequence[Tensor],
    heads: int,
    eps: float,
) -> transformer.Layer:
    of_layer = transformer.Weights(*(weight.contiguous() for weight in weights))
    own = None if queries is None else queries.contiguous()
    return transformer.Layer(x.contiguous(), own, key_bias, of_layer, masks, heads, eps)
