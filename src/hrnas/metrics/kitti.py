"""KITTI's average precision of objects: in the image, of orientation, from above, in space.

L labelled objects, D detections, of all frames; K classes. Source: Geiger et al., CVPR 2012, section 2.4, and the rules
of the object development kit of 2017 (BEV and 3D); 40 recall positions: Simonelli et al., ICCV 2019.

As the development kit has it:
- Types are compared without regard to case. The sides of 2D boxes are plain differences, without a pixel more.
- A labelled object of the class counts where its 2D height is above the difficulty's least one and its occlusion and
  truncation are not above the greatest; so the easy ones count among the moderate and those among the hard. The others
  of the class, and all of its neighbours, are ignored: neither found nor missed, but they take detections.
- A detection below the least 2D height is ignored in every measure: neither right nor false. The kit asks for the
  height before the type, so one of another class may be assigned to an object of this class, too, which then is neither
  found nor missed.
- Overlap is intersection over union and must be above the class's limit, one limit for all measures. The objects of a
  frame choose in the file's order, each among the detections not yet taken. A first pass assigns the best score; the
  scores of those found give the thresholds. The second, at each threshold, assigns the greatest overlap, and an ignored
  detection (the first in the file) only where there is no other. Of equals the first in the file is assigned.
- DontCare: a detection is not false where it is assigned to nothing and one DontCare area covers more of its own 2D box
  than the class's limit. That is so in the image and for orientation alone: a DontCare area has no box in space, and
  from above and in space the detections in it are false.
- 41 recall positions, 0, 1/40, ..., 1. The scores of those found, best first, serve the positions in turn; one is
  passed over where the recall after the next is nearer to the position than that after itself, and the last is
  never passed over. The precision at a position is the best there or behind; behind the last threshold it is 0. R40 is
  the mean over positions 1 to 40, R11 that over 0, 4, ..., 40.
- AOS counts (1 + cos(difference of alphas)) / 2 of a right detection, by the assignment of the 2D measure. If the alpha
  of a single detection of the set is -10, unknown, there is no AOS of any class: nan.

Ours, where the kit's figure is missing or means nothing:
- The kit lets a score serve one position. So N perfect detections fill N positions, and for N <= 40 it prints an R40
  of (N - 1) / 40 and an R11 of ceil(N / 4) / 11. Here a score also serves the following positions that the recall after
  it reaches: position k after the score of rank i, from 0, if k / 40 <= (i + 1) / N. From 41 counted objects on that
  never happens and the figures are the kit's; perfect detections have 1 with any number of objects.
- nan where no object of a class and difficulty counts; 0 where some do and nothing of the class was detected.
- At a threshold where nothing is left, right or false, precision is 0; the kit divides by 0.
- AOS of a class and difficulty is nan if the alpha of a counted object is unknown; the kit takes -10 for an angle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from hrnas.metrics.kitti_matching import NOTHING, assigned, by_overlap, by_score
from hrnas.metrics.kitti_overlaps import (
    Array,
    Flags,
    JoinedFrames,
    Pairs,
    dont_care_shares,
    joined,
    overlapping,
)
from hrnas.structures import DIFFICULTIES, BoxClass, KittiObjects

Measure = Literal["2d", "aos", "bev", "3d"]

MEASURES: Final[tuple[Measure, ...]] = ("2d", "aos", "bev", "3d")
POSITIONS: Final = 41
"""Recall positions 0, 1/40, ..., 1."""
UNKNOWN_ALPHA: Final = -10


@dataclass(frozen=True, kw_only=True, eq=False)
class KittiAP:
    """Precision of the classes at each recall position.

    class_names: K. precisions: float64 (4, K, 3, 41): by measure (MEASURES), class, difficulty (DIFFICULTIES) and
    recall position, 0..1, never rising; nan where there is no figure. objects: int64 (K, 3), how many count.
    """

    class_names: tuple[str, ...]
    precisions: Array
    objects: NDArray[np.int64]

    def value(self, measure: Measure, class_name: str, difficulty: str, points: Literal[40, 11]) -> float:
        """Return an average precision, 0..1; nan where no object counts, or without AOS.

        difficulty: "easy", "moderate" or "hard". points: 40 or 11 recall positions.
        """
        names = [known.name for known in DIFFICULTIES]
        place = MEASURES.index(measure), self.class_names.index(class_name), names.index(difficulty)
        precisions = self.precisions[place]
        return float(precisions[1:].mean() if points == 40 else precisions[::4].mean())


def kitti_ap(truths: Sequence[KittiObjects], found: Sequence[KittiObjects], classes: Sequence[BoxClass]) -> KittiAP:
    """Return the average precision of every class in every measure and difficulty.

    truths, found: the labelled objects and the detections of the same frames, in one order.
    """
    assert len(truths) == len(found), "labels and detections are of the same frames"
    assert not any(np.isnan(detected.scores).any() for detected in found), "a detection has a score"
    labels, detections = joined(truths), joined(found)
    precisions = np.full((len(MEASURES), len(classes), len(DIFFICULTIES), POSITIONS), np.nan)
    objects = np.zeros((len(classes), len(DIFFICULTIES)), np.int64)
    wanted = np.isin(labels.types, [name.lower() for kind in classes for name in (kind.name, *kind.neighbours)])
    pairs = overlapping(labels, detections, wanted, min((kind.overlap for kind in classes), default=1))
    covered = dont_care_shares(labels, detections)
    with_aos = not (detections.alphas == UNKNOWN_ALPHA).any()
    for row, kind in enumerate(classes):
        pairs_of_class = {measure: _of_class(of_all, labels, kind) for measure, of_all in pairs.items()}
        for column, difficulty in enumerate(DIFFICULTIES):
            counted = (labels.types == kind.name.lower()) & difficulty.counts(
                labels.heights, labels.occluded, labels.truncated
            )
            objects[row, column] = counted.sum()
            if not counted.any():
                continue
            low = detections.heights < difficulty.least_height
            usual = (detections.types == kind.name.lower()) & ~low
            for measure, chosen in pairs_of_class.items():
                may_be_false = usual & (covered <= kind.overlap) if measure == "2d" else usual
                precision, similarity = _curves(
                    chosen[(low | usual)[chosen.detections]], labels, detections, counted, low, may_be_false
                )
                precisions[MEASURES.index(measure), row, column] = precision
                if measure == "2d" and with_aos and not (labels.alphas[counted] == UNKNOWN_ALPHA).any():
                    precisions[MEASURES.index("aos"), row, column] = similarity
    return KittiAP(class_names=tuple(kind.name for kind in classes), precisions=precisions, objects=objects)


def _of_class(pairs: Pairs, labels: JoinedFrames, kind: BoxClass) -> Pairs:
    """Return the pairs of objects of a class or of its neighbours that overlap as much as the class asks for."""
    names = [name.lower() for name in (kind.name, *kind.neighbours)]
    return pairs[np.isin(labels.types[pairs.labels], names) & (pairs.overlaps > kind.overlap)]


def _curves(
    pairs: Pairs, labels: JoinedFrames, detections: JoinedFrames, counted: Flags, low: Flags, may_be_false: Flags
) -> tuple[Array, Array]:
    """Return precision and orientation similarity at the recall positions, each (POSITIONS,), never rising.

    counted: (L,), the objects to find. low: (D,), the detections too low to count. may_be_false: (D,), those that are
    false where nothing takes them.
    """
    scores = detections.scores
    first = assigned(by_score(pairs, scores), labels.frames, scores, np.array([-np.inf]))
    chosen = first.detections[:, 0]
    found = counted[first.labels] & (chosen != NOTHING) & ~low[chosen]
    thresholds = _thresholds(scores[chosen[found]], int(counted.sum()))

    second = assigned(by_overlap(pairs, low), labels.frames, scores, thresholds)
    taken = second.detections != NOTHING  # (G, T)
    right = taken & counted[second.labels][:, None] & ~low[second.detections]
    turned = labels.alphas[second.labels][:, None] - detections.alphas[second.detections]
    ranked = np.sort(scores[may_be_false])
    false = len(ranked) - np.searchsorted(ranked, thresholds) - (taken & may_be_false[second.detections]).sum(axis=0)
    positives = right.sum(axis=0) + false
    return (
        _filled(right.sum(axis=0), positives),
        _filled(np.where(right, (1 + np.cos(turned)) / 2, 0).sum(axis=0), positives),
    )


def _thresholds(scores: Array, num_objects: int) -> Array:
    """Return the score at which each recall position is taken, from 0 on, as far as the recall goes.

    scores: of the objects found. num_objects: how many there are to find.
    """
    ranked = np.sort(scores)[::-1]
    thresholds: list[float] = []
    position = 0.0  # added up as the development kit does it, to round alike
    for place, score in enumerate(ranked.tolist()):
        recall, recall_of_next = (place + 1) / num_objects, (place + 2) / num_objects
        if place + 1 < len(ranked) and recall_of_next - position < position - recall:
            continue
        thresholds.append(score)
        position += 1 / (POSITIONS - 1)
        # Not the kit's: with few objects one score takes the recall over several positions.
        while len(thresholds) * num_objects <= (POSITIONS - 1) * (place + 1):
            thresholds.append(score)
            position += 1 / (POSITIONS - 1)
    return np.array(thresholds)


def _filled(part: Array, positives: Array) -> Array:
    """Return part / positives at all positions (POSITIONS,), 0 behind the last; each the best there or behind."""
    values = np.zeros(POSITIONS)
    np.divide(part, positives, out=values[: len(part)], where=positives > 0)
    best: Array = np.maximum.accumulate(values[::-1])[::-1]
    return best
