"""What the loops and verbs ask of a task; they contain no task's name.

B batch, K outputs of the network, H height, W width of the input; h, w of an image as it was read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hrnas.data.opening import DataSet
from hrnas.data.pictures import RGB
from hrnas.data.sizes import InputSize
from hrnas.data.transforms import OFF, AugmentOptions
from hrnas.errors import InputError
from hrnas.structures import Sample

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """What a network is asked for; the task's own choice where left out.

    sigma: of the Gaussian around a joint, in pixels of the heatmap (pose).
    label_smoothing: share of the target that all classes have alike (classification).
    """

    sigma: float | None = None
    label_smoothing: float | None = None

    def __post_init__(self) -> None:
        if self.sigma is not None and not 1 <= self.sigma <= 100:  # a narrower peak is between pixels, not on them
            raise InputError(f"targets.sigma is {self.sigma}; a number of pixels of the heatmap in 1..100 is needed.")
        if self.label_smoothing is not None and not 0 <= self.label_smoothing < 1:
            raise InputError(f"targets.label_smoothing is {self.label_smoothing}; it must lie in [0, 1).")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How a network is evaluated; the task's own choice where left out.

    size: whole images are resized to it, and training takes crops of the input size from it; the input size itself
    where left out (segmentation).
    keep_ratio: resize both axes by one factor, so that the image fits into size, lying or upright (segmentation).
    flip_test: average what the network says of an image and of its mirror image.
    decoder: how coordinates are read off heatmaps: parabola, dark or quarter (pose).
    """

    size: InputSize | None = None
    keep_ratio: bool | None = None
    flip_test: bool | None = None
    decoder: str | None = None

    def __post_init__(self) -> None:
        if self.size is not None and not isinstance(self.size, InputSize):
            object.__setattr__(self, "size", InputSize(*self.size))  # a plain (H, W) from Python


class Score(Protocol):
    """A metric over a set."""

    @property
    def sums(self) -> tuple[Tensor, ...]:
        """The tensors that the figures follow from; sums over parts of a set are those of the set.

        Counts, or one row a sample that is zero until the sample is scored. Changed in place by who adds up the parts
        that several processes have scored.
        """

    def update(self, outputs: Tensor, truths: Sequence[Any]) -> None:
        """Add a batch: the network's outputs (B, K, ...) and the truth of each sample."""

    def result(self) -> dict[str, Any]:
        """Return the figures, by name, as plain types; nan where a figure does not exist.

        Beside them `parts`, where there are any: a figure for each class or joint, and `conditions`: in words, what
        they hold under.
        """


class Task(Protocol):
    """Target, loss, metric, decoding and drawing of one kind of prediction. Pickled to the processes that read."""

    metric: str
    """Name of the figure in a score's result that decides; higher is better."""

    head: Literal["dense", "classes"]
    """Kind of head its networks have."""

    own: Mapping[str, Any]
    """Its choice for options of AugmentOptions, TargetOptions and EvaluationOptions; others mean nothing to it."""

    usual_input: tuple[int, int] | None
    """Height and width of the input where none is given; None for the size of the first image."""

    remarks: tuple[str, ...]
    """What who trains should know of the data, a line each."""

    targets: TargetOptions
    evaluation: EvaluationOptions

    @property
    def num_outputs(self) -> int:
        """Outputs of the network's head."""

    def training_view(
        self, sample: Sample[Any], input_size: tuple[int, int], options: AugmentOptions, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """Return a random view of a sample, uint8 (H, W, 3), and its target, of one shape for all samples."""

    def evaluation_view(self, sample: Sample[Any], input_size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return what evaluation sees of a sample, uint8 (H', W', 3); mostly of the input size."""

    def check_input(self, input_size: tuple[int, int]) -> None:
        """Raise InputError for an input size that the task cannot work at."""

    def loss_terms(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return named scalars, each a sum over the targets; what is minimised is their sum divided by the weight."""

    def weight(self, targets: Tensor) -> Tensor:
        """Return how many targets count, a scalar: pixels, joints, boxes; what loss terms are divided by.

        Taken over a whole batch, so the loss does not depend on how the batch is divided.
        """

    def mirrored(self, outputs: Tensor) -> Tensor:
        """Return the outputs (B, K, ...) of mirror images as they would be of the images themselves."""

    def make_score(self, dataset: DataSet, input_size: tuple[int, int]) -> Score:
        """Return an empty score for a set."""

    def decode(self, outputs: Tensor, sample: Sample[Any], input_size: tuple[int, int]) -> Any:
        """Return the prediction for one sample from its outputs (K, ...), in terms of the image as it was read."""

    def unlabelled(
        self, image: NDArray[np.uint8], name: str, boxes: Sequence[tuple[float, float, float, float]] | None
    ) -> list[Sample[Any]]:
        """Return what there is to predict in an image (h, w, 3); boxes: x, y, width, height in its pixels.

        Raises InputError for boxes that mean nothing to the task.
        """

    def draw(self, predictions: Sequence[Any], samples: Sequence[Sample[Any]]) -> Image.Image:
        """Return a picture of an image's predictions, right of the truth where its samples have one."""

    def save(self, folder: Path, name: str, predictions: Sequence[Any], samples: Sequence[Sample[Any]]) -> Path:
        """Write an image's predictions for other programs; return the file, whose name begins with `name`."""


def scored_parts(
    title: str,
    *,
    value: str,
    share: str,
    names: Sequence[str],
    colors: Sequence[RGB],
    values: Sequence[float],
    shares: Sequence[float],
) -> dict[str, Any]:
    """Return the `parts` of a score's result: a table with a row for each class or joint.

    title: of the table; value, share: its headings; values: 0..1, nan where undefined; shares: of all that was scored.
    """
    rows = [
        {"name": name, "color": list(color), "value": number, "share": part}
        for name, color, number, part in zip(names, colors, values, shares, strict=True)
    ]
    return {"title": title, "value": value, "share": share, "rows": rows}


def settled(options: T, own: Mapping[str, Any], task: str, group: str) -> T:
    """Return options with the task's own choice where they leave it; `own` names those that mean something to it.

    What means nothing to it is None in what is returned. Raises InputError where it is given, unless it asks for
    nothing, as all of `AugmentOptions.none()` does.
    """
    names = [field.name for field in fields(options)]  # type: ignore[arg-type]
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    for name, value in given.items():
        if name not in own and (name not in OFF or OFF[name] != value):
            has = ", ".join(name for name in names if name in own)
            raise InputError(
                f"{group}.{name} is {value}, which means nothing to task {task}. Leave it out"
                f"{f'; it has {has}' if has else ''}."
            )
    return replace(options, **{name: given.get(name, own[name]) if name in own else None for name in names})  # type: ignore[type-var]


def flip_tested(task: Task, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return a network's outputs for normalised images (B, 3, H, W), averaged with those of their mirror images
    where the task's evaluation asks for it.
    """
    outputs = network(images)
    if task.evaluation.flip_test:
        outputs = (outputs + task.mirrored(network(images.flip(3)))) / 2
    return outputs
