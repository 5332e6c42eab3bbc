"""The lightweight transformer (method: Lightweight transformer; HR-NAS section 3.1).

B batch, C channels, H height, W width, N tokens, S side of a token's map, D = S * S token width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from hrnas.nn.resizing import resize_to
from hrnas.nn.transformer_layer import Layer


def position_map(size: int) -> Tensor:
    """Return the 2-channel position map (1, 2, size, size): x, then y, each of mean 0 and population std 1."""
    steps = torch.arange(size, dtype=torch.float64)
    axis = (steps - steps.mean()) / steps.std(correction=0).clamp_min(1e-12)
    x, y = axis.expand(size, size), axis[:, None].expand(size, size)
    return torch.stack([x, y])[None].float()


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
        small = resize_to(x, (self.size, self.size))  # (B, C, S, S)
        positions = self.positions.to(small).expand(len(x), -1, -1, -1)
        projected = self.token_norm(self.projector(torch.cat([small, positions], dim=1)))
        tokens = projected.flatten(2).contiguous()  # (B, N, D)
        decoded = self.decoder(self.encoder(tokens, key_bias=self.key_bias), self.queries, self.key_bias)  # (B, N, D)
        if self.token_gate is not None:
            decoded = decoded * self.token_gate.to(decoded.dtype)
        summary = decoded.unflatten(2, (self.size, self.size))  # (B, N, S, S)
        out = self.out_norm(self.inverse_projector(summary))  # (B, out_channels, S, S)
        if self.module_gate is not None:
            out = out * self.module_gate.to(out.dtype)
        return resize_to(out, out_size)


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
