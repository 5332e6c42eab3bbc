"""Semantic segmentation: cross-entropy over pixels, mean IoU over the set.

B batch, K classes, H, W input size, H', W' size of the logits, h, w size of the image as it was read.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hrnas.data.decoding import read_image
from hrnas.data.description import DataDescription
from hrnas.data.opening import DataSet
from hrnas.data.pictures import RGB, colorize, overlay, side_by_side
from hrnas.data.transforms import SEGMENTATION, AugmentOptions, EvaluationSize, evaluation_view, training_view
from hrnas.errors import InputError
from hrnas.metrics.segmentation import ConfusionMatrix
from hrnas.nn.resizing import resize_to
from hrnas.structures import IGNORED, Mask, Sample
from hrnas.tasks.task import EvaluationOptions, ImageTask, TargetOptions, scored_parts


class SegmentationScore:
    """miou, pixel_accuracy and IoU by class over a whole set, at the size of the labels."""

    def __init__(self, names: tuple[str, ...], colors: tuple[RGB, ...], conditions: dict[str, str]) -> None:
        self.names, self.colors, self.conditions = names, colors, conditions
        self.matrix = ConfusionMatrix(len(names))

    @property
    def sums(self) -> tuple[Tensor, ...]:
        return (self.matrix.counts,)

    def update(self, outputs: Tensor, truths: Sequence[Mask]) -> None:
        """Add logits (B, K, H', W') and masks (h, w), one an image."""
        for logits, truth in zip(outputs, truths, strict=True):
            predicted = predict_mask(logits, (truth.shape[0], truth.shape[1]))
            self.matrix.update(predicted.cpu(), torch.tensor(truth))

    def result(self) -> dict[str, Any]:
        return {
            "miou": self.matrix.miou(),
            "pixel_accuracy": self.matrix.pixel_accuracy(),
            "parts": scored_parts(
                "IoU by class",
                value="IoU",
                share="share of pixels",
                names=self.names,
                colors=self.colors,
                values=self.matrix.iou().tolist(),
                shares=self.matrix.shares().tolist(),
            ),
            "conditions": self.conditions,
        }


class Segmentation(ImageTask):
    """One class a pixel. Names and colours of the classes are the description's."""

    metric = "miou"
    head: Literal["dense"] = "dense"
    usual_input = None
    own: Final = {**SEGMENTATION, "size": None, "keep_ratio": False, "flip_test": False}

    def __init__(self, description: DataDescription, targets: TargetOptions, evaluation: EvaluationOptions) -> None:
        self.names, self.colors = description.names, description.colors
        self.targets, self.evaluation = targets, evaluation
        self._size: EvaluationSize | None = None
        if evaluation.size is not None:
            height, width = evaluation.size
            self._size = EvaluationSize(height=height, width=width, keep_ratio=bool(evaluation.keep_ratio))
        elif evaluation.keep_ratio:
            raise InputError("evaluation.keep_ratio is set without evaluation.size; give the size to fit into as well.")

    @property
    def num_outputs(self) -> int:
        return len(self.names)

    def training_view(
        self, sample: Sample[Mask], input_size: tuple[int, int], options: AugmentOptions, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], Mask]:
        """Return a random view and its mask, uint8 (H, W, 3) and (H, W)."""
        return training_view(sample.content, sample.truth, input_size, options, rng, self._size)

    def evaluation_view(self, sample: Sample[Mask], input_size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the whole image at the evaluation size, or at the input size where there is none."""
        return evaluation_view(sample.content, input_size, self._size)

    def check_input(self, input_size: tuple[int, int]) -> None:
        """Any size will do."""

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

    def mirrored(self, outputs: Tensor) -> Tensor:
        """Return logits (B, K, H', W') of mirror images turned back."""
        return outputs.flip(3)

    def make_score(self, dataset: DataSet, input_size: tuple[int, int]) -> SegmentationScore:
        conditions = {}
        if self._size is not None:
            ratio = ", ratio kept" if self._size.keep_ratio else ""
            conditions["size"] = f"{self._size.height}x{self._size.width}{ratio}"
        if self.evaluation.flip_test:
            conditions["flip test"] = "yes"
        return SegmentationScore(dataset.names, dataset.colors, conditions)

    def decode(self, outputs: Tensor, sample: Sample[Any], input_size: tuple[int, int]) -> Mask:
        """Return the mask of class indices, uint8 (h, w), from logits (K, H', W')."""
        height, width = sample.content.shape[:2]
        return predict_mask(outputs, (height, width)).to(torch.uint8).cpu().numpy()

    def unlabelled(self, file: Path, boxes: Sequence[Any] | None) -> list[Sample[Any]]:
        """Return the image as a sample; it takes no boxes."""
        if boxes is not None:
            raise InputError("boxes are given; a segmentation labels whole images. Leave them out.")
        return [Sample(content=read_image(file), truth=None, name=file.name)]

    def draw(
        self, predictions: Sequence[Mask], samples: Sequence[Sample[Mask | None]], input_size: tuple[int, int]
    ) -> Image.Image:
        """Return image | truth, where there is one | prediction laid over the image, side by side."""
        image = samples[0].content
        panels = [image]
        if samples[0].truth is not None:
            panels.append(colorize(samples[0].truth, self.colors))
        panels.append(overlay(image, predictions[0], self.colors))
        return side_by_side(panels)

    def save(self, folder: Path, name: str, predictions: Sequence[Mask], samples: Sequence[Sample[Any]]) -> Path:
        """Write the mask as an image of class indices, NAME.labels.png."""
        file = folder / f"{name}.labels.png"
        Image.fromarray(predictions[0]).save(file)
        return file


def predict_mask(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the class of every pixel, int64 (h, w), from logits (K, H', W') resized bilinearly to `size` (h, w)."""
    return resize_to(logits[None], size)[0].argmax(0)
