"""One layer of the lightweight transformer (method: Lightweight transformer, 3 and 4).

A layer is short of arithmetic and rich in calls: on a CPU it is one compiled call, elsewhere as few as there are.

B batch, N tokens, D token width, P heads.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrnas.kernels.transformer import Weights
from hrnas.nn.compiled import runs_compiled
from hrnas.nn.compiled_layer import compiled_layer


class Attention(nn.Module):
    """Multi-head attention without biases, queries from one sequence, keys and values from another.

    dropout: of the attention weights, in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        memory: Tensor,
        queries: Tensor | None = None,
        key_bias: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Attend from queries (N, D), the same for each of the batch, to memory (B, N, D); without any, from it to it.

        key_bias: added to the scores of each key, (N,); None adds nothing. mask: what dropout multiplies the weights
        by, (B * P, N, N); None where torch draws it.
        """
        width = memory.shape[-1]
        if queries is None:
            q, k, v = self.query_key_value(memory).split(width, dim=-1)
        else:
            of_queries, of_memory = self.query_key_value.weight.split([width, 2 * width])
            q = F.linear(queries, of_queries).expand(len(memory), -1, -1)
            k, v = F.linear(memory, of_memory).split(width, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))  # (B, P, N, D / P)
        bias = None if key_bias is None else key_bias.to(q.dtype)
        if mask is not None:
            mixed = _attend(q, k, v, bias, mask)
        else:
            bias = None if bias is None else bias.expand(q.shape[0], self.heads, q.shape[2], -1)
            dropout = self.dropout if self.training else 0.0
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).flatten(2))


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor) -> Tensor:
    """Return what queries, keys and values (B, P, N, D / P) mix to, the weights multiplied by a mask (B * P, N, N)."""
    heads, scale = q.shape[1], q.shape[3] ** -0.5
    q, k, v = q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), v.flatten(0, 1)
    scores = torch.bmm(q * scale, k) if bias is None else torch.baddbmm(bias, q, k, alpha=scale)
    return torch.bmm(scores.softmax(-1) * mask, v).unflatten(0, (-1, heads))


class _FeedForward(nn.Sequential):
    """D -> D -> D with ReLU, without biases. The weights have the places they have with dropout between them."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Linear(width, width, bias=False),
            nn.ReLU(inplace=True),
            nn.Identity(),
            nn.Linear(width, width, bias=False),
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (B, N, D) to the same shape. mask: what dropout multiplies the hidden values by, of that shape."""
        first, relu, _, second = self
        hidden = relu(first(x))
        return second(hidden if mask is None else hidden * mask)


class Layer(nn.Module):
    """One post-norm transformer layer: attention, residual, LayerNorm, feed-forward, residual, LayerNorm.

    dropout: in training; of attention's weights and of its output, within the feed-forward and of its output.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.norm1 = nn.LayerNorm(width)
        self.feed_forward = _FeedForward(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = dropout

    def forward(self, x: Tensor, queries: Tensor | None = None, key_bias: Tensor | None = None) -> Tensor:
        """Return (B, N, D). With queries (N, D) they attend to x; the residual is x in either case (method, 4)."""
        masks = self._masks(x)
        if runs_compiled(x, self.norm1.weight.dtype):
            heads, eps = self.attention.heads, self.norm1.eps
            return compiled_layer(x, queries, key_bias, masks, self._weights(), heads=heads, eps=eps)
        if not masks:
            x = self.norm1(x + self.attention(x, queries, key_bias))
            return self.norm2(x + self.feed_forward(x))
        of_mixed, of_hidden, of_output, *of_weights = masks
        mixed = self.attention(x, queries, key_bias, *of_weights)
        x = self.norm1(x + mixed * of_mixed)
        return self.norm2(x + self.feed_forward(x, of_hidden) * of_output)

    def _masks(self, x: Tensor) -> list[Tensor]:
        """Draw what dropout multiplies by, in training; the last, of attention's weights, on a CPU only."""
        if not (self.training and self.dropout):
            return []
        shapes = [x.shape] * 3
        if x.device.type == "cpu":  # where torch has no fused attention with dropout
            shapes.append(torch.Size((len(x) * self.attention.heads, x.shape[1], x.shape[1])))
        return dropout_masks(shapes, self.dropout, x)

    def _weights(self) -> Weights:
        first, _, _, second = self.feed_forward
        return Weights(
            self.attention.query_key_value.weight,
            self.attention.out.weight,
            self.norm1.weight,
            self.norm1.bias,
            first.weight,
            second.weight,
            self.norm2.weight,
            self.norm2.bias,
        )


def dropout_masks(shapes: Sequence[torch.Size], dropout: float, x: Tensor) -> list[Tensor]:
    """Draw at once what dropout multiplies by, zeros and 1 / (1 - dropout), for operations on a tensor like x."""
    kind, dtype = x.device.type, x.dtype
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    sizes = [shape.numel() for shape in shapes]
    # Uniform numbers take half the time of bernoulli_ on a CPU, and need more bits than bfloat16 has.
    drawn = torch.empty(sum(sizes), dtype=torch.promote_types(dtype, torch.float32), device=x.device).uniform_()
    masks = drawn.ge_(dropout).div_(1 - dropout).to(dtype)
    return [mask.view(shape) for mask, shape in zip(masks.split(sizes), shapes, strict=True)]
