"""Image classification: cross-entropy with label smoothing, top1 and top5.

B batch, K classes, H, W input size; h, w size of an image as it was read.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from hrnas.data.class_views import CLASSIFICATION, evaluation_crop, training_crop
from hrnas.data.decoding import read_image
from hrnas.data.description import DataDescription
from hrnas.data.opening import DataSet
from hrnas.data.pictures import RGB
from hrnas.data.transforms import AugmentOptions
from hrnas.errors import InputError
from hrnas.metrics.classification import FIVE, ClassCounts
from hrnas.structures import Sample
from hrnas.tasks.task import EvaluationOptions, ImageTask, TargetOptions, scored_parts

_PANEL: Final = 220
"""Width of the list of classes beside a drawn image, and the least height of the drawing, in pixels."""


class ClassificationScore:
    """top1, top5 and top1 by class over a whole set."""

    def __init__(self, names: tuple[str, ...], colors: tuple[RGB, ...], conditions: dict[str, str]) -> None:
        self.names, self.colors, self.conditions = names, colors, conditions
        self.classes = ClassCounts(len(names))

    @property
    def sums(self) -> tuple[Tensor, ...]:
        return (self.classes.counts,)

    def update(self, outputs: Tensor, truths: Sequence[int]) -> None:
        """Add logits (B, K) and class indices, one an image."""
        self.classes.update(outputs, torch.tensor(truths))

    def result(self) -> dict[str, Any]:
        return {
            "top1": self.classes.top1(),
            **({"top5": self.classes.top5()} if len(self.names) > FIVE else {}),
            "parts": scored_parts(
                "top1 by class",
                value="top1",
                share="share of images",
                names=self.names,
                colors=self.colors,
                values=self.classes.top1_by_class().tolist(),
                shares=self.classes.shares().tolist(),
            ),
            "conditions": self.conditions,
        }


class Classification(ImageTask):
    """One class an image. Names and colours of the classes are the description's."""

    metric = "top1"
    head: Literal["classes"] = "classes"
    usual_input = (224, 224)
    own: Final = {**CLASSIFICATION, "label_smoothing": 0.1, "flip_test": False}

    def __init__(self, description: DataDescription, targets: TargetOptions, evaluation: EvaluationOptions) -> None:
        self.names = description.names
        self.targets, self.evaluation = targets, evaluation

    @property
    def num_outputs(self) -> int:
        return len(self.names)

    def training_view(
        self, sample: Sample[int], input_size: tuple[int, int], options: AugmentOptions, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return a random crop, uint8 (H, W, 3), and the class index, int64 ()."""
        return training_crop(sample.content, input_size, options, rng), np.array(sample.truth, np.int64)

    def evaluation_view(self, sample: Sample[Any], input_size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the middle of the image, uint8 (H, W, 3)."""
        return evaluation_crop(sample.content, input_size)

    def check_input(self, input_size: tuple[int, int]) -> None:
        """Any size will do."""

    def loss_terms(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the cross-entropy of logits (B, K) and class indices int64 (B,), summed over the images."""
        smoothing = self.targets.label_smoothing or 0.0
        return {"cross_entropy": F.cross_entropy(outputs, targets, label_smoothing=smoothing, reduction="sum")}

    def weight(self, targets: Tensor) -> Tensor:
        """Return the number of images."""
        return torch.ones_like(targets).sum()

    def mirrored(self, outputs: Tensor) -> Tensor:
        """Return the logits (B, K): a mirror image is of the same class."""
        return outputs

    def make_score(self, dataset: DataSet, input_size: tuple[int, int]) -> ClassificationScore:
        return ClassificationScore(
            dataset.names, dataset.colors, {"flip test": "yes"} if self.evaluation.flip_test else {}
        )

    def decode(self, outputs: Tensor, sample: Sample[Any], input_size: tuple[int, int]) -> NDArray[np.float32]:
        """Return the probability of every class, float32 (K,), from logits (K,)."""
        probabilities: NDArray[np.float32] = outputs.float().softmax(0).cpu().numpy()
        return probabilities

    def unlabelled(self, file: Path, boxes: Sequence[Any] | None) -> list[Sample[Any]]:
        """Return the image as a sample; it takes no boxes."""
        if boxes is not None:
            raise InputError("boxes are given; a classification looks at whole images. Leave them out.")
        return [Sample(content=read_image(file), truth=None, name=file.name)]

    def draw(
        self,
        predictions: Sequence[NDArray[np.float32]],
        samples: Sequence[Sample[int | None]],
        input_size: tuple[int, int],
    ) -> Image.Image:
        """Return the image beside its likeliest classes, the true one marked where it is known."""
        font, small = ImageFont.load_default(size=14), ImageFont.load_default(size=12)
        image, truth = samples[0].content, samples[0].truth
        height = max(image.shape[0], _PANEL)
        picture = Image.new("RGB", (image.shape[1] + _PANEL, height), "white")
        picture.paste(Image.fromarray(image), (0, 0))
        draw = ImageDraw.Draw(picture)
        left, wide, top = image.shape[1] + 12, _PANEL - 24, 10
        for index in _likeliest(predictions[0]):
            probability = float(predictions[0][index])
            color = "black" if truth is None else "green" if index == truth else "firebrick"
            text = f"{probability:.0%}"
            draw.text((left + wide, top), text, fill=color, font=small, anchor="ra")
            draw.text((left, top), _shortened(self.names[index], wide - 44, font), fill=color, font=font)
            draw.rectangle((left, top + 20, left + wide, top + 25), fill="gainsboro")
            draw.rectangle((left, top + 20, left + round(wide * probability), top + 25), fill=color)
            top += 35
        if truth is not None:
            name = _shortened(f"truth: {self.names[truth]}", wide, small)
            draw.text((left, top + 4), name, fill="green", font=small)
        return picture

    def save(
        self,
        folder: Path,
        name: str,
        predictions: Sequence[NDArray[np.float32]],
        samples: Sequence[Sample[Any]],
    ) -> Path:
        """Write the likeliest classes with their probabilities, NAME.json."""
        classes = [
            {"name": self.names[index], "probability": round(float(predictions[0][index]), 6)}
            for index in _likeliest(predictions[0])
        ]
        file = folder / f"{name}.json"
        file.write_text(json.dumps({"image": samples[0].name, "classes": classes}, indent=1) + "\n", encoding="utf-8")
        return file


def _likeliest(probabilities: NDArray[np.float32]) -> list[int]:
    order: list[int] = np.argsort(-probabilities, kind="stable")[:FIVE].tolist()
    return order


def _shortened(text: str, width: float, font: Any) -> str:
    """Return a text that fits into so many pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
