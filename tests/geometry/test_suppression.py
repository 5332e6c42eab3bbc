"""Suppression of doubles against the plain greedy rule on shapely's overlaps."""

import numpy as np
import pytest
import torch

from devices import DEVICES
from geometry.rectangles import expected
from hrnas.geometry.suppression import suppressed


def clustered(rng: np.random.Generator, objects: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes and scores as a detector gives them: several around every object, the nearer the better."""
    which = rng.integers(objects, size=count)
    truth = np.column_stack([rng.uniform(0, 30, objects), rng.uniform(-15, 15, objects), rng.uniform(-3, 3, objects)])
    errors = rng.normal(0, (0.6, 0.3, 0.1), (count, 3))
    x, y, yaw = (truth[which] + errors).T
    sizes = (3.9, 1.6, 1.56) * rng.normal(1, 0.05, (count, 3))
    boxes = np.column_stack([x, y, np.full(count, -0.9), sizes, yaw])
    return boxes, np.exp(-np.abs(errors).sum(axis=1)) * rng.uniform(0.8, 1, count)


def greedy(shares: np.ndarray, scores: np.ndarray, overlap: float) -> list[int]:
    kept: list[int] = []
    for index in sorted(range(len(scores)), key=lambda index: (-scores[index], index)):
        if not any(shares[better, index] > overlap for better in kept):
            kept.append(index)
    return kept


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("overlap", [0.01, 0.3, 0.7])
def test_what_stays_is_what_the_greedy_rule_keeps(seed: int, overlap: float, device: str) -> None:
    boxes, scores = clustered(np.random.default_rng(seed), 12, 200)  # several blocks
    scores = scores.round(2)  # ties
    wanted = greedy(expected(boxes, boxes)[1], scores, overlap)
    assert 5 < len(wanted) < 190
    given = torch.from_numpy(boxes).to(device), torch.from_numpy(scores).to(device)
    found = suppressed(*given, overlap, 200)
    assert found.dtype == torch.int64
    assert found.tolist() == wanted
    assert suppressed(*given, overlap, 4).tolist() == wanted[:4]
    assert suppressed(given[0].float(), given[1].float(), overlap, 200).tolist() == wanted


def test_more_that_stay_than_a_block_holds() -> None:
    boxes = torch.zeros(300, 7)
    boxes[:, 0] = torch.arange(300) % 150 * 5  # each place twice
    boxes[:, 3:6] = 1
    scores = torch.linspace(1, 0, 300)
    assert suppressed(boxes, scores, 0.5, 300).tolist() == list(range(150))
    assert suppressed(boxes, scores, 0.5, 100).tolist() == list(range(100))


def test_an_overlap_of_just_the_limit_stays() -> None:
    boxes = torch.tensor([[0.0, 0, 0, 4, 2, 1, 0], [0, 0, 5, 4, 2, 1, 0], [2, 0, 0, 4, 2, 1, 0]])
    scores = torch.tensor([0.5, 0.7, 0.6])
    assert suppressed(boxes, scores, 1.0, 3).tolist() == [1, 2, 0]
    assert suppressed(boxes, scores, 0.99, 3).tolist() == [1, 2]  # height does not count
    assert suppressed(boxes, scores, 0.3, 3).tolist() == [1]


def test_none_of_none() -> None:
    found = suppressed(torch.zeros(0, 7), torch.zeros(0), 0.5, 5)
    assert found.shape == (0,)
    assert found.dtype == torch.int64
    assert suppressed(torch.ones(2, 7), torch.ones(2), 0.5, 0).tolist() == []
