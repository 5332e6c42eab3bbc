"""The network written plainly from the method page: what equality is tested against, and speed measured against.

Every kernel path has its own expand, depthwise and project convolution, a squeeze-excitation two linear layers;
attention is torch's nn.MultiheadAttention; maps are resized whether their sizes differ or not. Blocks bear the names of
the Architecture, and `matches` says which tensor here is which part of which tensor of ours, so that a network of any
shape can be given the very weights of ours.

B batch, C channels, H height, W width, N tokens, D token width.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrnas.arch.architecture import Architecture, Block, ClassHead, DenseHead, Stage, StemConv


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return x, (B, C, H, W), resized bilinearly to `size`."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def activate(x: Tensor, settings: Architecture, *, in_place: bool = True) -> Tensor:
    """Return x through the network's activation; in_place: a ReLU may write into x."""
    return F.relu(x, inplace=in_place) if settings.activation == "relu" else x * torch.sigmoid(x)


class TextbookLayer(nn.Module):
    """A post-norm transformer layer: queries attend to the memory, and the residual is the memory."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, bias=False, batch_first=True)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, width, bias=False)
        self.linear2 = nn.Linear(width, width, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Map (B, N, D) twice to (B, N, D)."""
        mixed, _ = self.attention(queries, memory, memory)
        x = self.norm1(memory + self.dropout(mixed))
        hidden = self.dropout(F.relu(self.linear1(x)))
        return self.norm2(x + self.dropout(self.linear2(hidden)))


class TextbookTransformer(nn.Module):
    """Position map, projector, encoder layer, decoder layer, inverse projector: the map that is added to the skip."""

    def __init__(self, block: Block, settings: Architecture) -> None:
        super().__init__()
        self.size = settings.token_size
        width = self.size**2
        steps = [step - (self.size - 1) / 2 for step in range(self.size)]
        deviation = math.sqrt(sum(step**2 for step in steps) / self.size) or 1.0
        across = torch.tensor([[step / deviation for step in steps]] * self.size)
        self.register_buffer("positions", torch.stack([across, across.T])[None], persistent=False)  # x, then y
        self.projector = nn.Conv2d(block.in_channels + 2, block.tokens, 1, bias=False)
        self.token_norm = nn.BatchNorm2d(block.tokens)
        self.encoder = TextbookLayer(width, settings.attention_heads, settings.dropout)
        self.queries = nn.Parameter(torch.randn(block.tokens, width))
        self.decoder = TextbookLayer(width, settings.attention_heads, settings.dropout)
        self.inverse_projector = nn.Conv2d(block.tokens, block.out_channels, 1, bias=False)
        self.out_norm = nn.BatchNorm2d(block.out_channels)

    def forward(self, x: Tensor, out_size: tuple[int, int]) -> Tensor:
        """Map (B, C, H, W) to (B, out_channels, *out_size)."""
        batch = x.shape[0]
        placed = torch.cat([resize(x, (self.size, self.size)), self.positions.repeat(batch, 1, 1, 1)], dim=1)
        tokens = self.token_norm(self.projector(placed)).flatten(2)  # (B, N, D)
        encoded = self.encoder(tokens, tokens)
        decoded = self.decoder(self.queries.repeat(batch, 1, 1), encoded)
        maps = decoded.unflatten(2, (self.size, self.size))
        return resize(self.out_norm(self.inverse_projector(maps)), out_size)


class TextbookBlock(nn.Module):
    """Skip + BN(sum over kernels of project(act(BN(depthwise(act(BN(expand(x)))))))) + transformer.

    With squeeze-excitation all kernels' hidden maps together are weighed before the projections.
    """

    def __init__(self, block: Block, settings: Architecture) -> None:
        super().__init__()
        self.settings = settings
        c_in, c_out, stride = block.in_channels, block.out_channels, block.stride
        norm = {"momentum": settings.norm_momentum, "eps": settings.norm_eps}
        self.expand, self.expand_norm = nn.ModuleList(), nn.ModuleList()
        self.depthwise, self.depthwise_norm = nn.ModuleList(), nn.ModuleList()
        self.project = nn.ModuleList()
        for size, hidden in block.kernels:
            self.expand.append(nn.Conv2d(c_in, hidden, 1, bias=False))
            self.expand_norm.append(nn.BatchNorm2d(hidden, **norm))
            padding = (size - 1) // 2
            self.depthwise.append(nn.Conv2d(hidden, hidden, size, stride, padding, groups=hidden, bias=False))
            self.depthwise_norm.append(nn.BatchNorm2d(hidden, **norm))
            self.project.append(nn.Conv2d(hidden, c_out, 1, bias=False))
        hidden = block.hidden_channels
        self.squeeze = nn.Linear(hidden, block.squeeze) if block.squeeze else None
        self.excite = nn.Linear(block.squeeze, hidden) if block.squeeze else None
        self.norm = nn.BatchNorm2d(c_out, **norm) if block.kernels or block.shift else None
        is_changing = stride == 2 or c_in != c_out
        groups = math.gcd(c_in, c_out)
        self.skip = nn.Conv2d(c_in, c_out, 1, stride, groups=groups, bias=False) if is_changing else None
        self.transformer = TextbookTransformer(block, settings) if block.tokens else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, ceil(H / s), ceil(W / s))."""
        skip = x if self.skip is None else self.skip(x)
        out = skip
        if self.norm is not None:
            hidden = self.weighed([self.path(index, x) for index in range(len(self.expand))])
            paths = [project(part) for project, part in zip(self.project, hidden, strict=True)]
            # A block that was emptied has the norm still, of a sum over nothing.
            total = paths[0] if paths else torch.zeros_like(skip)
            for path in paths[1:]:
                total = total + path
            out = out + self.norm(total)
        if self.transformer is not None:
            out = out + self.transformer(x, (skip.shape[2], skip.shape[3]))
        return out

    def path(self, index: int, x: Tensor) -> Tensor:
        """Return what one kernel path makes of x before its projection."""
        hidden = activate(self.expand_norm[index](self.expand[index](x)), self.settings)
        return activate(self.depthwise_norm[index](self.depthwise[index](hidden)), self.settings)

    def weighed(self, hidden: list[Tensor]) -> list[Tensor]:
        """Return the hidden maps of all paths, (B, E_k, H, W) each, times their gates."""
        if self.squeeze is None or self.excite is None:
            return hidden
        averages = torch.cat([part.mean((2, 3)) for part in hidden], dim=1)
        gates = torch.sigmoid(self.excite(activate(self.squeeze(averages), self.settings)))
        parts = gates.split([part.shape[1] for part in hidden], dim=1)
        return [part * gate[:, :, None, None] for part, gate in zip(hidden, parts, strict=True)]


class TextbookConv(nn.Module):
    """Convolution, batch norm, activation: of the stem, 3x3, and of a head of classes, 1x1."""

    def __init__(self, in_channels: int, conv: StemConv, settings: Architecture, size: int = 3) -> None:
        super().__init__()
        self.settings = settings
        self.conv = nn.Conv2d(in_channels, conv.out_channels, size, conv.stride, (size - 1) // 2, bias=False)
        self.norm = nn.BatchNorm2d(conv.out_channels, momentum=settings.norm_momentum, eps=settings.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, out_channels, ceil(H / s), ceil(W / s))."""
        return activate(self.norm(self.conv(x)), self.settings)


class TextbookFusion(nn.Module):
    """Each branch becomes the activation of the sum of what its neighbours and itself send; new ones are grown."""

    def __init__(self, stage: Stage, settings: Architecture) -> None:
        super().__init__()
        self.settings = settings
        self.routes = [(path.source, path.target) for path in stage.paths]
        self.paths = nn.ModuleList(TextbookBlock(path.block, settings) for path in stage.paths)
        self.grow = nn.ModuleList(TextbookBlock(block, settings) for block in stage.grow)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """Take and return one map (B, C_i, H_i, W_i) a branch, highest resolution first."""
        sums: dict[int, Tensor] = {}
        for (source, target), block in zip(self.routes, self.paths, strict=True):
            x = block(branches[source])
            if source > target:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            if target in sums:
                x = sums[target] + resize(x, (sums[target].shape[2], sums[target].shape[3]))
            sums[target] = x
        fused = [activate(sums[target], self.settings, in_place=False) for target in sorted(sums)]
        for block in self.grow:
            fused.append(block(fused[-1]))
        return fused


class TextbookStage(nn.Module):
    """A fusion module, then every branch's own blocks."""

    def __init__(self, stage: Stage, settings: Architecture) -> None:
        super().__init__()
        self.fusion = TextbookFusion(stage, settings)
        self.branches = nn.ModuleList(
            nn.Sequential(*(TextbookBlock(block, settings) for block in blocks)) for blocks in stage.branches
        )

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """Take and return one map (B, C_i, H_i, W_i) a branch, highest resolution first."""
        return [blocks(x) for blocks, x in zip(self.branches, self.fusion(branches), strict=True)]


class TextbookHead(nn.Module):
    """All branches at the size of the first, concatenated, one block, a 1x1 convolution with bias."""

    def __init__(self, settings: Architecture) -> None:
        super().__init__()
        head = settings.head
        assert isinstance(head, DenseHead)
        self.block = TextbookBlock(head.block, settings)
        self.output = nn.Conv2d(head.block.out_channels, head.outputs, 1)

    def forward(self, branches: list[Tensor]) -> Tensor:
        """Map features (B, C_i, H_i, W_i) to (B, outputs, H_0, W_0)."""
        size = (branches[0].shape[2], branches[0].shape[3])
        return self.output(self.block(torch.cat([resize(branch, size) for branch in branches], dim=1)))


class TextbookClassHead(nn.Module):
    """Every branch widened; from the top one block down and the next branch; 1x1 convolution, average, linear."""

    def __init__(self, settings: Architecture) -> None:
        super().__init__()
        head = settings.head
        assert isinstance(head, ClassHead)
        self.widen = nn.ModuleList(TextbookBlock(block, settings) for block in head.widen)
        self.down = nn.ModuleList(TextbookBlock(block, settings) for block in head.down)
        features = StemConv(out_channels=head.features, stride=1)
        self.features = TextbookConv(head.widen[-1].out_channels, features, settings, size=1)
        self.dropout = nn.Dropout(head.dropout)
        self.output = nn.Linear(head.features, head.outputs)

    def forward(self, branches: list[Tensor]) -> Tensor:
        """Map features (B, C_i, H_i, W_i) to (B, outputs)."""
        total = self.widen[0](branches[0])
        for index, block in enumerate(self.down):
            total = block(total) + self.widen[index + 1](branches[index + 1])
        return self.output(self.dropout(F.adaptive_avg_pool2d(self.features(total), 1).flatten(1)))


class TextbookNetwork(nn.Module):
    """A whole network: an image (B, in_channels, H, W) to logits of every place or of the image, or to its branches."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        widths = [architecture.in_channels, *(conv.out_channels for conv in architecture.stem)]
        self.stem = nn.Sequential(
            *(TextbookConv(width, conv, architecture) for width, conv in zip(widths, architecture.stem, strict=False))
        )
        self.stages = nn.ModuleList(TextbookStage(stage, architecture) for stage in architecture.stages)
        self.head = None
        if architecture.head is not None:
            is_dense = isinstance(architecture.head, DenseHead)
            self.head = TextbookHead(architecture) if is_dense else TextbookClassHead(architecture)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Return (B, outputs, H', W') or (B, outputs); without a head the list of features (B, C_i, H_i, W_i)."""
        branches = [self.stem(image)]
        for stage in self.stages:
            branches = stage(branches)
        return branches if self.head is None else self.head(branches)


@dataclass(frozen=True, kw_only=True)
class Match:
    """A tensor of a textbook module by its name in the state dict, the tensor of ours, and which part of that it is."""

    textbook: str
    ours: str
    part: tuple[slice | int, ...] = ()

    def within(self, name: str) -> "Match":
        """Return the same match for modules of that name in larger ones."""
        return Match(textbook=f"{name}.{self.textbook}", ours=f"{name}.{self.ours}", part=self.part)


def matches(architecture: Architecture) -> Iterator[Match]:
    """Yield a match for every tensor in the state dict of a TextbookNetwork."""
    for index in range(len(architecture.stem)):
        yield _same(f"stem.{index}.conv.weight")
        yield from _norm(f"stem.{index}.norm", f"stem.{index}.norm")
    for name, block in architecture.blocks():
        yield from (match.within(name) for match in block_matches(block))
    if architecture.head is not None:
        yield from (_same(f"head.output.{field}") for field in ("weight", "bias"))
    if isinstance(architecture.head, ClassHead):
        yield _same("head.features.conv.weight")
        yield from _norm("head.features.norm", "head.features.norm")


def block_matches(block: Block) -> Iterator[Match]:
    """Yield a match for every tensor of a TextbookBlock and a SearchBlock."""
    everything, start = slice(None), 0
    for index, (size, hidden) in enumerate(block.kernels):
        own = slice(start, start + hidden)
        start += hidden
        yield Match(textbook=f"expand.{index}.weight", ours="expand.weight", part=(own,))
        yield from _norm(f"expand_norm.{index}", "expand_norm", own)
        yield Match(textbook=f"depthwise.{index}.weight", ours=f"depthwise.convs.{size}.weight")
        yield from _norm(f"depthwise_norm.{index}", "depthwise_norm", own)
        yield Match(textbook=f"project.{index}.weight", ours="project.weight", part=(everything, own))
    if block.squeeze:
        for name in ("squeeze", "excite"):
            yield Match(textbook=f"{name}.weight", ours=f"gate.{name}.weight", part=(everything, everything, 0, 0))
            yield Match(textbook=f"{name}.bias", ours=f"gate.{name}.bias")
    if block.kernels or block.shift:
        yield from _norm("norm", "project_norm")
    if not block.is_residual:
        yield _same("skip.weight")
    if block.tokens:
        yield from (match.within("transformer") for match in _transformer_matches())


def load_weights(textbook: nn.Module, ours: nn.Module, pairs: Iterator[Match]) -> None:
    """Give a textbook module the weights and statistics of ours, as `matches` or `block_matches` pair them."""
    state = ours.state_dict()
    textbook.load_state_dict({match.textbook: state[match.ours][match.part] for match in pairs})


def _transformer_matches() -> Iterator[Match]:
    for name in ("projector.weight", "queries", "inverse_projector.weight"):
        yield _same(name)
    for name in ("token_norm", "out_norm"):
        yield from _norm(name, name)
    for layer in ("encoder", "decoder"):
        yield Match(textbook=f"{layer}.attention.in_proj_weight", ours=f"{layer}.attention.query_key_value.weight")
        yield Match(textbook=f"{layer}.attention.out_proj.weight", ours=f"{layer}.attention.out.weight")
        yield Match(textbook=f"{layer}.linear1.weight", ours=f"{layer}.feed_forward.0.weight")
        yield Match(textbook=f"{layer}.linear2.weight", ours=f"{layer}.feed_forward.3.weight")
        for norm in ("norm1", "norm2"):
            yield from (_same(f"{layer}.{norm}.{field}") for field in ("weight", "bias"))


def _norm(textbook: str, ours: str, part: slice = slice(None)) -> Iterator[Match]:
    for field in ("weight", "bias", "running_mean", "running_var"):
        yield Match(textbook=f"{textbook}.{field}", ours=f"{ours}.{field}", part=(part,))
    yield Match(textbook=f"{textbook}.num_batches_tracked", ours=f"{ours}.num_batches_tracked")


def _same(name: str) -> Match:
    return Match(textbook=name, ours=name)
