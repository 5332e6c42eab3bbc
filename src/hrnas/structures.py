"""Typed samples, targets and predictions: what data sets give, tasks train on, metrics score and pictures show.

H height, W width in pixels of the image as it was read.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

IGNORED: Final = 255
"""The class index of a pixel that takes no part in the loss or in a metric, whatever value the file used for it."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One labelled image as it was read.

    image: uint8 (H, W, 3), RGB.
    mask: uint8 (H, W), class indices 0..num_classes-1, or IGNORED.
    name: unique within its split; used to seed nothing, only to name predictions and errors.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    name: str
