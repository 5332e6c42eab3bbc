"""Convolutions with batch norm, and the two small layers the search block needs beside them.

B batch, C channels, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hrnas.arch.architecture import Architecture


def make_activation(activation: str, *, in_place: bool = True) -> nn.Module:
    """Return the activation, "relu" or "swish"; Swish never works in place, for its gradient needs its input."""
    return nn.ReLU(inplace=in_place) if activation == "relu" else nn.SiLU()


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm, activation: (B, C, H, W) -> (B, out, ceil(H / s), ceil(W / s)).

    size: of the kernel, odd. settings: gives the activation and the norm's settings.
    """

    def __init__(self, in_channels: int, out_channels: int, *, size: int, stride: int, settings: Architecture) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, size, stride=stride, padding=size // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, momentum=settings.norm_momentum, eps=settings.norm_eps)
        self.activation = make_activation(settings.activation)


class MixedDepthwise(nn.Module):
    """Depthwise convolutions of several kernel sizes, each on its own slice of the channels.

    (B, C, H, W) -> (B, C, ceil(H / s), ceil(W / s)); kernels: (size, channels) of every slice, in order.
    """

    def __init__(self, kernels: Sequence[tuple[int, int]], *, stride: int) -> None:
        super().__init__()
        self.widths = [channels for _, channels in kernels]
        self.convs = nn.ModuleDict(
            {
                str(size): nn.Conv2d(
                    channels, channels, size, stride=stride, padding=size // 2, groups=channels, bias=False
                )
                for size, channels in kernels
            }
        )

    @property
    def paths(self) -> list[tuple[int, nn.Conv2d]]:
        """(size, convolution) of every slice, in order."""
        return [(int(size), conv) for size, conv in self.convs.items()]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, ceil(H / s), ceil(W / s))."""
        slices = x.split(self.widths, dim=1)
        return torch.cat([conv(part) for conv, part in zip(self.convs.values(), slices, strict=True)], dim=1)


class EmptyNorm(nn.BatchNorm2d):
    """What a batch norm makes of a map of zeros: the constant an emptied block still adds to its skip.

    When the last kernel path of a block dies, its shared batch norm sees a constant. In training it then gives its
    bias, in evaluation its bias plus what the running mean has not yet caught up with. Both are kept, and the running
    statistics go on as those of the masked block would, so the cut is exact in both modes. After a recalibration only
    the bias is left.
    """

    weight: Tensor

    def __init__(self, channels: int, *, momentum: float, eps: float) -> None:
        super().__init__(channels, momentum=momentum, eps=eps)
        scale = self._parameters.pop("weight")
        assert scale is not None
        # A buffer: the scale of a map of zeros has no gradient, and a parameter without one stops a DDP run.
        self.register_buffer("weight", scale.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Return the constant as (1, C, 1, 1); x, (B, C, H, W), gives only device and dtype."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        if self.training:
            self.num_batches_tracked.add_(1)
            momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.mul_(1 - momentum)
            self.running_var.mul_(1 - momentum)
            shift = self.bias
        else:
            shift = self.bias - self.weight * self.running_mean * torch.rsqrt(self.running_var + self.eps)
        return shift.to(x.dtype).view(1, -1, 1, 1)
