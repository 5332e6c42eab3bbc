"""The classification task: its loss against torch's, top1 and top5 by hand, decoding, pictures and files."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hrnas.data.description import DataDescription
from hrnas.data.pictures import default_palette
from hrnas.data.transforms import AugmentOptions
from hrnas.errors import InputError
from hrnas.structures import Sample
from hrnas.tasks import make_task, settled
from hrnas.tasks.task import EvaluationOptions, Score, TargetOptions, Task, flip_tested

NAMES = ("ape", "bee", "cow", "dog", "elk", "fox", "gnu")
DESCRIPTION = DataDescription(task="classification", names=NAMES, colors=default_palette(7), folders=NAMES)
SET = SimpleNamespace(names=NAMES, colors=default_palette(7))


def task(**targets: float) -> Task:
    return make_task(DESCRIPTION, TargetOptions(**targets))


def score() -> Score:
    return task().make_score(SET, (8, 8))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_torchs_cross_entropy_however_the_batch_is_divided(smoothing: float) -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor([0, 6, 3, 3, 1])
    ours = task(label_smoothing=smoothing)
    parts = [ours.loss_terms(logits[part], targets[part])["cross_entropy"] for part in (slice(0, 2), slice(2, 5))]
    assert int(ours.weight(targets)) == 5
    expected = F.cross_entropy(logits, targets, label_smoothing=smoothing)
    torch.testing.assert_close(sum(parts) / 5, expected)


def test_the_papers_smoothing_is_the_default() -> None:
    assert make_task(DESCRIPTION).targets.label_smoothing == 0.1


def test_top1_and_top5_by_hand() -> None:
    counted = score()
    logits = torch.zeros(4, 7)
    logits[0, 2] = 1.0  # right
    logits[1] = torch.tensor([6.0, 5, 4, 3, 2, 1, 0])  # its class is fifth
    logits[2] = torch.tensor([6.0, 5, 4, 3, 2, 1, 0])  # its class is sixth
    logits[3, 2] = 1.0  # right
    counted.update(logits[:3], [2, 4, 5])
    counted.update(logits[3:], [2])
    result = counted.result()
    assert (result["top1"], result["top5"]) == (2 / 4, 3 / 4)
    rows = {row["name"]: row for row in result["parts"]["rows"]}
    assert (rows["cow"]["value"], rows["cow"]["share"]) == (1.0, 0.5)
    assert (rows["elk"]["value"], rows["elk"]["share"]) == (0.0, 0.25)
    assert math.isnan(rows["ape"]["value"])


def test_parts_of_a_set_add_up() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, truths = torch.randn(30, 7, generator=generator), torch.randint(0, 7, (30,), generator=generator).tolist()
    whole, first, second = score(), score(), score()
    whole.update(logits, truths)
    first.update(logits[:11], truths[:11])
    second.update(logits[11:], truths[11:])
    for ours, theirs in zip(first.sums, second.sums, strict=True):
        ours.add_(theirs)
    assert first.result()["top1"] == whole.result()["top1"]
    assert first.result()["top5"] == whole.result()["top5"]


def test_a_set_of_few_classes_has_no_top5() -> None:
    few = make_task(DataDescription(task="classification", names=NAMES[:3], colors=default_palette(3)))
    result = few.make_score(SimpleNamespace(names=NAMES[:3], colors=default_palette(3)), (8, 8)).result()
    assert "top5" not in result
    assert next(iter(result)) == few.metric == "top1"


def test_the_prediction_is_a_probability_and_is_written(tmp_path: Path) -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    sample = Sample(content=image, truth=1, name="bee/bee0")
    prediction = task().decode(torch.log(torch.tensor([0.1, 0.5, 0.2, 0.1, 0.05, 0.03, 0.02])), sample, (8, 8))
    assert prediction.tolist() == pytest.approx([0.1, 0.5, 0.2, 0.1, 0.05, 0.03, 0.02])
    file = task().save(tmp_path, "bee_bee0", [prediction], [sample])
    written = json.loads(file.read_text())
    assert written["image"] == "bee/bee0"
    assert [entry["name"] for entry in written["classes"]] == ["bee", "cow", "ape", "dog", "elk"]
    picture = task().draw([prediction], [sample], (32, 32))
    assert picture.crop((0, 0, 30, 20)).getextrema() == ((0, 0), (0, 0), (0, 0))
    assert picture.size[0] > 30


def test_boxes_are_refused() -> None:
    with pytest.raises(InputError, match="a classification looks at whole images"):
        task().unlabelled(Path("a.png"), [(0, 0, 1, 1)])


def test_the_training_view_without_augmentation_is_the_evaluation_view() -> None:
    ours = task()
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    sample = Sample(content=image, truth=4, name="x")
    options = settled(AugmentOptions.none(), ours.own, "classification", "augment")
    view, target = ours.training_view(sample, (16, 16), options, np.random.default_rng(1))
    assert np.array_equal(view, ours.evaluation_view(sample, (16, 16)))
    assert (target.dtype, int(target)) == (np.int64, 4)


def test_the_flip_test_averages_an_image_and_its_mirror_image() -> None:
    images = torch.randn(2, 3, 4, 4)
    weights = torch.randn(3 * 4 * 4, 7)

    def network(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ weights

    plain, flipped = (
        flip_tested(make_task(DESCRIPTION, None, EvaluationOptions(flip_test=flag)), network, images)
        for flag in (None, True)
    )
    assert torch.equal(plain, network(images))
    torch.testing.assert_close(flipped, (network(images) + network(images.flip(3))) / 2)
