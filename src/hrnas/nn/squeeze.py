"""Squeeze-excitation (Hu et al. 2018): every channel weighed by what the whole map is like.

B batch, E channels, H height, W width.
"""

from torch import Tensor, nn

from hrnas.nn.conv import make_activation


class SqueezeExcitation(nn.Module):
    """(B, E, H, W) -> (B, E, H, W): times a gate for each channel, made of the average of each.

    hidden: width between the two 1x1 convolutions.
    """

    def __init__(self, channels: int, hidden: int, *, activation: str) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.activation = make_activation(activation)
        self.excite = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, E, H, W) to the same shape."""
        average = x.mean((2, 3), keepdim=True)  # (B, E, 1, 1)
        return x * self.excite(self.activation(self.squeeze(average))).sigmoid()
