"""Semantic segmentation: cross-entropy over pixels, mean IoU over the set.

B batch, K classes, H, W input size, H', W' size of the logits, h, w size of the image as it was read.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hrnas.data.pictures import RGB, colorize, overlay
from hrnas.metrics.segmentation import ConfusionMatrix
from hrnas.nn.resizing import resize_to
from hrnas.structures import IGNORED, Sample


class SegmentationScore:
    """miou, pixel_accuracy and IoU by class over a whole set, at the size of the labels."""

    def __init__(self, names: tuple[str, ...], colors: tuple[RGB, ...]) -> None:
        self.names, self.colors = names, colors
        self.matrix = ConfusionMatrix(len(names))

    @property
    def counts(self) -> tuple[Tensor, ...]:
        return (self.matrix.counts,)

    def update(self, outputs: Tensor, truths: Sequence[Tensor]) -> None:
        """Add logits (B, K, H', W') and masks uint8 (h, w), one an image."""
        for logits, truth in zip(outputs, truths, strict=True):
            self.matrix.update(predict_mask(logits, (truth.shape[0], truth.shape[1])).cpu(), truth)

    def result(self) -> dict[str, Any]:
        iou, shares = self.matrix.iou().tolist(), self.matrix.shares().tolist()
        return {
            "miou": self.matrix.miou(),
            "pixel_accuracy": self.matrix.pixel_accuracy(),
            "parts": {
                "title": "IoU by class",
                "value": "IoU",
                "share": "share of pixels",
                "rows": [
                    {"name": name, "color": list(color), "value": value, "share": share}
                    for name, color, value, share in zip(self.names, self.colors, iou, shares, strict=True)
                ],
            },
            "conditions": {},
        }


class Segmentation:
    """One class a pixel.

    names, colors: of every class, in the order of the class indices.
    """

    metric = "miou"

    def __init__(self, *, names: tuple[str, ...], colors: tuple[RGB, ...]) -> None:
        self.names, self.colors = names, colors

    @property
    def num_outputs(self) -> int:
        return len(self.names)

    def loss_terms(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the cross-entropy of logits (B, K, H', W'), resized to the targets uint8 (B, H, W), void left out.

        Summed over the pixels; a batch that is all void gives 0, with a gradient of 0.
        """
        logits = resize_to(outputs, (targets.shape[1], targets.shape[2]))
        total = F.cross_entropy(logits, targets.long(), ignore_index=IGNORED, reduction="sum")
        return {"cross_entropy": total}

    def weight(self, targets: Tensor) -> Tensor:
        """Return the number of pixels that are not void."""
        return (targets != IGNORED).sum()

    def make_score(self) -> SegmentationScore:
        return SegmentationScore(self.names, self.colors)

    def decode(self, outputs: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the mask of class indices, uint8 (h, w), from logits (K, H', W')."""
        return predict_mask(outputs, size).to(torch.uint8).cpu().numpy()

    def draw(self, image: NDArray[np.uint8], prediction: NDArray[np.uint8], truth: Sample | None) -> Image.Image:
        """Return image | truth, where there is one | prediction laid over the image, side by side."""
        panels = [Image.fromarray(image)]
        if truth is not None:
            panels.append(Image.fromarray(colorize(truth.mask, self.colors)))
        panels.append(Image.fromarray(overlay(image, prediction, self.colors)))
        height, width = image.shape[:2]
        gap = 4
        sheet = Image.new("RGB", ((width + gap) * len(panels) - gap, height), "white")
        for index, panel in enumerate(panels):
            sheet.paste(panel, (index * (width + gap), 0))
        return sheet


def predict_mask(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the class of every pixel, int64 (h, w), from logits (K, H', W') resized bilinearly to `size` (h, w)."""
    return resize_to(logits[None], size)[0].argmax(0)
