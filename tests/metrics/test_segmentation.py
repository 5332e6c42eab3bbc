"""The confusion matrix: hand-worked, perfect, ignored, absent classes, and against a plain computation."""

import math

import pytest
import torch
from torch import Tensor

from hrnas.metrics.segmentation import ConfusionMatrix
from hrnas.structures import IGNORED


def matrix_of(num_classes: int, predicted: list[list[int]], truth: list[list[int]]) -> ConfusionMatrix:
    matrix = ConfusionMatrix(num_classes)
    matrix.update(torch.tensor(predicted), torch.tensor(truth, dtype=torch.uint8))
    return matrix


def test_a_case_worked_by_hand() -> None:
    matrix = matrix_of(3, [[0, 0, 1], [1, 2, 2]], [[0, 1, 1], [1, 2, 0]])
    assert matrix.counts.tolist() == [[1, 0, 1], [1, 2, 0], [0, 0, 1]]
    assert matrix.iou().tolist() == pytest.approx([1 / 3, 2 / 3, 1 / 2])
    assert matrix.miou() == pytest.approx(0.5)
    assert matrix.pixel_accuracy() == pytest.approx(4 / 6)
    assert matrix.shares().tolist() == pytest.approx([2 / 6, 3 / 6, 1 / 6])


def test_a_perfect_prediction_scores_exactly_one() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = ConfusionMatrix(7)
    for _ in range(3):
        truth = torch.randint(0, 7, (13, 17), generator=generator, dtype=torch.uint8)
        predicted = truth.long()
        truth[:3, :5] = IGNORED
        matrix.update(predicted, truth)
    assert matrix.miou() == 1.0
    assert matrix.pixel_accuracy() == 1.0
    assert matrix.iou().tolist() == [1.0] * 7
    assert float(matrix.shares().sum()) == pytest.approx(1)


def test_ignored_pixels_count_nowhere() -> None:
    ignored = IGNORED
    matrix = matrix_of(2, [[0, 1, 0, 1]], [[ignored, ignored, 0, 1]])
    assert matrix.counts.tolist() == [[1, 0], [0, 1]]
    assert matrix.miou() == 1.0


def test_a_class_in_neither_is_left_out_of_the_mean() -> None:
    matrix = matrix_of(4, [[0, 0, 2]], [[0, 2, 2]])
    iou = matrix.iou().tolist()
    assert [math.isnan(value) for value in iou] == [False, True, False, True]
    assert matrix.miou() == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    matrix = matrix_of(3, [[0, 0, 2]], [[0, 0, 0]])
    assert matrix.iou()[2] == 0
    assert math.isnan(matrix.iou()[1])
    assert matrix.miou() == pytest.approx((2 / 3 + 0) / 2)


def test_a_class_that_is_never_predicted_counts_as_zero() -> None:
    matrix = matrix_of(2, [[0, 0]], [[0, 1]])
    assert matrix.iou().tolist() == [0.5, 0]


def test_an_empty_set_has_no_figures() -> None:
    for matrix in (ConfusionMatrix(2), matrix_of(2, [[0, 1]], [[IGNORED, IGNORED]])):
        assert math.isnan(matrix.miou())
        assert math.isnan(matrix.pixel_accuracy())
        assert matrix.shares().tolist() == [0, 0]


def plain_iou(predicted: Tensor, truth: Tensor, num_classes: int) -> list[float]:
    """Return intersection over union by sets of pixels."""
    pairs = [(p, t) for p, t in zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True) if t != 255]
    result = []
    for index in range(num_classes):
        predicted_here = {at for at, (p, _) in enumerate(pairs) if p == index}
        true_here = {at for at, (_, t) in enumerate(pairs) if t == index}
        union = predicted_here | true_here
        result.append(len(predicted_here & true_here) / len(union) if union else math.nan)
    return result


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_a_plain_computation(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix, all_predicted, all_truth = ConfusionMatrix(5), [], []
    for side in (6, 11):
        predicted = torch.randint(0, 4 + seed % 2, (side, 9), generator=generator)
        truth = torch.randint(0, 4, (side, 9), generator=generator, dtype=torch.uint8)
        truth[torch.rand(side, 9, generator=generator) < 0.2] = IGNORED
        matrix.update(predicted.to(torch.uint8) if seed % 3 else predicted, truth)
        all_predicted.append(predicted)
        all_truth.append(truth)
    predicted, truth = torch.cat(all_predicted), torch.cat(all_truth)
    expected = plain_iou(predicted, truth, 5)
    assert matrix.iou().tolist() == pytest.approx(expected, nan_ok=True)
    present = [value for value in expected if not math.isnan(value)]
    assert matrix.miou() == pytest.approx(sum(present) / len(present))
    counted = truth != IGNORED
    assert matrix.pixel_accuracy() == pytest.approx(float((predicted == truth)[counted].float().mean()))
