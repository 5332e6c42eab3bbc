"""Anchors: the coder both ways, the assignment against a plain double loop, boxes read off perfect outputs."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from detections import perfect_outputs, random_boxes
from hrnas.arch.presets import HR_SMALL
from hrnas.data.kitti_classes import CLASSES
from hrnas.errors import InputError
from hrnas.structures import BoxClass, Boxes3D
from hrnas.tasks.anchors import (
    FIELDS,
    IGNORED_ANCHOR,
    AnchorGrid,
    assigned,
    decoded,
    encoded,
    found_boxes,
    split_outputs,
    thresholds,
)

INPUT = (80, 60)
"""Rows and columns of pillars of 0.32 m: 25.6 m x 19.2 m."""
GRID = AnchorGrid.of(CLASSES, INPUT, 0.32)


def boxes_of(*rows: tuple[float, ...], labels: tuple[int, ...]) -> Boxes3D:
    boxes = np.array(rows, np.float64).reshape(-1, 7)
    return Boxes3D(boxes=boxes, labels=np.array(labels, np.int64), scores=np.ones(len(labels)))


def test_anchors_stand_in_the_middle_of_their_places_class_by_class() -> None:
    assert len(GRID) == 3 * 2 * 40 * 30
    every = GRID.boxes(np.arange(len(GRID))).reshape(3, 2, 40, 30, 7)
    assert every[..., 0] == pytest.approx(np.broadcast_to(0.32 + 0.64 * np.arange(30), (3, 2, 40, 30)))
    assert every[..., 1] == pytest.approx(np.broadcast_to((0.64 * (np.arange(40) - 19.5))[:, None], (3, 2, 40, 30)))
    for label, known in enumerate(CLASSES):
        assert (every[label, ..., 2:6] == (known.z, *known.size)).all()
    assert (every[:, 0, ..., 6] == 0).all()
    assert (every[:, 1, ..., 6] == math.pi / 2).all()
    assert GRID.number(2, 1, 7, 11) == np.ravel_multi_index((2, 1, 7, 11), (3, 2, 40, 30))


def test_the_papers_anchors() -> None:
    """The map of 248 x 216 places, 321,408 anchors; the class's middle is half its height above the ground."""
    grid = AnchorGrid.of(CLASSES, (496, 432), 0.16)
    assert (grid.rows, grid.columns, len(grid)) == (248, 216, 321_408)
    assert (grid.x[0], grid.x[-1], grid.y[0], grid.y[-1]) == pytest.approx((0.16, 68.96, -39.52, 39.52))
    assert grid.boxes(np.array([0]))[0] == pytest.approx([0.16, -39.52, -0.95, 3.9, 1.6, 1.56, 0])


def test_a_head_of_anchors_has_as_many_outputs_as_are_split() -> None:
    head = HR_SMALL.supernet(len(CLASSES), head="anchors").head
    assert head is not None
    outputs = torch.arange(head.channels).view(1, -1, 1, 1).float()
    logits, residuals, directions = split_outputs(outputs, len(CLASSES))
    assert [part.shape[1:3] for part in (logits, residuals, directions)] == [(6, 3), (6, 7), (6, 2)]
    # Scores first, of all anchors, then boxes, then directions; an anchor's numbers stand together.
    assert logits.flatten().tolist() == list(range(18))
    assert residuals[0, 1, :, 0, 0].tolist() == list(range(25, 32))
    assert directions[0, 5, :, 0, 0].tolist() == [70, 71]


def test_decoding_undoes_encoding() -> None:
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 500, GRID, CLASSES).boxes
    boxes[:4, 6] = (-math.pi, math.pi, math.pi / 4, -3 * math.pi / 4)
    anchors = GRID.boxes(rng.integers(0, len(GRID), len(boxes)))
    residuals, directions = encoded(boxes, anchors)
    assert np.abs(residuals[:, 6]).max() <= math.pi / 2
    back = decoded(*map(torch.from_numpy, (residuals, directions, anchors))).numpy()
    assert back[:, :6] == pytest.approx(boxes[:, :6], abs=1e-9)
    assert np.abs(np.exp(1j * back[:, 6]) - np.exp(1j * boxes[:, 6])).max() < 1e-9
    assert np.abs(back[:, 6]).max() <= math.pi

    single = decoded(
        torch.from_numpy(residuals).float(), torch.from_numpy(directions), torch.from_numpy(anchors).float()
    )
    assert np.abs(single.numpy()[:, :6] - boxes[:, :6]).max() < 1e-5


def test_the_coder_is_the_papers() -> None:
    """By hand: a Car anchor and a box 1 m ahead, 2 m left, 0.5 m up, of other sizes, turned by 0.3."""
    anchor = np.array([[10.0, 0.0, -0.95, 3.9, 1.6, 1.56, 0.0]])
    residuals, directions = encoded(np.array([[11.0, 2.0, -0.45, 4.2, 1.7, 1.5, 0.3]]), anchor)
    diagonal = math.sqrt(3.9**2 + 1.6**2)
    by_hand = [
        1 / diagonal,
        2 / diagonal,
        0.5 / 1.56,
        math.log(4.2 / 3.9),
        math.log(1.7 / 1.6),
        math.log(1.5 / 1.56),
        0.3,
    ]
    assert residuals[0] == pytest.approx(by_hand)
    # Along x is in the middle between the limits at -135 and 45 degrees, so that traffic has one direction each way.
    ways = encoded(np.array([[11.0, 2, 0, 4, 2, 1, yaw] for yaw in (0.0, 0.7, -2.3, 0.8, 3.0, -2.4)]), anchor)[1]
    assert directions.tolist() == [1]
    assert ways.tolist() == [1, 1, 1, 0, 0, 0]


def test_sizes_of_an_untrained_network_stay_finite() -> None:
    anchors = torch.from_numpy(GRID.boxes(np.arange(3)))
    wild = torch.tensor([1e4, -1e4, 1.0]).double()[:, None].expand(3, 7)
    boxes = decoded(wild, torch.tensor([0, 1, 0]), anchors)
    assert bool(boxes.isfinite().all())
    assert boxes[0, 3:6].tolist() == pytest.approx((math.e**4 * anchors[0, 3:6]).tolist())
    assert boxes[2, 3:6].tolist() == pytest.approx((math.e * anchors[2, 3:6]).tolist())


@pytest.mark.parametrize(("overlap", "expected"), [(0.7, (0.6, 0.45)), (0.5, (0.5, 0.35)), (0.25, (0.375, 0.225))])
def test_thresholds_follow_from_the_classes_overlap(overlap: float, expected: tuple[float, float]) -> None:
    assert thresholds(overlap) == pytest.approx(expected)


def axis_overlap(box: np.ndarray, anchor: np.ndarray) -> float:
    """Return the intersection over union of two boxes turned to the axes they are nearest to."""
    sides = []
    for x, y, _, length, width, _, yaw in (box.tolist(), anchor.tolist()):
        quarter = round(yaw / (math.pi / 2)) % 2
        along_x, along_y = (width, length) if quarter else (length, width)
        sides.append((x - along_x / 2, x + along_x / 2, y - along_y / 2, y + along_y / 2))
    (a, b, c, d), (e, f, g, h) = sides
    shared = max(0.0, min(b, f) - max(a, e)) * max(0.0, min(d, h) - max(c, g))
    return shared / ((b - a) * (d - c) + (f - e) * (h - g) - shared)


def by_double_loop(grid: AnchorGrid, boxes: Boxes3D) -> dict[int, tuple[int, int]]:
    """Return the anchors that are not background: (class or IGNORED_ANCHOR, box or -1) by their numbers."""
    every = grid.boxes(np.arange(len(grid)))
    places = grid.rows * grid.columns
    overlaps: dict[tuple[int, int], float] = {}
    for owner, (box, label) in enumerate(zip(boxes.boxes, boxes.labels, strict=True)):
        for number in range(2 * label * places, 2 * (label + 1) * places):
            if abs(every[number, 0] - box[0]) < 12 and abs(every[number, 1] - box[1]) < 12:
                overlaps[number, owner] = axis_overlap(box, every[number])
    found: dict[int, tuple[int, int]] = {}
    for number in {number for number, _ in overlaps}:
        owners = [owner for owner in range(len(boxes)) if (number, owner) in overlaps]
        best = max(owners, key=lambda owner: overlaps[number, owner])
        label = int(boxes.labels[best])
        upper, lower = {0.7: (0.6, 0.45), 0.5: (0.5, 0.35)}[grid.classes[label].overlap]
        if overlaps[number, best] >= upper:
            found[number] = label, best
        elif overlaps[number, best] >= lower:
            found[number] = IGNORED_ANCHOR, -1
    peaks = {
        owner: max((value for (_, other), value in overlaps.items() if other == owner), default=0.0)
        for owner in range(len(boxes))
    }
    taken: set[int] = set()
    for owner in sorted(peaks, key=lambda owner: -peaks[owner]):
        x, y = boxes.boxes[owner, :2]
        if not (0 <= x < grid.columns * grid.step and abs(y) < grid.rows * grid.step / 2):
            continue
        own = [number for number, other in overlaps if other == owner and number not in taken]
        number = max(own, key=lambda number: (overlaps[number, owner], -number))
        taken.add(number)
        found[number] = int(boxes.labels[owner]), owner
    return found


@pytest.mark.parametrize("seed", range(6))
def test_the_assignment_is_that_of_a_double_loop(seed: int) -> None:
    boxes = random_boxes(np.random.default_rng(seed), 12, GRID, CLASSES, spread=1.15)
    targets = assigned(GRID, boxes)
    expected = by_double_loop(GRID, boxes)
    assert targets.shape == (len(expected), FIELDS)
    assert targets.dtype == np.float32
    rows = {int(row[0]): row for row in targets}
    assert rows.keys() == expected.keys()
    for number, (label, owner) in expected.items():
        row = rows[number]
        assert row[1] == label
        if label == IGNORED_ANCHOR:
            assert (row[2:] == 0).all()
        else:
            residuals, directions = encoded(boxes.boxes[owner : owner + 1], GRID.boxes(np.array([number])))
            assert row[2:9] == pytest.approx(residuals[0], abs=1e-6)
            assert row[9] == directions[0]
    kinds = [label for label, _ in expected.values()]
    assert IGNORED_ANCHOR in kinds, "a scene that says nothing of the ignored"
    assert max(kinds) == 2


def test_every_box_of_the_map_has_an_anchor() -> None:
    """Also small and slanted ones, boxes in each other's place, and ones in the corners; none outside has."""
    boxes = boxes_of(
        (5.0, 0.0, -1, 0.4, 0.3, 1.7, 0.7),
        (5.0, 0.0, -1, 0.4, 0.3, 1.7, 0.7),
        (5.1, 0.0, -1, 0.4, 0.3, 1.7, 0.7),
        (0.0, -12.799, -1, 0.8, 0.6, 1.7, 1.5),
        (19.199, 12.799, -1, 3.9, 1.6, 1.5, 0.0),
        (19.3, 2.0, -1, 0.3, 0.3, 1.7, 0.0),
        labels=(1, 1, 1, 2, 0, 1),
    )
    targets = assigned(GRID, boxes)
    stand = targets[targets[:, 1] >= 0]
    anchors = GRID.boxes(stand[:, 0].astype(np.int64))
    back = decoded(*map(torch.from_numpy, (stand[:, 2:9], stand[:, 9].astype(np.int64), anchors))).numpy()
    for place, box in enumerate(boxes.boxes):
        is_own = np.abs(back[:, :6] - box[:6]).max(1) < 1e-4
        assert is_own.any() == (place != 5), place
    assert len(np.unique(targets[:, 0])) == len(targets)


def test_of_boxes_that_want_one_anchor_the_one_of_more_overlap_has_it() -> None:
    """Two walkers: the second lies on the anchor; the first has the next best, the turned one of the same place."""
    x, y = GRID.x[8], GRID.y[20]
    boxes = boxes_of((x + 0.2, y, -0.9, 0.8, 0.6, 1.73, 0.0), (x, y, -0.9, 0.8, 0.6, 1.73, 0.0), labels=(1, 1))
    targets = {int(row[0]): row for row in assigned(GRID, boxes)}
    ahead, turned = (targets[GRID.number(1, turn, 20, 8)] for turn in (0, 1))
    assert (ahead[1], turned[1]) == (1, 1)
    assert [ahead[2], turned[2]] == pytest.approx([0, 0.2 / math.hypot(0.8, 0.6)], abs=1e-6)


def test_a_box_that_overlaps_no_anchor_has_the_one_of_its_place() -> None:
    small = BoxClass(name="Cone", size=(0.3, 0.2, 0.5), z=-1.5, overlap=0.5)
    grid = AnchorGrid.of((small,), (10, 10), 1.0)
    targets = assigned(grid, boxes_of((2.5, -3.5, -1.5, 0.3, 0.2, 0.5, 1.4), labels=(0,)))
    assert targets[:, :2].tolist() == [[grid.number(0, 1, 0, 1), 0]]


def test_the_ignored_band_is_not_background() -> None:
    """A Car along x, exactly on an anchor: neighbours one place off along x overlap by (3.9 - .64) / (3.9 + .64)."""
    column, row = 12, 20
    boxes = boxes_of((GRID.x[column], GRID.y[row], -0.95, 3.9, 1.6, 1.56, 0.0), labels=(0,))
    targets = {int(row[0]): row[1] for row in assigned(GRID, boxes)}
    of = {off: targets.get(GRID.number(0, 0, row, column + off)) for off in (0, 1, 2, 3)}
    assert [(3.9 - 0.64 * off) / (3.9 + 0.64 * off) for off in (1, 2)] == pytest.approx([0.718, 0.506], abs=1e-3)
    assert of == {0: 0, 1: 0, 2: IGNORED_ANCHOR, 3: None}
    assert not any(number >= 2 * GRID.rows * GRID.columns for number in targets), "anchors of another class"


def test_no_boxes_no_targets() -> None:
    assert assigned(GRID, boxes_of(labels=())).shape == (0, FIELDS)


def test_perfect_outputs_are_read_off_as_the_boxes() -> None:
    boxes = random_boxes(np.random.default_rng(3), 14, GRID, CLASSES, apart=5.0)
    found = found_boxes(perfect_outputs(GRID, boxes), GRID)
    assert len(found) == len(boxes)
    for box, label in zip(boxes.boxes, boxes.labels, strict=True):
        place = np.abs(found.boxes[:, :2] - box[:2]).sum(1).argmin()
        assert found.boxes[place, :6] == pytest.approx(box[:6], abs=1e-4)
        assert math.cos(found.boxes[place, 6] - box[6]) > 1 - 1e-6
        assert found.labels[place] == label
    assert (found.boxes.dtype, found.labels.dtype, found.scores.dtype) == (np.float64, np.int64, np.float64)


def logits_only(scores: dict[tuple[int, int, int, int, int], float]) -> Tensor:
    """Return outputs whose boxes are the anchors. scores: logits by class of the anchor, yaw, class, row, column."""
    outputs = torch.zeros(6 * (3 + 7 + 2), GRID.rows, GRID.columns)
    outputs[:18] = -9.0
    for (own, turn, label, row, column), value in scores.items():
        outputs[(2 * own + turn) * 3 + label, row, column] = value
    return outputs


def test_the_likeliest_of_doubles_stays_and_classes_do_not_suppress_each_other() -> None:
    outputs = logits_only(
        {
            (0, 0, 0, 10, 10): 1.0,
            (0, 0, 0, 10, 11): 2.0,
            (0, 1, 0, 10, 10): 0.5,
            (1, 0, 1, 10, 10): -2.1,
            (2, 0, 2, 10, 10): 2.5,
        }
    )
    found = found_boxes(outputs, GRID)
    assert found.labels.tolist() == [2, 0, 1]
    assert found.scores == pytest.approx([1 / (1 + math.exp(-value)) for value in (2.5, 2.0, -2.1)])
    assert found.boxes[1, :2] == pytest.approx([GRID.x[11], GRID.y[10]])
    # Below a score of 0.1 there is nothing.
    assert len(found_boxes(logits_only({(2, 0, 2, 30, 5): -2.2}), GRID)) == 0
    with pytest.raises(
        InputError, match=r"outputs are of shape \(1, 72, .*; \(72, .* is needed\. Give those of one cloud"
    ):
        found_boxes(outputs[None], GRID)


def test_at_most_a_hundred_boxes_are_found_and_they_are_the_likeliest() -> None:
    grid = AnchorGrid.of(CLASSES, (160, 160), 0.64)
    outputs = torch.zeros(72, grid.rows, grid.columns)
    outputs[:18] = -9.0
    scores = torch.linspace(0, 3, 400).view(20, 20)  # Pedestrians and Cyclists in turn, 5 m apart
    outputs[2 * 3 + 1, ::4, ::8], outputs[4 * 3 + 2, ::4, 4::8] = scores[:, ::2], scores[:, 1::2]
    found = found_boxes(outputs, grid)
    assert len(found) == 100
    assert (np.diff(found.scores) <= 0).all()
    assert np.bincount(found.labels).tolist() == [0, 50, 50]
    assert found.scores[-1] == pytest.approx(1 / (1 + math.exp(-3 * 300 / 399)), abs=1e-6)
