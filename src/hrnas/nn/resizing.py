"""Bilinear resizing of maps. B batch, C channels, H height, W width."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hrnas.kernels import resizing
from hrnas.kernels.resizing import Size
from hrnas.nn.compiled import runs_compiled


def resize_to(x: Tensor, size: Size) -> Tensor:
    """Return x, (B, C, H, W), resized bilinearly to `size`; x itself when it has that size."""
    if (x.shape[2], x.shape[3]) == size:
        return x
    if x.is_contiguous(memory_format=torch.channels_last) and runs_compiled(x):
        resized: Tensor = _Resize.apply(x, size)  # type: ignore[no-untyped-call]
        return resized
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class _Resize(torch.autograd.Function):
    """torch's own goes back through a copy in its default memory format, which takes longer than all the rest."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: Size) -> Tensor:
        ctx.size = (x.shape[2], x.shape[3])
        return resizing.resize(_innermost(x), size).permute(0, 3, 1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return resizing.resize_backward(_innermost(gradients[0]), ctx.size).permute(0, 3, 1, 2), None


def _innermost(x: Tensor) -> Tensor:
    """Return (B, C, H, W) as (B, H, W, C), contiguous."""
    return x.permute(0, 2, 3, 1).contiguous()
