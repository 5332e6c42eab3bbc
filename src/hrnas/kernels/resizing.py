"""Bilinear resizing on a CPU, as torch's with align_corners=False. B batch, C channels, H height, W width."""

from torch import Tensor

from hrnas.kernels.calling import call, longs

Size = tuple[int, int]


def resize(x: Tensor, size: Size) -> Tensor:
    """Return x, (B, H, W, C), as (B, *size, C)."""
    out = x.new_empty((x.shape[0], *size, x.shape[3]))
    call("resize", x.dtype, _shape(x, out), x, out)
    return out


def resize_backward(gradient: Tensor, size: Size) -> Tensor:
    """Return the gradient of what was resized, (B, *size, C), from that of what came out, (B, H, W, C)."""
    out = gradient.new_empty((gradient.shape[0], *size, gradient.shape[3]))
    call("resize_backward", gradient.dtype, _shape(out, gradient), gradient, out)
    return out


def _shape(x: Tensor, out: Tensor) -> object:
    batch, height, width, channels = x.shape
    return longs((batch, channels, height, width, out.shape[1], out.shape[2]))
