"""What the loops and verbs ask of a task; they contain no task's name.

B batch, K outputs of the network, H height, W width of the input, h, w of the image as it was read.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hrnas.structures import Sample


class Score(Protocol):
    """A metric over a set, from exact counts."""

    @property
    def counts(self) -> tuple[Tensor, ...]:
        """The integer tensors that the figures follow from; sums over parts of a set are those of the set.

        Changed in place by who adds up the parts that several processes have scored.
        """

    def update(self, outputs: Tensor, truths: Sequence[Tensor]) -> None:
        """Add a batch: the network's outputs (B, K, ...) and one truth an image."""

    def result(self) -> dict[str, Any]:
        """Return the figures, by name, as plain types; nan where a figure does not exist."""


class Task(Protocol):
    """Target, loss, metric, decoding and drawing of one kind of prediction."""

    metric: str
    """Name of the figure in a score's result that decides; higher is better."""

    @property
    def num_outputs(self) -> int:
        """Outputs of the network's head."""

    def loss_terms(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return named scalars, each a sum over the targets; what is minimised is their sum divided by the weight."""

    def weight(self, targets: Tensor) -> Tensor:
        """Return how many targets count, a scalar: pixels, joints, boxes; what loss terms are divided by.

        Taken over a whole batch, so the loss does not depend on how the batch is divided.
        """

    def make_score(self) -> Score:
        """Return an empty score."""

    def decode(self, outputs: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the prediction for one image of `size` (h, w) from its outputs (K, ...)."""

    def draw(self, image: NDArray[np.uint8], prediction: NDArray[np.uint8], truth: Sample | None) -> Image.Image:
        """Return a picture of a prediction on its image (h, w, 3), beside the truth when there is one."""
