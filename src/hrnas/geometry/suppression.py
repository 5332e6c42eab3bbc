"""Suppression of doubles: of boxes that overlap the best goes on, the others go."""

from typing import Final

import torch
from torch import Tensor

from hrnas.geometry.overlaps import iou_bev

_BLOCK: Final = 64
"""Boxes compared with the rest at once: a box that a better one suppressed in an earlier block is never compared."""


def suppressed(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    """Return the indices (K,) int64 of the boxes that stay, best first; at most `most`.

    boxes: (M, 7) as in geometry.overlaps. scores: (M,); of equal ones the first given goes first. overlap: intersection
    over union seen from above; a box that has more than that with a better one that stays goes.
    """
    assert boxes.shape == (len(scores), 7), "one score a box"
    waiting = torch.argsort(scores, descending=True, stable=True)
    kept: list[Tensor] = []
    count = 0
    while len(waiting) and count < most:
        block = waiting[:_BLOCK]
        over = iou_bev(boxes[block], boxes[waiting]) > overlap  # (block, waiting)
        stays = _greedy(over[:, : len(block)].cpu().tolist())
        kept.append(block[stays])
        count += len(stays)
        rest = ~over[stays, len(block) :].any(dim=0)
        waiting = waiting[len(block) :][rest]
    return torch.cat([waiting[:0], *kept])[:most]


def _greedy(over: list[list[bool]]) -> list[int]:
    """Return the places that stay of a block whose boxes lie over each other as told, best first."""
    stays: list[int] = []
    for place in range(len(over)):
        if not any(over[better][place] for better in stays):
            stays.append(place)
    return stays
