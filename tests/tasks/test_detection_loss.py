"""The loss over anchors against a plain computation on all of them; what it does not depend on; gradients."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detections import perfect_outputs, random_boxes
from hrnas.data.kitti_classes import CLASSES
from hrnas.tasks.anchors import AnchorGrid, assigned
from hrnas.tasks.detection_loss import detection_losses, num_found

GRID = AnchorGrid.of(CLASSES, (60, 80), 0.32)
K = len(CLASSES)


def targets_of(counts: tuple[int, ...]) -> Tensor:
    """Return targets (B, R, 10) of scenes with so many boxes, filled up as the loader does."""
    scenes = [
        torch.from_numpy(assigned(GRID, random_boxes(np.random.default_rng(seed), count, GRID, CLASSES)))
        for seed, count in enumerate(counts)
    ]
    return torch.nn.utils.rnn.pad_sequence(scenes, batch_first=True, padding_value=-1)


def random_outputs(batch: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 6 * (K + 9), GRID.rows, GRID.columns, generator=generator)


def textbook(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return the terms from the published formulas, anchor by anchor in float64."""
    batch = len(outputs)
    flat = outputs.double().flatten(2)  # (B, channels, H0 * W0)
    scores, boxes, ways = (
        part.reshape(batch, 6, size, -1).transpose(2, 3).reshape(batch, -1, size)
        for part, size in ((flat[:, : 6 * K], K), (flat[:, 6 * K : 6 * (K + 7)], 7), (flat[:, 6 * (K + 7) :], 2))
    )  # (B, anchors, size)
    terms = dict.fromkeys(("classes", "boxes", "directions"), torch.tensor(0.0).double())
    for scene in range(batch):
        goal = torch.zeros(len(GRID), K).double()
        counts = torch.ones(len(GRID)).double()
        for row in targets[scene].double():
            number, label = int(row[0]), int(row[1])
            if number < 0:
                continue
            if label < 0:
                counts[number] = 0
                continue
            goal[number, label] = 1
            difference = boxes[scene, number] - row[2:9]
            difference = torch.cat([difference[:6], difference[6:].sin()]).abs()
            beta = 1 / 9
            smooth = torch.where(difference < beta, difference**2 / (2 * beta), difference - beta / 2)
            terms["boxes"] = terms["boxes"] + 2 * smooth.sum()
            terms["directions"] = terms["directions"] - 0.2 * ways[scene, number].log_softmax(0)[int(row[9])]
        p = scores[scene].sigmoid()
        of_goal = torch.where(goal > 0, p, 1 - p)
        focal = -torch.where(goal > 0, 0.25, 0.75) * (1 - of_goal) ** 2 * of_goal.log()
        terms["classes"] = terms["classes"] + (focal * counts[:, None]).sum()
    return terms


def test_the_loss_is_that_of_the_formulas_and_so_are_its_gradients() -> None:
    outputs, targets = random_outputs(3).requires_grad_(), targets_of((7, 0, 4))
    assert int((targets[..., 0] < 0).sum()) > 0, "no row that is filled up"
    assert int((targets[..., 0] >= 0).sum()) > int(num_found(targets)), "no ignored anchor"
    found, expected = detection_losses(outputs, targets, K), textbook(outputs, targets)
    for name, term in expected.items():
        assert found[name].item() == pytest.approx(term.item(), rel=1e-5), name
        (gradient,) = torch.autograd.grad(found[name], outputs, retain_graph=True)
        (wanted,) = torch.autograd.grad(term, outputs, retain_graph=True)
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)
        assert bool(gradient.any()), name


def test_every_output_of_a_box_gets_a_gradient_and_those_of_ignored_anchors_none() -> None:
    outputs, targets = random_outputs(1).requires_grad_(), targets_of((9,))
    sum(detection_losses(outputs, targets, K).values(), torch.tensor(0.0)).backward()
    assert outputs.grad is not None
    assert bool(outputs.grad.isfinite().all())
    flat = outputs.grad[0].flatten(1)
    for number, label in targets[0, :, :2].long().tolist():
        kind, place = divmod(number, GRID.rows * GRID.columns)
        scores = flat[kind * K : (kind + 1) * K, place]
        others = torch.cat([flat[6 * K + 7 * kind :][:7, place], flat[6 * (K + 7) + 2 * kind :][:2, place]])
        assert bool(scores.all()) == bool(others.all()) == (label >= 0)
        assert bool(scores.any()) == bool(others.any()) == (label >= 0)


def test_the_weight_is_the_number_of_anchors_that_stand_for_a_box() -> None:
    targets = targets_of((5, 3))
    assert num_found(targets) == sum(label >= 0 for scene in targets.tolist() for _, label, *_ in scene)
    assert num_found(targets) >= 8
    assert num_found(torch.full((2, 4, 10), -1.0)) == 0


def test_perfect_outputs_lose_almost_nothing() -> None:
    boxes = random_boxes(np.random.default_rng(2), 9, GRID, CLASSES, apart=4.0)
    targets = torch.from_numpy(assigned(GRID, boxes))[None]
    terms = detection_losses(perfect_outputs(GRID, boxes)[None], targets, K)
    weight = num_found(targets)
    assert terms["boxes"] == 0
    assert terms["classes"] / weight < 1e-3
    assert terms["directions"] / weight < 1e-3


def test_half_a_turn_costs_the_direction_alone() -> None:
    boxes = random_boxes(np.random.default_rng(2), 9, GRID, CLASSES, apart=4.0)
    targets = torch.from_numpy(assigned(GRID, boxes))[None]
    outputs = perfect_outputs(GRID, boxes)[None]
    right = detection_losses(outputs, targets, K)
    outputs[:, 6 * K : 6 * (K + 7)].unflatten(1, (6, 7))[:, :, 6] += math.pi
    outputs[:, 6 * (K + 7) :] = outputs[:, 6 * (K + 7) :].unflatten(1, (6, 2)).flip(2).flatten(1, 2)
    turned = detection_losses(outputs, targets, K)
    assert turned["boxes"] < 1e-4
    assert turned["classes"] == right["classes"]
    assert turned["directions"] / num_found(targets) == pytest.approx(0.2 * 9.0, rel=1e-3)


def test_batches_add_up_and_the_memory_format_does_not_matter() -> None:
    outputs, targets = random_outputs(2), targets_of((6, 2))
    whole = detection_losses(outputs, targets, K)
    parts = [detection_losses(outputs[scene : scene + 1], targets[scene : scene + 1], K) for scene in range(2)]
    last = detection_losses(outputs.to(memory_format=torch.channels_last), targets, K)
    for name, term in whole.items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], term)
        torch.testing.assert_close(last[name], term)


def test_a_batch_without_boxes_learns_that_there_are_none() -> None:
    outputs = random_outputs(2).requires_grad_()
    terms = detection_losses(outputs, torch.zeros(2, 0, 10), K)
    assert (terms["boxes"].item(), terms["directions"].item()) == (0, 0)
    p = outputs.detach()[:, : 6 * K].double().sigmoid()
    expected = -0.75 * (p**2 * (1 - p).log()).sum()
    assert terms["classes"].item() == pytest.approx(expected.item(), rel=1e-5)
    sum(terms.values(), torch.tensor(0.0)).backward()
    assert outputs.grad is not None
    assert bool((outputs.grad[:, : 6 * K] > 0).all())
    assert not bool(outputs.grad[:, 6 * K :].any())


def test_outputs_of_half_precision_are_counted_in_full() -> None:
    outputs, targets = random_outputs(1).bfloat16(), targets_of((6,))
    terms = detection_losses(outputs, targets, K)
    assert all(term.dtype == torch.float32 for term in terms.values())
    for name, term in textbook(outputs, targets).items():
        assert terms[name].item() == pytest.approx(term.item(), rel=1e-4)


def test_an_output_far_off_has_a_finite_loss() -> None:
    outputs = (1e4 * random_outputs(1)).requires_grad_()
    terms = detection_losses(outputs, targets_of((6,)), K)
    total = sum(terms.values(), torch.tensor(0.0))
    total.backward()
    assert bool(total.isfinite())
    assert outputs.grad is not None
    assert bool(outputs.grad.isfinite().all())
    p = F.softplus(outputs.detach()[:, : 6 * K])
    assert terms["classes"].item() < p.sum()
