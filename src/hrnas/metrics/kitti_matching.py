"""KITTI's assignment of detections to labelled objects, at many score thresholds and in all frames at once.

L labelled objects, D detections, Q pairs, T thresholds, G labelled objects that have a pair.
"""

from dataclasses import dataclass

import numpy as np

from hrnas.metrics.kitti_overlaps import Array, Flags, Indices, Pairs

NOTHING = -1
"""Where no detection is assigned."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Assignment:
    """labels: int64 (G,), ascending, those that have a pair; detections: int64 (G, T), what each got, or NOTHING."""

    labels: Indices
    detections: Indices


def by_score(pairs: Pairs, scores: Array) -> Pairs:
    """Return the pairs by label, each label's best score first; of equal scores the first detection."""
    return pairs[np.lexsort((pairs.detections, -scores[pairs.detections], pairs.labels))]


def by_overlap(pairs: Pairs, low: Flags) -> Pairs:
    """Return the pairs by label, each label's greatest overlap first, of equal ones the first detection; the low last.

    Those come in the file's order, whatever their overlap. low: (D,).
    """
    overlaps = np.where(low[pairs.detections], 0, pairs.overlaps)  # a pair overlaps by more than 0
    return pairs[np.lexsort((pairs.detections, -overlaps, pairs.labels))]


def assigned(pairs: Pairs, frames: Indices, scores: Array, thresholds: Array) -> Assignment:
    """Return what each labelled object gets at each threshold (T,).

    Within a frame the labelled objects choose one after the other, in the file's order: each the first of its pairs
    whose detection no other has taken and whose score is not below the threshold.

    pairs: by label, and each label's in the order of preference. frames: (L,), scores: (D,).
    """
    labels, counts = np.unique(pairs.labels, return_counts=True)
    detections, columns = np.unique(pairs.detections, return_inverse=True)
    free = scores[detections][:, None] >= thresholds  # (detections with a pair, T)
    chosen = np.full((len(labels), len(thresholds)), NOTHING, np.int64)
    # The first of each frame choose in round 0, the second in round 1, ...: frames know nothing of each other.
    rounds = np.arange(len(labels)) - np.searchsorted(frames[labels], frames[labels])
    rounds_of_pairs = np.repeat(rounds, counts)
    for number in range(rounds.max(initial=-1) + 1):
        rows = np.flatnonzero(rounds == number)
        wanted = columns[rounds_of_pairs == number]  # one row's after another's
        begins = np.cumsum(counts[rows]) - counts[rows]
        places = np.where(free[wanted], np.arange(len(wanted))[:, None], len(wanted))
        first = np.minimum.reduceat(places, begins, axis=0)  # (rows, T)
        got = first < len(wanted)
        taken = wanted[np.minimum(first, len(wanted) - 1)]
        chosen[rows] = np.where(got, detections[taken], NOTHING)
        free[taken[got], np.nonzero(got)[1]] = False
    return Assignment(labels=labels, detections=chosen)
