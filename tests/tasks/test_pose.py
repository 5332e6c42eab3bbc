"""The pose task: its loss, its way back to the image, its score and what it writes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hrnas.data.coco_joints import COCO_SKELETON
from hrnas.data.coco_keypoints import UNIFORM_SIGMA, KeypointSet
from hrnas.data.person_views import image_to_input, moved
from hrnas.data.transforms import AugmentOptions
from hrnas.errors import InputError
from hrnas.structures import Person
from hrnas.tasks.heatmaps import targets_of
from hrnas.tasks.pose import Pose
from hrnas.tasks.pose_score import reference_length
from hrnas.tasks.task import settled
from people import NAMES, open_set, pose_task, skeleton

INPUT = (64, 48)


def heatmaps(person: Person, joints: np.ndarray) -> Tensor:
    """Return the maps (K, H', W') a perfect network gives for joints (K, 3) of the image."""
    points = moved(joints[:, :2].astype(float), image_to_input(person.box, INPUT))
    weighted = np.hstack([points, joints[:, 2:] > 0]).astype(np.float32)
    return targets_of(torch.from_numpy(weighted)[None], (INPUT[0] // 4, INPUT[1] // 4), 2.0)[0]


def scored(task: Pose, found: KeypointSet, joints: list[np.ndarray], order: list[int] | None = None) -> dict[str, Any]:
    """Return the result for joints of each sample."""
    score = task.make_score(found, INPUT)  # type: ignore[arg-type]
    for index in order or range(len(found)):
        person = found.read(index).truth
        score.update(heatmaps(person, joints[index])[None], [person])
    return score.result()


def test_perfect_heatmaps_score_one(tmp_path: Path) -> None:
    found = open_set(tmp_path)
    result = scored(pose_task(), found, [person.joints for person in found.people])
    assert next(iter(result)) == "oks_ap"
    assert (result["oks_ap"], result["oks_ar"], result["pck"]) == (1.0, 1.0, 1.0)
    rows = result["parts"]["rows"]
    assert [row["name"] for row in rows] == list(NAMES)
    assert [row["value"] for row in rows] == [1.0] * 5
    assert [row["share"] for row in rows] == pytest.approx([2 / 9, 2 / 9, 1 / 9, 2 / 9, 2 / 9])
    assert result["conditions"] == {
        "boxes": "ground truth",
        "flip test": "yes",
        "decoder": "parabola",
        "sigmas": "given",
        "pck": "within 0.2 of the torso, from left shoulder to right hip (right shoulder to left hip where one is not"
        " labelled)",
    }


def test_a_joint_that_is_off_costs_its_share(tmp_path: Path) -> None:
    found = open_set(tmp_path)
    joints = [person.joints.copy() for person in found.people]
    joints[0][3, 1] -= 10  # of a torso of 25.6 pixels
    result = scored(pose_task(), found, joints)
    assert result["pck"] == 8 / 9
    assert result["parts"]["rows"][3]["value"] == 0.5
    assert 0 < result["oks_ap"] < 1


def test_parts_of_a_set_add_up(tmp_path: Path) -> None:
    """Two processes score one person each; who is not scored is left out."""
    found, task = open_set(tmp_path), pose_task()
    joints = [person.joints.copy() for person in found.people]
    joints[1][:, :2] += 3
    whole = scored(task, found, joints)
    first, second = (task.make_score(found, INPUT) for _ in range(2))  # type: ignore[arg-type]
    for score, index in ((first, 0), (second, 1)):
        person = found.people[index]
        score.update(heatmaps(person, joints[index])[None], [person])
    assert first.result()["pck"] == 1.0
    for mine, theirs in zip(first.sums, second.sums, strict=True):
        mine += theirs
    assert str(first.result()) == str(whole)
    assert whole["pck"] < 1


def test_a_detectors_boxes_have_ap_alone_and_doubles_are_merged(tmp_path: Path) -> None:
    labelled = open_set(tmp_path)
    boxes = [[15, 5, 30, 50], [16, 4, 30, 52], [60, 5.5, 25, 40], [1, 1, 20, 20]]
    images, scores = [7, 7, 7, 9], [0.9, 0.8, 0.7, 0.95]
    file = tmp_path / "boxes.json"
    file.write_text(
        json.dumps(
            [
                {"image_id": image, "category_id": 1, "bbox": box, "score": score}
                for image, box, score in zip(images, boxes, scores, strict=True)
            ]
        )
    )
    found = open_set(tmp_path, boxes=file)
    people = labelled.people
    result = scored(pose_task(), found, [people[0].joints, people[0].joints, people[1].joints, people[0].joints])
    # The double of the first person is gone; the one in the second image is where an unlabelled person is ignored.
    assert result["oks_ap"] == 1.0
    assert "pck" not in result
    assert "parts" not in result
    assert result["conditions"]["boxes"] == "detector boxes.json, the lower of two people of OKS above 0.9 dropped"


def test_without_known_sigmas_pck_decides(tmp_path: Path) -> None:
    found = open_set(tmp_path)
    task = pose_task(skeleton(sigmas=(UNIFORM_SIGMA,) * 5))
    assert task.metric == "pck"
    result = scored(task, found, [person.joints for person in found.people])
    assert next(iter(result)) == "pck"
    assert result["oks_ap"] == 1.0
    assert result["conditions"]["sigmas"] == "0.067 for all joints, a guess"
    assert pose_task(COCO_SKELETON).metric == "oks_ap"


def test_decoding_gives_joints_of_the_image(tmp_path: Path) -> None:
    sample = open_set(tmp_path).read(0)
    found = pose_task().decode(heatmaps(sample.truth, sample.truth.joints), sample, INPUT)
    assert found.shape == (5, 3)
    assert found[:, :2] == pytest.approx(sample.truth.joints[:, :2], abs=1e-3)
    assert (found[:, 2] > 0.9).all()


def test_the_loss_is_the_mean_over_a_joints_map_summed_over_joints() -> None:
    task = pose_task()
    targets = torch.tensor([[[10.0, 12.0, 1.0], [20.0, 30.0, 0.0], [5.5, 5.5, 1.0], [0, 0, 0], [0, 0, 0]]])
    goal = targets_of(targets, (16, 12), 2.0)
    outputs = goal.clone().requires_grad_()
    assert task.loss_terms(outputs, targets)["heatmap"] == 0
    outputs = (goal + torch.tensor([0.5, 7.0, -0.25, 7.0, 7.0]).view(1, 5, 1, 1)).requires_grad_()
    loss = task.loss_terms(outputs, targets)["heatmap"]
    assert loss.item() == pytest.approx(0.25 + 0.0625)
    assert task.weight(targets) == 2
    loss.backward()
    assert outputs.grad is not None
    assert (outputs.grad.abs().amax(dim=(2, 3)) > 0).tolist() == [[True, False, True, False, False]]
    nothing = targets * torch.tensor([1.0, 1.0, 0.0])
    assert task.loss_terms(outputs, nothing)["heatmap"] == 0
    assert task.weight(nothing) == 0


def test_the_flip_test_sees_mirrored_maps_as_the_images_own(tmp_path: Path) -> None:
    sample, task = open_set(tmp_path).read(1), pose_task()
    options = settled(AugmentOptions.none(), task.own, "pose", "augment")
    _, plain = task.training_view(sample, INPUT, options, np.random.default_rng(0))
    _, turned = task.training_view(sample, INPUT, replace(options, flip=1.0), np.random.default_rng(0))
    maps = [targets_of(torch.from_numpy(joints)[None], (16, 12), 2.0) for joints in (plain, turned)]
    torch.testing.assert_close(task.mirrored(maps[1]), maps[0], atol=2e-6, rtol=0)
    assert not torch.allclose(maps[1], maps[0], atol=0.1)


def test_what_is_asked_in_vain_is_refused(tmp_path: Path) -> None:
    task, file = pose_task(), tmp_path / "x"
    Image.fromarray(open_set(tmp_path).read(0).content).save(file, "png")
    with pytest.raises(InputError, match=r"Unknown decoder 'darc'. Did you mean 'dark'"):
        pose_task(decoder="darc")
    with pytest.raises(InputError, match=r"input size is 64x50; for pose height and width must be divisible by 4"):
        task.check_input((64, 50))
    with pytest.raises(InputError, match=r"augment\.area is \(0\.5, 1\.0\), which means nothing to task pose"):
        settled(AugmentOptions(area=(0.5, 1.0)), task.own, "pose", "augment")
    with pytest.raises(
        InputError, match=r"Box 1 of x has the box \[200, 0, 5, 5\], which lies outside the image of 100x60"
    ):
        task.unlabelled(file, [(200.0, 0.0, 5.0, 5.0)])


def test_prediction_of_unlabelled_images_is_written_in_their_pixels(tmp_path: Path) -> None:
    task = pose_task()
    image = np.full((60, 100, 3), 90, np.uint8)
    Image.fromarray(image).save(tmp_path / "x", "png")
    whole = task.unlabelled(tmp_path / "x", None)
    assert [sample.truth.box for sample in whole] == [(0, 0, 100, 60)]
    samples = task.unlabelled(tmp_path / "x", [(15.0, 5.0, 30.0, 50.0), (80.0, 20.0, 40.0, 20.0)])
    assert samples[1].truth.box == (80, 20, 20, 20)
    joints = [np.array([[30.0, 10, 0.9], [40, 20, 0.8], [20, 20, 0.1], [36, 40, 0.7], [24, 40.126, 0.6]])] * 2
    file = task.save(tmp_path, "x", joints, samples)
    plain = json.loads(file.read_text())
    assert (file.name, plain["image"], plain["names"]) == ("x.json", "x", list(NAMES))
    assert plain["people"][1]["box"] == [80, 20, 20, 20]
    assert plain["people"][0]["joints"][4] == [24, 40.13, 0.6]
    drawn = np.array(task.draw(joints, samples, INPUT))
    assert drawn.shape == image.shape
    assert (drawn[30, 38] == (40, 200, 90)).all()  # on the bone from left shoulder to left hip
    # A joint of a low score is hollow.
    assert drawn[10, 30].sum() > 2 * drawn[20, 20].sum()


def test_truth_is_drawn_beside_the_prediction(tmp_path: Path) -> None:
    found, task = open_set(tmp_path), pose_task()
    samples = [found.read(index) for index in range(2)]
    joints = [np.hstack([sample.truth.joints[:, :2] + 5, np.ones((5, 1))]) for sample in samples]
    drawn = np.array(task.draw(joints, samples, INPUT))
    assert drawn.shape == (60, 204, 3)
    bone = (samples[0].truth.joints[1, :2] + samples[0].truth.joints[3, :2]).astype(int) // 2
    assert (drawn[bone[1], bone[0]] == (40, 200, 90)).all()
    assert (drawn[bone[1] + 5, 104 + bone[0] + 5] == (40, 200, 90)).all()


@pytest.mark.parametrize(
    ("names", "words", "ends"),
    [
        (COCO_SKELETON.names, "torso, from left shoulder to right hip", (((5,), (12,)), ((6,), (11,)))),
        (("Head Top", "LHip", "RHip"), "distance from the head to the middle of the hips", (((0,), (1, 2)),)),
        (("left_hip", "right_hip"), "longer side of the box", ()),
    ],
)
def test_what_a_persons_size_is(names: tuple[str, ...], words: str, ends: Any) -> None:
    reference = reference_length(names)
    assert reference.words.startswith(words)
    assert reference.ends == ends
