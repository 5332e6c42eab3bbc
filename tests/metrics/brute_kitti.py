"""KITTI's average precision once more, by plain loops and shapely's polygons: a check of hrnas.metrics.kitti.

Written from the published protocol of KITTI's object benchmark, without a look at hrnas.metrics. Slow and plain on
purpose: one pair of boxes and one threshold at a time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import shapely

from hrnas.structures import BoxClass, KittiObjects

POSITIONS = 41
OVERLAPS = ("2d", "bev", "3d")
MEASURES = (*OVERLAPS, "aos")
NOT_SAID = -10
"""The alpha of a detection without one."""

Key = tuple[str, str, str, int]
"""Measure, class, difficulty, number of recall points."""
Kind = Literal["counted", "ignored", "other"]
"""Ignored: takes or is taken, but is neither right, missed nor false. Other: not there for this class."""


@dataclass(frozen=True)
class Limits:
    """A truth is counted when its box is taller than `height` pixels and the rest is at most as given."""

    height: float
    occluded: int
    truncated: float


DIFFICULTIES = {"easy": Limits(40, 0, 0.15), "moderate": Limits(25, 1, 0.30), "hard": Limits(25, 2, 0.50)}


@dataclass(frozen=True)
class Frame:
    """One frame in file order.

    scores: of the detections. overlaps: by measure, of each truth (first index) with each detection. covered: the share
    of each detection (second index) that lies in each DontCare region, in the image.
    """

    truths: KittiObjects
    found: KittiObjects
    scores: list[float]
    overlaps: dict[str, list[list[float]]]
    covered: list[list[float]]


@dataclass(frozen=True)
class Counts:
    """Right and false detections from a score on; likeness: of the right ones' orientations, summed."""

    right: int
    false: int
    likeness: float


def brute_ap(
    truths: Sequence[KittiObjects], found: Sequence[KittiObjects], classes: Sequence[BoxClass]
) -> dict[Key, float]:
    """Return the average precision, 0..1, of every measure, class, difficulty and number of points.

    It is nan where no truth is counted, and of "aos" wherever a detection's alpha is not said.
    """
    frames = [read_frame(*pair) for pair in zip(truths, found, strict=True)]
    alphas_are_said = all(alpha != NOT_SAID for frame in frames for alpha in frame.found.alphas)
    result: dict[Key, float] = {}
    for wanted in classes:
        for difficulty, limits in DIFFICULTIES.items():
            for measure in OVERLAPS:
                precisions, likenesses = curves(frames, measure, wanted, limits)
                by_name = {measure: precisions}
                if measure == "2d":
                    by_name["aos"] = likenesses if alphas_are_said else [math.nan] * POSITIONS
                for name, curve in by_name.items():
                    result[name, wanted.name, difficulty, 11] = sum(curve[::4]) / 11
                    result[name, wanted.name, difficulty, 40] = sum(curve[1:]) / 40
    return result


def curves(frames: list[Frame], measure: str, wanted: BoxClass, limits: Limits) -> tuple[list[float], list[float]]:
    """Return precision and orientation similarity at the 41 recall positions, each the best from there on."""
    count = 0
    scores: list[float] = []
    for frame in frames:
        count += [kind_of_truth(frame.truths, i, wanted, limits) for i in range(len(frame.truths))].count("counted")
        scores += scores_of_right(frame, measure, wanted, limits)
    if count == 0:
        return [math.nan] * POSITIONS, [math.nan] * POSITIONS
    chosen = thresholds(scores, count)
    by_frame = [counts_from(frame, measure, wanted, limits, chosen) for frame in frames]
    precisions, likenesses = [0.0] * POSITIONS, [0.0] * POSITIONS
    for position in range(len(chosen)):
        right = sum(counts[position].right for counts in by_frame)
        false = sum(counts[position].false for counts in by_frame)
        if right + false > 0:
            precisions[position] = right / (right + false)
            likenesses[position] = sum(counts[position].likeness for counts in by_frame) / (right + false)
    for position in reversed(range(POSITIONS - 1)):
        precisions[position] = max(precisions[position], precisions[position + 1])
        likenesses[position] = max(likenesses[position], likenesses[position + 1])
    return precisions, likenesses


def thresholds(scores: list[float], count: int) -> list[float]:
    """Return the score of each recall position 0, 1/40, 2/40, ..., as far as recall comes.

    scores: of the truths found; count: of all truths. With more truths than positions, as the devkit: a score is used
    once at most, where recall comes nearest to the position; the steps are added up as the devkit adds them, because a
    position halfway between two recalls is common and then their rounding decides. With fewer truths the devkit leaves
    positions empty; hrnas takes the first score at which recall reaches the position.
    """
    ordered = sorted(scores, reverse=True)
    if count < POSITIONS:
        ranks = [max(1, math.ceil(Fraction(position * count, POSITIONS - 1))) for position in range(POSITIONS)]
        return [ordered[rank - 1] for rank in ranks if rank <= len(ordered)]
    chosen: list[float] = []
    recall = 0.0
    for i in range(len(ordered)):
        here, next_one = (i + 1) / count, (i + 2) / count
        if i < len(ordered) - 1 and next_one - recall < recall - here:
            continue
        chosen.append(ordered[i])
        recall += 1 / (POSITIONS - 1)
    return chosen


def kind_of_truth(truths: KittiObjects, i: int, wanted: BoxClass, limits: Limits) -> Kind:
    if truths.types[i] in wanted.neighbours:
        return "ignored"
    if truths.types[i] != wanted.name:
        return "other"
    _, top, _, bottom = truths.boxes_2d[i].tolist()
    if bottom - top <= limits.height:
        return "ignored"
    if truths.occluded[i] > limits.occluded or truths.truncated[i] > limits.truncated:
        return "ignored"
    return "counted"


def kind_of_found(found: KittiObjects, j: int, wanted: BoxClass, limits: Limits) -> Kind:
    """Return the kind of a detection; a small one is ignored whatever its class."""
    _, top, _, bottom = found.boxes_2d[j].tolist()
    if abs(bottom - top) < limits.height:
        return "ignored"
    return "counted" if found.types[j] == wanted.name else "other"


def scores_of_right(frame: Frame, measure: str, wanted: BoxClass, limits: Limits) -> list[float]:
    """Return the scores of the truths found when each takes, in file order, the best score that is left."""
    taken: set[int] = set()
    scores = []
    for i in range(len(frame.truths)):
        kind = kind_of_truth(frame.truths, i, wanted, limits)
        if kind == "other":
            continue
        best = None
        for j in range(len(frame.found)):
            if frame.overlaps[measure][i][j] <= wanted.overlap or j in taken:
                continue
            if kind_of_found(frame.found, j, wanted, limits) == "other":
                continue
            if best is None or frame.scores[j] > frame.scores[best]:
                best = j
        if best is None:
            continue
        taken.add(best)
        if kind == "counted" and kind_of_found(frame.found, best, wanted, limits) == "counted":
            scores.append(frame.scores[best])
    return scores


def counts_from(frame: Frame, measure: str, wanted: BoxClass, limits: Limits, chosen: list[float]) -> list[Counts]:
    """Return what counts from each of the chosen scores on; worked out once for scores that leave the same."""
    known: dict[int, Counts] = {}
    result = []
    for least in chosen:
        present = [j for j, score in enumerate(frame.scores) if score >= least]
        if len(present) not in known:
            known[len(present)] = counts_of(frame, measure, wanted, limits, present)
        result.append(known[len(present)])
    return result


def counts_of(frame: Frame, measure: str, wanted: BoxClass, limits: Limits, present: list[int]) -> Counts:
    """Count when each truth takes, in file order, the counted detection that overlaps it most, else an ignored one."""
    kinds = {j: kind_of_found(frame.found, j, wanted, limits) for j in present}
    taken: set[int] = set()
    right, likeness = 0, 0.0
    for i in range(len(frame.truths)):
        kind = kind_of_truth(frame.truths, i, wanted, limits)
        if kind == "other":
            continue
        overlaps = frame.overlaps[measure][i]
        best = first_ignored = None
        for j in present:
            if overlaps[j] <= wanted.overlap or j in taken:
                continue
            if kinds[j] == "counted" and (best is None or overlaps[j] > overlaps[best]):
                best = j
            if kinds[j] == "ignored" and first_ignored is None:
                first_ignored = j
        if best is not None:
            taken.add(best)
            if kind == "counted":
                right += 1
                likeness += (1 + math.cos(frame.truths.alphas[i] - frame.found.alphas[best])) / 2
        elif first_ignored is not None:
            taken.add(first_ignored)
    false = 0
    for j in present:
        if kinds[j] != "counted" or j in taken:
            continue
        # A DontCare region has no box in space.
        if measure == "2d" and any(shares[j] > wanted.overlap for shares in frame.covered):
            continue
        false += 1
    return Counts(right, false, likeness)


def read_frame(truths: KittiObjects, found: KittiObjects) -> Frame:
    """Return the frame with the overlaps of all its pairs."""
    regions = [i for i, name in enumerate(truths.types) if name == "DontCare"]
    overlaps: dict[str, list[list[float]]] = {measure: [] for measure in OVERLAPS}
    on_ground = [polygon(found, j) for j in range(len(found))]
    for i in range(len(truths)):
        in_image, in_plan, in_space = [], [], []
        own = polygon(truths, i)
        for j in range(len(found)):
            shared = shared_in_image(truths, i, found, j)
            in_image.append(shared / (area_in_image(truths, i) + area_in_image(found, j) - shared))
            ground = 0.0 if truths.types[i] == "DontCare" else own.intersection(on_ground[j]).area
            in_plan.append(ground / (own.area + on_ground[j].area - ground))
            # y points down: an object reaches from its location up to y less its height.
            lower = min(truths.locations[i, 1], found.locations[j, 1])
            upper = max(truths.locations[i, 1] - truths.sizes[i, 0], found.locations[j, 1] - found.sizes[j, 0])
            space = ground * max(0.0, float(lower - upper))
            in_space.append(space / (volume(truths, i) + volume(found, j) - space))
        overlaps["2d"].append(in_image)
        overlaps["bev"].append(in_plan)
        overlaps["3d"].append(in_space)
    covered = [
        [shared_in_image(truths, i, found, j) / area_in_image(found, j) for j in range(len(found))] for i in regions
    ]
    return Frame(truths, found, found.scores.tolist(), overlaps, covered)


def polygon(objects: KittiObjects, i: int) -> shapely.Polygon:
    """Return the box seen from above, x to the right and z ahead; the rotation turns from +x towards -z."""
    x, _, z = objects.locations[i].tolist()
    _, width, length = objects.sizes[i].tolist()
    cos, sin = math.cos(objects.rotations[i]), math.sin(objects.rotations[i])
    corners = [(length / 2, width / 2), (length / 2, -width / 2), (-length / 2, -width / 2), (-length / 2, width / 2)]
    return shapely.Polygon(
        [(x + along * cos + across * sin, z - along * sin + across * cos) for along, across in corners]
    )


def volume(objects: KittiObjects, i: int) -> float:
    height, width, length = objects.sizes[i].tolist()
    return height * width * length


def area_in_image(objects: KittiObjects, i: int) -> float:
    left, top, right, bottom = objects.boxes_2d[i].tolist()
    return (right - left) * (bottom - top)


def shared_in_image(a: KittiObjects, i: int, b: KittiObjects, j: int) -> float:
    left, top, right, bottom = a.boxes_2d[i].tolist()
    other_left, other_top, other_right, other_bottom = b.boxes_2d[j].tolist()
    width = min(right, other_right) - max(left, other_left)
    height = min(bottom, other_bottom) - max(top, other_top)
    return width * height if width > 0 and height > 0 else 0.0
