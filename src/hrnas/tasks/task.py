"""What the loops and verbs ask of a task; they contain no task's name.

B batch, K outputs of the network, H height, W width of the input; h, w of an image as it was read; P points of a cloud.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from PIL import Image
from torch import Tensor

from hrnas.arch.architecture import Pillars
from hrnas.data.decoding import IMAGE_ENDINGS
from hrnas.data.loading import Views
from hrnas.data.opening import DataSet
from hrnas.data.pictures import RGB
from hrnas.data.progress import ShowProgress
from hrnas.data.sizes import InputSize
from hrnas.data.transforms import OFF, AugmentOptions, normalize
from hrnas.errors import InputError
from hrnas.structures import Sample

T = TypeVar("T")
V = TypeVar("V")


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """What a network is asked for; the task's own choice where left out.

    sigma: of the Gaussian around a joint, in pixels of the heatmap (pose).
    label_smoothing: share of the target that all classes have alike (classification).
    cell: side of a pillar of points, in metres (detection3d).
    z_range: heights between which points count, in metres in the lidar's frame (detection3d).
    """

    sigma: float | None = None
    label_smoothing: float | None = None
    cell: float | None = None
    z_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.sigma is not None and not 1 <= self.sigma <= 100:  # a narrower peak is between pixels, not on them
            raise InputError(f"targets.sigma is {self.sigma}; a number of pixels of the heatmap in 1..100 is needed.")
        if self.label_smoothing is not None and not 0 <= self.label_smoothing < 1:
            raise InputError(f"targets.label_smoothing is {self.label_smoothing}; it must lie in [0, 1).")
        if self.cell is not None and not 0.01 <= self.cell <= 10:
            raise InputError(f"targets.cell is {self.cell}; a number of metres in 0.01..10 is needed.")
        if self.z_range is not None and not -1000 <= self.z_range[0] < self.z_range[1] <= 1000:
            low, high = self.z_range
            raise InputError(
                f"targets.z_range is {low:g}..{high:g}; two heights within -1000..1000 are needed, the lower one first."
            )


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


class Task(Views, Protocol):
    """Target, loss, metric, decoding and drawing of one kind of prediction. Pickled to the processes that read."""

    metric: str
    """Name of the figure in a score's result that decides; higher is better."""

    head: Literal["dense", "classes", "anchors"]
    """Kind of head its networks have."""

    stem_stride: int | None
    """Stride of the stem, and so of branch 0, that its networks need; None for the search space's own."""

    endings: Collection[str]
    """Endings of the files that `unlabelled` reads, in small letters, with the dot."""

    own: Mapping[str, Any]
    """Its choice for options of AugmentOptions, TargetOptions and EvaluationOptions; others mean nothing to it."""

    usual_input: tuple[int, int] | None
    """Height and width of the input where none is given; None for the size of the first image."""

    targets: TargetOptions
    evaluation: EvaluationOptions

    @property
    def num_outputs(self) -> int:
        """Outputs of the network's head: classes, or joints."""

    def pillars(self, input_size: tuple[int, int]) -> Pillars | None:
        """Return what makes the input of a network from a cloud; None where images come in."""

    def check_augment(self, options: AugmentOptions) -> None:
        """Raise InputError for options, settled ones, that do not fit the described set."""

    def views(self, dataset: DataSet, options: AugmentOptions, progress: ShowProgress) -> Views:
        """Return what makes views of the samples of a set: the task itself, where it needs no other sample for that.

        options: settled. progress: shows how far it is where something has to be made of the whole set first.
        """

    def remarks(self, dataset: DataSet, input_size: tuple[int, int]) -> Sequence[str]:
        """Return what who trains should know of the data, a line each.

        dataset: that the networks are scored on. input_size: of the network's input.

        Raises InputError for labels that cannot be read.
        """

    def remarks_on(self, samples: Sequence[Sample[Any]]) -> Sequence[str]:
        """Return what who looks at predictions for samples should know of these, a line each."""

    def prepared(self, inputs: Tensor) -> Tensor:
        """Return a network's input for what a batch holds, on its device: images normalised, clouds as they are."""

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

    def unlabelled(self, file: Path, boxes: Sequence[tuple[float, float, float, float]] | None) -> list[Sample[Any]]:
        """Return what there is to predict in a file; boxes: x, y, width, height in pixels of its image.

        Raises InputError for a file that cannot be read, or boxes that mean nothing to the task.
        """

    def draw(
        self, predictions: Sequence[Any], samples: Sequence[Sample[Any]], input_size: tuple[int, int]
    ) -> Image.Image:
        """Return a picture of an image's predictions, right of the truth where its samples have one.

        input_size: at which they were predicted.
        """

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


def flip_tested(task: Task, network: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Return a network's outputs for prepared inputs, images (B, 3, H, W) averaged with those of their mirror images
    where the task's evaluation asks for it.
    """
    outputs = network(inputs)
    if task.evaluation.flip_test:
        outputs = (outputs + task.mirrored(network(inputs.flip(3)))) / 2
    return outputs


class ImageTask:
    """What the tasks have in common whose samples are images."""

    endings = IMAGE_ENDINGS
    stem_stride = None

    def pillars(self, input_size: tuple[int, int]) -> None:
        """No points, no pillars."""

    def check_augment(self, options: AugmentOptions) -> None:
        """Whatever is settled fits."""

    def views(self: V, dataset: DataSet, options: AugmentOptions, progress: ShowProgress) -> V:
        """Return the task: a view is of one image alone."""
        return self

    def remarks(self, dataset: DataSet, input_size: tuple[int, int]) -> Sequence[str]:
        """There is nothing to say of images."""
        return ()

    def remarks_on(self, samples: Sequence[Sample[Any]]) -> Sequence[str]:
        """There is nothing to say of images."""
        return ()

    def prepared(self, inputs: Tensor) -> Tensor:
        """Return images uint8 (B, 3, H, W) normalised."""
        return normalize(inputs)
