"""Intersection over union and pixel accuracy of a whole set from one confusion matrix.

K number of classes.
"""

import torch
from torch import Tensor

from hrnas.structures import IGNORED


class ConfusionMatrix:
    """Counts of pixels by true class (row) and predicted class (column); ignored pixels are not counted.

    counts: int64 (K, K), so sums over a set, or over processes, are exact.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Add the pixels of one prediction; both of integer class indices and of the same shape, truth may ignore."""
        assert predicted.shape == truth.shape, "prediction and truth must have one size"
        num_classes = len(self.counts)
        counted = truth != IGNORED
        pairs = truth[counted].long() * num_classes + predicted[counted].long()
        self.counts += torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes).cpu()

    def iou(self) -> Tensor:
        """Return the IoU of every class, float64 (K,); nan where a class is in neither truth nor prediction."""
        hits = self.counts.diagonal().double()
        return hits / (self.counts.sum(0) + self.counts.sum(1) - self.counts.diagonal())

    def miou(self) -> float:
        """Return the mean IoU over the classes that are in truth or prediction; nan for an empty set."""
        return float(self.iou().nanmean())

    def pixel_accuracy(self) -> float:
        """Return the share of counted pixels that are right; nan for an empty set."""
        return float(self.counts.diagonal().sum().double() / self.counts.sum())

    def shares(self) -> Tensor:
        """Return each class's share of the counted true pixels, float64 (K,)."""
        return self.counts.sum(1).double() / self.counts.sum().clamp_min(1)
