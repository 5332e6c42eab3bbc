"""The lightweight transformer (method: Lightweight transformer; HR-NAS section 3.1).

B batch, C channels, H height, W width, N tokens, S side of a token's map, D = S * S token width.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def position_map(size: int) -> Tensor:
    """Return the 2-channel position map (1, 2, size, size): x, then y, each of mean 0 and population std 1."""
    steps = torch.arange(size, dtype=torch.float64)
    axis = (steps - steps.mean()) / steps.std(correction=0).clamp_min(1e-12)
    x, y = axis.expand(size, size), axis[:, None].expand(size, size)
    return torch.stack([x, y])[None].float()


class Attention(nn.Module):
    """Multi-head attention without biases, queries from one sequence, keys and values from another."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, queries: Tensor, memory: Tensor | None = None, key_bias: Tensor | None = None) -> Tensor:
        """Attend from queries (B, N, D) to memory (B, N, D); without memory, from the queries to themselves.

        key_bias: added to the scores of each key, (N,); None adds nothing.
        """
        width = queries.shape[-1]
        if memory is None:
            q, k, v = self.query_key_value(queries).split(width, dim=-1)
        else:
            of_queries, of_memory = self.query_key_value.weight.split([width, 2 * width])
            q = F.linear(queries, of_queries)
            k, v = F.linear(memory, of_memory).split(width, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))  # (B, heads, N, D/heads)
        dropout = self.dropout if self.training else 0.0
        bias = None if key_bias is None else key_bias.to(q.dtype).expand(q.shape[0], self.heads, q.shape[2], -1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).flatten(2))


class _FeedForward(nn.Sequential):
    """D -> D -> D with ReLU and dropout, without biases."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(width, width, bias=False),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(width, width, bias=False),
            nn.Dropout(dropout),
        )


class Layer(nn.Module):
    """One post-norm transformer layer: attention, residual, LayerNorm, feed-forward, residual, LayerNorm."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.dropout = nn.Dropout(dropout)
        self.norm1 = nn.LayerNorm(width)
        self.feed_forward = _FeedForward(width, dropout)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, queries: Tensor | None = None, key_bias: Tensor | None = None) -> Tensor:
        """Return (B, N, D). With queries (B, N, D) they attend to x; the residual is x in either case (method, 4)."""
        mixed = self.attention(x if queries is None else queries, None if queries is None else x, key_bias)
        x = self.norm1(x + self.dropout(mixed))
        return self.norm2(x + self.feed_forward(x))


class LightweightTransformer(nn.Module):
    """Attention among N learned summaries of a map: (B, C, H, W) -> (B, out_channels, H', W'), without the skip.

    Tokens are channels of a projection, each an S x S map flattened to D = S * S numbers. The scales of `token_norm`
    are the importance factors of the tokens.

    A token of scale zero is not inert: attention still spreads weight over it. While a search retires tokens they have
    a presence below 1 (`set_presence`), and at presence 0 a token is out: the module computes what it computes without
    it. A network that no search works on has no presences.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        tokens: int,
        size: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.size = size
        width = size * size
        self.register_buffer("positions", position_map(size), persistent=False)
        self.encoder = Layer(width, heads, dropout)
        self.decoder = Layer(width, heads, dropout)
        self.out_norm = nn.BatchNorm2d(out_channels)
        self._widths = (in_channels, out_channels)
        for name in ("key_bias", "token_gate", "module_gate"):
            self.register_buffer(name, None, persistent=False)
        self.resize(tokens)

    def resize(self, tokens: int) -> None:
        """Make anew what belongs to single tokens; its values are undefined after, and all are present."""
        in_channels, out_channels = self._widths
        self.projector = nn.Conv2d(in_channels + 2, tokens, 1, bias=False)
        # torch's default momentum and eps, not the network's: recorded networks of the 2021 code have eps 1e-5 here.
        self.token_norm = nn.BatchNorm2d(tokens)
        self.queries = nn.Parameter(torch.randn(tokens, self.size * self.size))
        self.inverse_projector = nn.Conv2d(tokens, out_channels, 1, bias=False)
        self.set_presence(None)
        self.train(self.training)

    def set_presence(self, presence: Tensor | None) -> None:
        """Say how far each token takes part, float (N,) in [0, 1]; None: all do, fully.

        Attention weighs a key by its presence relative to the most present token's, and what a token puts out is
        weighed alike; the module's whole output is weighed by the largest presence, so that the last tokens fade
        with it: the norm behind the projection would undo any common scale of theirs.
        """
        self.key_bias = self.token_gate = self.module_gate = None
        if presence is not None:
            set_presences([self], presence)

    def forward(self, x: Tensor, out_size: tuple[int, int]) -> Tensor:
        """Return the map to add to the skip, (B, out_channels, *out_size)."""
        batch = x.shape[0]
        small = F.interpolate(x, size=(self.size, self.size), mode="bilinear", align_corners=False)  # (B, C, S, S)
        positions = self.positions.to(small.dtype).expand(batch, -1, -1, -1)
        tokens = self.token_norm(self.projector(torch.cat([small, positions], dim=1))).flatten(2)  # (B, N, D)
        encoded = self.encoder(tokens, key_bias=self.key_bias)
        queries = self.queries.to(encoded.dtype).expand(batch, -1, -1)
        decoded = self.decoder(encoded, queries, self.key_bias)  # (B, N, D)
        if self.token_gate is not None:
            decoded = decoded * self.token_gate.to(decoded.dtype)
        summary = decoded.unflatten(2, (self.size, self.size))  # (B, N, S, S)
        out = self.out_norm(self.inverse_projector(summary))  # (B, out_channels, S, S)
        if self.module_gate is not None:
            out = out * self.module_gate.to(out.dtype)
        return F.interpolate(out, size=out_size, mode="bilinear", align_corners=False)


def set_presences(transformers: Sequence[LightweightTransformer], presence: Tensor) -> None:
    """Set the presences of all tokens of some transformers of one device, with one transfer to it.

    presence: float (sum of N), the tokens of one transformer after those of the other.
    """
    if not transformers:
        return
    counts = [len(transformer.queries) for transformer in transformers]
    flat = presence.cpu().float().numpy()
    starts = np.cumsum([0, *counts[:-1]])
    largest, smallest = np.maximum.reduceat(flat, starts), np.minimum.reduceat(flat, starts)
    of_token = np.repeat(largest, counts)
    relative = np.divide(flat, of_token, out=np.ones_like(flat), where=of_token > 0)
    with np.errstate(divide="ignore"):
        values = np.concatenate([np.log(relative), relative, largest])
    there = torch.from_numpy(values).to(transformers[0].queries.device)
    biases, gates, of_modules = there.split([len(flat), len(flat), len(counts)])
    parts = zip(transformers, biases.split(counts), gates.split(counts), of_modules, smallest == 1, strict=True)
    for transformer, bias, gate, of_module, is_whole in parts:
        if is_whole:
            transformer.set_presence(None)
        else:
            transformer.key_bias, transformer.token_gate, transformer.module_gate = bias, gate[:, None], of_module


def copy_presences(source: nn.Module, target: nn.Module) -> None:
    """Give the tokens of one network the presences they have in another of the same architecture and device."""
    for name, module in source.named_modules():
        if isinstance(module, LightweightTransformer):
            other = target.get_submodule(name)
            assert isinstance(other, LightweightTransformer)
            other.key_bias, other.token_gate = module.key_bias, module.token_gate
            other.module_gate = module.module_gate
