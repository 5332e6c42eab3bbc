"""top1 and top5 over a whole set from exact counts.

B batch, K number of classes.
"""

from typing import Final

import torch
from torch import Tensor

FIVE: Final = 5


class ClassCounts:
    """Counts of images by true class; counts: int64 (3, K): images, those right at first, those within the first five.

    So sums over a set, or over processes, are exact.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = torch.zeros(3, num_classes, dtype=torch.int64)

    def update(self, scores: Tensor, truth: Tensor) -> None:
        """Add scores (B, K), the higher the likelier, and class indices (B,)."""
        num_classes = self.counts.shape[1]
        ranked = scores.topk(min(FIVE, num_classes), dim=1).indices.cpu()
        truth = truth.cpu()
        hits = ranked == truth[:, None]
        for row, chosen in enumerate((torch.ones_like(truth, dtype=torch.bool), hits[:, 0], hits.any(1))):
            self.counts[row] += torch.bincount(truth[chosen], minlength=num_classes)

    def top1(self) -> float:
        """Return the share of images whose likeliest class is right; nan for an empty set."""
        return float(self.counts[1].sum().double() / self.counts[0].sum())

    def top5(self) -> float:
        """Return the share of images whose class is among the five likeliest; nan for an empty set."""
        return float(self.counts[2].sum().double() / self.counts[0].sum())

    def top1_by_class(self) -> Tensor:
        """Return top1 of each class's images, float64 (K,); nan for a class without any."""
        return self.counts[1].double() / self.counts[0]

    def shares(self) -> Tensor:
        """Return each class's share of the images, float64 (K,)."""
        return self.counts[0].double() / self.counts[0].sum().clamp_min(1)
