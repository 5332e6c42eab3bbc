"""PCK by hand-worked cases."""

import math

import numpy as np
import pytest

from hrnas.metrics.pck import ReferenceLength, count_pck

TORSO = ReferenceLength(words="torso", ends=(((0,), (3,)), ((1,), (2,))))
BOX = np.array([[0.0, 0.0, 40.0, 50.0], [0.0, 0.0, 60.0, 50.0], [0.0, 0.0, 9.0, 9.0]])


def truth() -> np.ndarray:
    """Three people of four joints: the first's torso is 5 long, the second's second choice 10, the third has none."""
    return np.array(
        [
            [[0, 0, 2], [9, 9, 2], [9, 9, 1], [3, 4, 2]],
            [[0, 0, 0], [0, 0, 2], [0, 10, 2], [5, 5, 2]],
            [[1, 1, 2], [0, 0, 0], [0, 0, 0], [0, 0, 0]],
        ],
        float,
    )


def test_a_joint_is_right_within_a_fifth_of_its_persons_length() -> None:
    found = truth()
    found[0, 0, 0] += 1.0  # exactly a fifth of 5
    found[0, 1, 1] += 1.001
    found[1, 1, 0] += 2.0
    found[1, 2] += [1.5, 1.5, 0]  # 2.12
    found[1, 0] += 100  # not labelled
    counts = count_pck(found, truth(), BOX, TORSO)
    assert counts.right.tolist() == [1, 1, 1, 2]
    assert counts.counted.tolist() == [1, 2, 2, 2]
    assert counts.left_out == 1
    assert counts.overall() == 5 / 7
    assert counts.by_joint() == [1.0, 0.5, 0.5, 1.0]


def test_the_length_between_middles_and_of_the_box() -> None:
    hips = ReferenceLength(words="", ends=(((0,), (1, 2)),))
    assert hips.measured(truth(), BOX).tolist() == pytest.approx([9 * math.sqrt(2), math.nan, math.nan], nan_ok=True)
    assert ReferenceLength(words="").measured(truth(), BOX).tolist() == [50, 60, 9]


def test_perfect_joints_score_one_and_no_joint_is_nan() -> None:
    counts = count_pck(truth(), truth(), BOX, TORSO)
    assert counts.overall() == 1.0
    nothing = truth()
    nothing[:, :, 2] = 0
    empty = count_pck(truth(), nothing, BOX, TORSO)
    assert math.isnan(empty.overall())
    assert all(map(math.isnan, empty.by_joint()))
    assert empty.left_out == 0
