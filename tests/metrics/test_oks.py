"""OKS AP against pycocotools and by hand-worked cases.

pycocotools divides by (true + false positives + 2^-52), so that its precision after one right prediction is 1 - 2^-52;
here it is 1, and a figure may differ by that much. Nothing else differs.
"""

import contextlib
import copy
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hrnas.data.coco_joints import COCO_SKELETON
from hrnas.data.coco_keypoints import KeypointSet, open_keypoints
from hrnas.metrics.oks import oks_figures, oks_kept, person_scores
from people import open_set, skeleton

SHARED = Path(__file__).parents[3] / "shared" / "data"
SIGMAS = skeleton().sigmas
EPSILON = 2.0**-52
NAMES = ("oks_ap", "oks_ap_50", "oks_ap_75", "oks_ap_medium", "oks_ap_large", "oks_ar")


def reference(
    plain: dict[str, Any], sigmas: tuple[float, ...], images: list[int], joints: np.ndarray, scores: np.ndarray
) -> dict[str, float]:
    """Return pycocotools' figures."""
    plain = copy.deepcopy(plain)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = plain
        truth.createIndex()
        found = truth.loadRes(
            [
                {"image_id": image, "category_id": 1, "keypoints": person.ravel().tolist(), "score": score}
                for image, person, score in zip(images, joints, scores.tolist(), strict=True)
            ]
        )
        evaluation = COCOeval(truth, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NAMES, (float(evaluation.stats[place]) for place in (0, 1, 2, 3, 4, 5)), strict=True))


def labelled(found: KeypointSet) -> tuple[list[int], np.ndarray]:
    people = found.people
    return [person.image_id for person in people], np.array([person.joints for person in people], float)


def same(ours: dict[str, float], theirs: dict[str, float]) -> bool:
    return list(ours) == list(theirs) and all(
        math.isnan(ours[name]) if value < 0 else abs(ours[name] - value) <= EPSILON for name, value in theirs.items()
    )


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("coco_keypoints_mini/annotations/person_keypoints_val2017.json", "coco_keypoints_mini/images/val2017"),
        ("coco_mmpose_tests/annotations/person_keypoints_test.json", "coco_mmpose_tests/images"),
    ],
)
def test_figures_are_those_of_pycocotools(file: str, images: str) -> None:
    if not (SHARED / file).is_file():
        pytest.skip(f"the real set is not at {SHARED / file}")
    found = open_keypoints(SHARED / file, SHARED / images)
    plain = json.loads((SHARED / file).read_text())
    truth = found.ground_truth
    assert truth is not None
    ids, joints = labelled(found)
    rng = np.random.default_rng(0)
    values = set()
    for spread in (1.0, 4.0, 12.0):
        # Each person twice, shaken, with scores in which some are equal; people nobody has labelled are found as well.
        shaken = np.concatenate([joints, joints])
        shaken[:, :, :2] += rng.normal(0, spread, (*shaken.shape[:2], 2))
        scores = rng.integers(1, 20, len(shaken)) / 20
        ours = oks_figures(truth, COCO_SKELETON.sigmas, ids + ids, shaken, scores)
        assert same(ours, reference(plain, COCO_SKELETON.sigmas, ids + ids, shaken, scores))
        values.add(ours["oks_ap"])
        wide = tuple(3 * sigma for sigma in COCO_SKELETON.sigmas)
        theirs = reference(plain, wide, ids + ids, shaken, scores)
        assert same(oks_figures(truth, wide, ids + ids, shaken, scores), theirs)
        assert theirs["oks_ap"] > ours["oks_ap"]
    assert len(values) == 3
    perfect = oks_figures(truth, COCO_SKELETON.sigmas, ids, joints, np.ones(len(ids)))
    assert perfect["oks_ap"] == perfect["oks_ar"] == 1.0


def test_any_number_of_joints_and_sigmas(tmp_path: Path) -> None:
    found = open_set(tmp_path)
    truth = found.ground_truth
    assert truth is not None
    ids, joints = labelled(found)
    perfect = oks_figures(truth, SIGMAS, ids, joints, np.ones(2))
    assert math.isnan(perfect.pop("oks_ap_large"))
    assert perfect == {"oks_ap": 1, "oks_ap_50": 1, "oks_ap_75": 1, "oks_ap_medium": 1, "oks_ar": 1}
    # One of the two is far off: half of the people are found, without a false one before them.
    joints[1, :, :2] += 50
    half = oks_figures(truth, SIGMAS, ids, joints, np.array([0.9, 0.8]))
    assert half["oks_ap"] == pytest.approx(51 / 101)
    assert half["oks_ar"] == 0.5
    assert same(half, reference(truth, SIGMAS, ids, joints, np.array([0.9, 0.8])))


def test_a_label_without_area_counts_with_a_share_of_its_box(tmp_path: Path) -> None:
    truth = open_set(tmp_path).ground_truth
    assert truth is not None
    ids, joints = labelled(open_set(tmp_path))
    joints[:, :, 0] += 3
    given, left_out = copy.deepcopy(truth), copy.deepcopy(truth)
    for annotation in given["annotations"]:
        annotation["area"] = 0.53 * annotation["bbox"][2] * annotation["bbox"][3]
    for annotation in left_out["annotations"]:
        del annotation["area"]
    figures = [oks_figures(plain, SIGMAS, ids, joints, np.ones(2)) for plain in (given, left_out, truth)]
    assert str(figures[0]) == str(figures[1])
    assert 0 < figures[0]["oks_ap"] < figures[2]["oks_ap"]


def test_an_annotation_of_number_0_is_found(tmp_path: Path) -> None:
    truth = open_set(tmp_path).ground_truth
    assert truth is not None
    ids, joints = labelled(open_set(tmp_path))
    truth["annotations"][0]["id"] = 0
    assert oks_figures(truth, SIGMAS, ids, joints, np.ones(2))["oks_ap"] == 1.0


def test_nobody_predicted_is_no_figure(tmp_path: Path) -> None:
    truth = open_set(tmp_path).ground_truth
    assert truth is not None
    assert all(map(math.isnan, oks_figures(truth, SIGMAS, [], np.zeros((0, 5, 3)), np.zeros(0)).values()))


def test_scores_of_people() -> None:
    joints = np.zeros((3, 4, 3))
    joints[0, :, 2] = [0.2, 0.3, 0.5, 0.1]
    joints[1, :, 2] = [1, 1, 1, 1]
    assert person_scores(joints, np.array([0.5, 0.25, 1.0])).tolist() == pytest.approx([0.2, 0.25, 0.0])


def test_of_people_much_alike_the_one_of_the_higher_score_stays() -> None:
    """With sigma 0.1 and area 100, joints that are d off have an OKS of exp(-d^2 / 8)."""
    joints = np.zeros((5, 2, 3))
    joints[1, :, 0] = math.sqrt(-8 * math.log(0.91))
    joints[2, :, 0] = -math.sqrt(-8 * math.log(0.89))
    images = np.array([1, 1, 1, 2, 1])
    scores = np.array([0.5, 0.4, 0.3, 0.1, 0.9])
    joints[4] += 100
    areas = np.full(5, 100.0)
    assert oks_kept(images, joints, scores, areas, (0.1, 0.1)).tolist() == [0, 2, 3, 4]
    scores[1] = 0.6
    assert oks_kept(images, joints, scores, areas, (0.1, 0.1)).tolist() == [1, 2, 3, 4]
