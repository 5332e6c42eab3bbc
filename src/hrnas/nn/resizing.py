"""Bilinear resizing of maps. B batch, C channels, H height, W width."""

import torch.nn.functional as F
from torch import Tensor


def resize_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return x, (B, C, H, W), resized bilinearly to `size`; x itself when it has that size."""
    if (x.shape[2], x.shape[3]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
