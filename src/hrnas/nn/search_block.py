"""The search block in its fused form (method: Search block; HR-NAS section 3.2).

B batch, C channels, H height, W width, E hidden channels of all kernel paths together.
"""

from torch import Tensor, nn

from hrnas.arch.architecture import Architecture, Block
from hrnas.nn.conv import EmptyNorm, MixedDepthwise, make_activation
from hrnas.nn.hidden import applies, hidden_paths
from hrnas.nn.squeeze import SqueezeExcitation
from hrnas.nn.transformer import LightweightTransformer


class SearchBlock(nn.Module):
    """Parallel kernel paths + skip + transformer: (B, in, H, W) -> (B, out, ceil(H / s), ceil(W / s)).

    One expansion serves all kernel paths, one projection closes them: batch norm is per channel, so this equals the
    separate expand, depthwise, project of each path with one shared batch norm after their sum. The scales of
    `depthwise_norm` are the importance factors of the hidden channels.

    settings: gives the activation, the norm and the transformer settings of the whole network.
    """

    def __init__(self, block: Block, settings: Architecture) -> None:
        super().__init__()
        self.norm_settings = {"momentum": settings.norm_momentum, "eps": settings.norm_eps}
        self.activation_name = settings.activation
        self.activation = make_activation(settings.activation)
        self.skip = (
            nn.Identity()
            if block.is_residual
            else nn.Conv2d(
                block.in_channels, block.out_channels, 1, stride=block.stride, groups=block.skip_groups, bias=False
            )
        )
        self.transformer = (
            LightweightTransformer(
                block.in_channels,
                block.out_channels,
                tokens=block.tokens,
                size=settings.token_size,
                heads=settings.attention_heads,
                dropout=settings.dropout,
            )
            if block.tokens
            else None
        )
        self.block = block
        self._make_paths()

    def resize(self, block: Block) -> None:
        """Make anew what differs in `block`, its kernel paths or its tokens; the values of that are undefined after.

        The training or evaluation mode stays.
        """
        before, self.block = self.block, block
        if block.kernels != before.kernels:
            self._make_paths()
        if block.tokens != before.tokens:
            assert self.transformer is not None, "a block cannot gain a transformer"
            if block.tokens:
                self.transformer.resize(block.tokens)
            else:
                self.transformer = None

    def _make_paths(self) -> None:
        block = self.block
        hidden, out = block.hidden_channels, block.out_channels
        self.expand = nn.Conv2d(block.in_channels, hidden, 1, bias=False) if hidden else None
        self.expand_norm = nn.BatchNorm2d(hidden, **self.norm_settings) if hidden else None
        self.depthwise = MixedDepthwise(block.kernels, stride=block.stride) if hidden else None
        self.depthwise_norm = nn.BatchNorm2d(hidden, **self.norm_settings) if hidden else None
        self.gate = SqueezeExcitation(hidden, block.squeeze, activation=self.activation_name) if block.squeeze else None
        self.project = nn.Conv2d(hidden, out, 1, bias=False) if hidden else None
        self.project_norm: nn.BatchNorm2d | None = None
        if hidden:
            self.project_norm = nn.BatchNorm2d(out, **self.norm_settings)
        elif block.shift:
            self.project_norm = EmptyNorm(out, **self.norm_settings)
        self.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, ceil(H / s), ceil(W / s))."""
        out = self.skip(x)
        if self.expand is not None:
            out = out + self.project_norm(self._hidden(x))
        elif self.project_norm is not None:
            out = out + self.project_norm(x)
        if self.transformer is not None:
            out = out + self.transformer(x, (out.shape[2], out.shape[3]))
        return out

    def _hidden(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) through all kernel paths to (B, out_channels, H', W'), before the shared norm."""
        # The kernels know ReLU alone, and a gate needs the whole map before the projection.
        is_plain = self.activation_name == "relu" and self.gate is None
        if is_plain and applies(x, (self.expand_norm, self.depthwise_norm)):
            return hidden_paths(
                x, self.expand, self.expand_norm, self.depthwise.paths, self.depthwise_norm, self.project,
                stride=self.block.stride,
            )  # fmt: skip
        hidden = self.activation(self.expand_norm(self.expand(x)))  # (B, E, H, W)
        hidden = self.activation(self.depthwise_norm(self.depthwise(hidden)))  # (B, E, H', W')
        return self.project(hidden if self.gate is None else self.gate(hidden))

    def extra_repr(self) -> str:
        kernels = ", ".join(f"{size}: {channels}" for size, channels in self.block.kernels)
        return f"kernels={{{kernels}}}, tokens={self.block.tokens}, squeeze={self.block.squeeze}"
