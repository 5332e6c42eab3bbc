"""PCK: the share of labelled joints that are found within a part of a reference length of their person.

N people, K joints. Source: Yang and Ramanan, TPAMI 2013; the torso as reference: Sapp and Taskar, CVPR 2013.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NEAR: Final = 0.2
"""PCK@0.2: how far off a joint may be, as a share of the reference length."""


@dataclass(frozen=True, kw_only=True)
class ReferenceLength:
    """How a person's size is measured.

    words: for reports. ends: the distance between the middles of two groups of joints; where not all of them are
    labelled the next one is taken. With none at all it is the longer side of the box.
    """

    words: str
    ends: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()

    def measured(self, truth: Array, boxes: Array) -> Array:
        """Return the length of each person (N,), nan where nothing can be measured.

        truth: (N, K, 3), x, y, visibility; boxes: (N, 4), x, y, width, height.
        """
        if not self.ends:
            longer: Array = boxes[:, 2:].max(axis=1)
            return longer
        lengths = np.full(len(truth), np.nan)
        for first, second in reversed(self.ends):
            measurable = (truth[:, [*first, *second], 2] > 0).all(axis=1)
            between = truth[:, first, :2].mean(axis=1) - truth[:, second, :2].mean(axis=1)
            lengths = np.where(measurable, np.hypot(between[:, 0], between[:, 1]), lengths)
        return lengths


@dataclass(frozen=True, kw_only=True)
class Pck:
    """right, counted: int64 (K,), labelled joints found and labelled joints in all, of the people that can be measured.

    left_out: people with labelled joints that have no reference length.
    """

    right: NDArray[np.int64]
    counted: NDArray[np.int64]
    left_out: int

    def overall(self) -> float:
        """Return the share of all counted joints that are right; nan where none is counted."""
        return float(self.right.sum() / self.counted.sum()) if self.counted.any() else float("nan")

    def by_joint(self) -> list[float]:
        """Return the share of each joint; nan where it is never counted."""
        return [
            int(right) / int(counted) if counted else float("nan")
            for right, counted in zip(self.right, self.counted, strict=True)
        ]


def count_pck(joints: Array, truth: Array, boxes: Array, reference: ReferenceLength) -> Pck:
    """Return the counts for joints (N, K, 3), of which x, y count, against truth (N, K, 3): x, y, visibility."""
    lengths = reference.measured(truth, boxes)
    labelled = truth[:, :, 2] > 0
    counted = labelled & np.isfinite(lengths)[:, None]
    distances = np.hypot(joints[:, :, 0] - truth[:, :, 0], joints[:, :, 1] - truth[:, :, 1])
    right = counted & (distances <= NEAR * np.where(np.isfinite(lengths), lengths, 0)[:, None])
    return Pck(
        right=right.sum(axis=0),
        counted=counted.sum(axis=0),
        left_out=int((labelled.any(axis=1) & ~np.isfinite(lengths)).sum()),
    )
