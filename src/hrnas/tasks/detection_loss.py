"""The loss of 3D detection over anchors: what they are (focal), where their boxes are, which way these look.

Source: PointPillars (Lang et al., CVPR 2019), section 2.4: focal loss with alpha .25 and gamma 2, smooth L1 of the
residuals with the sine of the yaw's difference, cross-entropy of the direction, weighted 1, 2 and 0.2, over the number
of anchors that stand for a box. Smooth L1 turns from a square to a line at 1/9 (SECOND, Yan et al., Sensors 2018).

B batch, K classes, A anchors a place, H0, W0 rows and columns of the map, R targets of a scene, Q of a batch.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from hrnas.tasks.anchors import split_outputs

ALPHA: Final = 0.25
"""Weight of what an anchor is, against 1 - ALPHA of what it is not."""
BETA: Final = 1 / 9
"""Difference of residuals from which on smooth L1 is a straight line."""
CLASSES_WEIGHT: Final = 1.0
BOXES_WEIGHT: Final = 2.0
DIRECTIONS_WEIGHT: Final = 0.2


def detection_losses(outputs: Tensor, targets: Tensor, num_classes: int) -> dict[str, Tensor]:
    """Return the terms "classes", "boxes" and "directions", each a sum over the anchors of the batch, weighted.

    outputs: (B, A (K + 9), H0, W0). targets: float32 (B, R, 10), as `anchors.assigned` gives them, padded with rows of
    -1. All terms over the number of anchors that stand for a box (`num_found`) are the paper's loss.
    """
    logits, residuals, directions = split_outputs(outputs, num_classes)
    scene, row = (targets[..., 0] >= 0).nonzero(as_tuple=True)
    told = targets[scene, row]  # (Q, 10)
    is_found = told[:, 1] >= 0
    numbers = told[:, 0].long()
    places = _places(scene, numbers, logits.shape)

    # What is told of is taken out of the background, where nothing is lost on a logit of -inf and no gradient flows.
    background = logits.float().movedim(2, -1).index_put(places, logits.new_tensor(-torch.inf, dtype=torch.float32))
    classes = (1 - ALPHA) * _focal(background)
    found = tuple(index[is_found] for index in places)
    told = told[is_found]
    is_own = F.one_hot(told[:, 1].long(), num_classes).bool()
    of_found = logits.movedim(2, -1)[found].float()
    classes = classes + ALPHA * _focal(-of_found[is_own]) + (1 - ALPHA) * _focal(of_found[~is_own])

    differences = residuals.movedim(2, -1)[found].float() - told[:, 2:9]
    differences = torch.cat([differences[:, :6], differences[:, 6:].sin()], 1)
    boxes = F.smooth_l1_loss(differences, torch.zeros_like(differences), beta=BETA, reduction="sum")
    ways = F.cross_entropy(directions.movedim(2, -1)[found].float(), told[:, 9].long(), reduction="sum")
    return {
        "classes": CLASSES_WEIGHT * classes,
        "boxes": BOXES_WEIGHT * boxes,
        "directions": DIRECTIONS_WEIGHT * ways,
    }


def num_found(targets: Tensor) -> Tensor:
    """Return how many anchors stand for a box in targets (B, R, 10), a scalar."""
    return ((targets[..., 0] >= 0) & (targets[..., 1] >= 0)).sum()


def _places(scene: Tensor, numbers: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the indices (Q,) of scene, anchor of the place, row and column in maps (B, A, ..., H0, W0)."""
    rows, columns = shape[-2:]
    return scene, numbers // (rows * columns), numbers // columns % rows, numbers % columns


def _focal(logits: Tensor) -> Tensor:
    """Return the focal loss, gamma 2, of logits of what is not so, summed: p^2 * -log(1 - p) of p = sigmoid(logit)."""
    return (logits.sigmoid().square() * F.softplus(logits)).sum()
