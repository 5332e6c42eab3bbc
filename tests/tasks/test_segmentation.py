"""The segmentation task: its loss against torch's, its score, decoding and pictures; names of tasks."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hrnas.data.description import DataDescription
from hrnas.errors import InputError
from hrnas.structures import IGNORED, Sample
from hrnas.tasks import TASKS, make_task
from hrnas.tasks.task import EvaluationOptions, Score, TargetOptions, Task

NAMES = ("road", "car", "sky")
COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
DESCRIPTION = DataDescription(task="segmentation", names=NAMES, colors=COLORS)


def task() -> Task:
    return make_task(DESCRIPTION)


def blank(height: int, width: int) -> Sample:
    return Sample(content=np.zeros((height, width, 3), np.uint8), truth=None, name="blank")


def make_score() -> Score:
    return task().make_score(SimpleNamespace(names=NAMES, colors=COLORS), (8, 8))


def logits_and_targets(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 5, 4, generator=generator, requires_grad=True)
    targets = torch.randint(0, 3, (2, 11, 9), generator=generator, dtype=torch.uint8)
    targets[:, :2] = IGNORED
    return logits, targets


def test_the_loss_is_torchs_cross_entropy_on_upsampled_logits() -> None:
    logits, targets = logits_and_targets()
    (total,) = task().loss_terms(logits, targets).values()
    loss = total / task().weight(targets)
    upsampled = F.interpolate(logits, size=(11, 9), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(upsampled, targets.long(), ignore_index=IGNORED)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, wanted)
    assert bool(gradient.any())


def test_a_batch_that_is_all_void_gives_zero_with_zero_gradients() -> None:
    logits, targets = logits_and_targets()
    void = torch.full_like(targets, IGNORED)
    (loss,) = task().loss_terms(logits, void).values()
    assert int(task().weight(void)) == 0
    assert float(loss.detach()) == 0
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.equal(gradient, torch.zeros_like(logits))


@pytest.mark.parametrize("size", [(11, 9), (5, 4), (3, 20)])
def test_decode_returns_the_size_asked_for(size: tuple[int, int]) -> None:
    logits = logits_and_targets()[0][0].detach()
    mask = task().decode(logits, blank(*size), (8, 8))
    assert mask.shape == size
    assert mask.dtype == np.uint8
    upsampled = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
    assert np.array_equal(mask, upsampled.argmax(0).numpy())


def test_decode_at_the_logits_own_size_takes_the_highest() -> None:
    logits = torch.zeros(3, 2, 2)
    logits[1, 0, 0] = logits[2, 0, 1] = logits[0, 1, 0] = logits[2, 1, 1] = 1
    assert task().decode(logits, blank(2, 2), (2, 2)).tolist() == [[1, 2], [0, 2]]


def test_the_score_of_a_perfect_prediction_is_one_over_images_of_different_sizes() -> None:
    score = make_score()
    truths = [np.array([[0, 1], [2, IGNORED]], np.uint8), np.zeros((4, 6), np.uint8)]
    logits = torch.zeros(2, 3, 2, 2)
    for row, column, label in ((0, 0, 0), (0, 1, 1), (1, 0, 2)):
        logits[0, label, row, column] = 1
    logits[1, 0] = 1
    score.update(logits, truths)
    result = score.result()
    assert result["miou"] == 1.0
    assert result["pixel_accuracy"] == 1.0
    assert [entry["name"] for entry in result["parts"]["rows"]] == list(NAMES)
    assert [entry["color"] for entry in result["parts"]["rows"]] == [list(color) for color in COLORS]
    assert [entry["value"] for entry in result["parts"]["rows"]] == [1, 1, 1]
    assert [entry["share"] for entry in result["parts"]["rows"]] == pytest.approx([25 / 27, 1 / 27, 1 / 27])
    json.dumps(result)


def test_the_score_is_over_the_set_and_not_the_mean_of_images() -> None:
    score = make_score()
    first, second = torch.zeros(1, 3, 1, 4), torch.zeros(1, 3, 1, 4)
    first[:, 0] = second[:, 0] = 1  # all road
    score.update(first, [np.array([[0, 0, 0, 0]], np.uint8)])
    score.update(second, [np.array([[0, 1, 1, 1]], np.uint8)])
    result = score.result()
    assert result["miou"] == pytest.approx((5 / 8 + 0) / 2)
    assert math.isnan(result["parts"]["rows"][2]["value"])
    assert task().metric in result


def test_draw_lays_panels_side_by_side() -> None:
    image = np.full((6, 10, 3), 100, np.uint8)
    prediction = np.zeros((6, 10), np.uint8)
    truth = Sample(content=image, truth=np.full((6, 10), 1, np.uint8), name="a")
    with_truth, without = (task().draw([prediction], [known], (6, 10)) for known in (truth, replace(truth, truth=None)))
    assert (with_truth.size, without.size) == ((10 * 3 + 2 * 4, 6), (10 * 2 + 4, 6))
    assert with_truth.mode == "RGB"
    assert with_truth.getpixel((0, 0)) == (100, 100, 100)
    assert with_truth.getpixel((14, 3)) == COLORS[1], "the truth"
    red, green, blue = with_truth.getpixel((28 + 5, 3))
    assert red > 100 > green == blue, "the prediction over the image"
    assert without.getpixel((14 + 5, 3)) == (red, green, blue)
    assert with_truth.getpixel((11, 0)) == (255, 255, 255), "the gap"


def test_outputs_are_the_classes() -> None:
    assert task().num_outputs == 3
    assert "segmentation" in TASKS


def test_an_option_of_another_task_is_refused() -> None:
    with pytest.raises(InputError, match=r"targets\.sigma is 2\.0, which means nothing to task segmentation\."):
        make_task(DESCRIPTION, TargetOptions(sigma=2.0))
    with pytest.raises(InputError, match=r"evaluation\.decoder is dark, which means nothing to task segmentation\."):
        make_task(DESCRIPTION, None, EvaluationOptions(decoder="dark"))


def test_boxes_are_refused() -> None:
    with pytest.raises(InputError, match="a segmentation labels whole images"):
        task().unlabelled(Path("a.png"), [(0, 0, 1, 1)])
