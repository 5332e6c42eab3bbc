"""COCO's keypoint files: what is read of them, and one line for whatever cannot be used."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrnas.data.coco_joints import COCO_SKELETON
from hrnas.data.coco_keypoints import UNIFORM_SIGMA, open_keypoints, read_skeleton, sigma_warning
from hrnas.errors import InputError
from people import NAMES, open_set, person, plain_set, skeleton, write_set

SHARED = Path(__file__).parents[3] / "shared" / "data"


def changed(annotation: int, **fields: Any) -> dict[str, Any]:
    """Return the plain set with fields of one annotation changed."""
    plain = plain_set()
    plain["annotations"][annotation] |= fields
    return plain


def detections(root: Path, *entries: dict[str, Any] | str) -> Path:
    """Write a detector's results; an entry takes what it does not give from a good one."""
    good = {"image_id": 7, "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.5}
    file = root / "boxes.json"
    file.write_text(json.dumps([good | entry if isinstance(entry, dict) else entry for entry in entries]))
    return file


def test_people_with_joints_are_the_samples(tmp_path: Path) -> None:
    found = open_set(tmp_path)
    assert (len(found), found.names, found.boxes) == (2, NAMES, "ground truth")
    assert found.pictures() == {"a": [0, 1]}
    assert [found.read(index).name for index in range(2)] == ["a-3", "a-4"]
    sample = pickle.loads(pickle.dumps(found)).read(1)
    assert sample.content.shape == (60, 100, 3)
    truth = sample.truth
    assert (truth.box, truth.area, truth.image_id, truth.annotation_id) == ((60, 5.5, 25, 40), 900, 7, 4)
    assert (truth.score, truth.index) == (1.0, 1)
    assert truth.joints.tolist() == [[70, 12, 2], [78, 22, 2], [0, 0, 0], [76, 38, 2], [66, 39, 2]]


def test_the_ground_truth_keeps_what_is_ignored_in_the_images_used(tmp_path: Path) -> None:
    truth = open_set(tmp_path).ground_truth
    assert truth is not None
    assert truth["images"] == [{"id": 7}]
    assert [annotation["id"] for annotation in truth["annotations"]] == [3, 4, 5]
    assert truth["annotations"] == [annotation | {} for annotation in plain_set()["annotations"][:3]]


def test_a_detectors_boxes_have_no_labels_and_every_image_counts(tmp_path: Path) -> None:
    file = detections(
        tmp_path, {"score": 0.01}, {"category_id": 3, "image_id": 1}, {"bbox": [90, -5, 30, 20], "image_id": 9}
    )
    found = open_set(tmp_path, boxes=file)
    assert (len(found), found.boxes) == (2, "detector boxes.json")
    first, second = found.read(0), found.read(1)
    assert (first.truth.score, first.truth.annotation_id, first.truth.area) == (0.01, None, None)
    assert not first.truth.joints.any()
    assert (first.name, second.name) == ("a-box0", "b-box2")
    assert second.truth.box == (90, 0, 10, 15)
    alone = open_set(tmp_path, boxes=detections(tmp_path, {}))
    assert [annotation["id"] for annotation in alone.ground_truth["annotations"]] == [3, 4, 5, 6]


def test_the_skeleton_of_a_file(tmp_path: Path) -> None:
    file = write_set(tmp_path, plain_set())
    read = read_skeleton(file)
    assert (read.flip_pairs, read.bones, set(read.sigmas)) == (((1, 2), (3, 4)), ((0, 1), (1, 3)), {UNIFORM_SIGMA})
    assert "5 joints are not known" in str(sigma_warning(read))
    given = read_skeleton(file, flip_pairs=((1, 2),), bones=((0, 4),), sigmas=(0.1, 0.2, 0.2, 0.3, 0.3))
    assert (given.flip_pairs, given.bones, given.sigmas) == (((1, 2),), ((0, 4),), (0.1, 0.2, 0.2, 0.3, 0.3))
    assert sigma_warning(given) is None
    with pytest.raises(InputError, match="flip_pairs has the joint 'left_shoulder' twice"):
        read_skeleton(file, flip_pairs=((1, 2), (3, 1)))


def test_cocos_joints_have_cocos_sigmas_however_written(tmp_path: Path) -> None:
    names = [name.replace("_", " ").title() for name in reversed(COCO_SKELETON.names)]
    file = write_set(tmp_path, plain_set(categories=[{"id": 1, "keypoints": names}], annotations=[]))
    assert read_skeleton(file).sigmas == COCO_SKELETON.sigmas[::-1]


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    first = read_skeleton(write_set(tmp_path, plain_set()))
    second = read_skeleton(write_set(tmp_path, plain_set(categories=[{"id": 1, "keypoints": ["a", "b"]}])))
    assert (len(first.names), second.names) == (5, ("a", "b"))


ONE = {"id": 1, "name": "person", "keypoints": list(NAMES)}
TWO = [{"id": 7, "file_name": "a.png"}] * 2


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ("{", "line 1, column 2: not valid JSON"),
        ([], "holds a list of 0; a keypoint file must be a mapping"),
        ({"categories": [ONE], "images": []}, "has no 'annotations'; a keypoint file must have a list"),
        (plain_set(categories=[{"id": 1, "name": "person"}]), "no category with 'keypoints'"),
        (plain_set(categories=[ONE, ONE | {"name": "dog"}]), "2 categories with keypoints (person, dog)"),
        (plain_set(categories=[ONE | {"keypoints": ["a", "a"]}]), "has the joint 'a' twice"),
        (plain_set(categories=[ONE | {"skeleton": [[0, 1]]}]), "the bone [0, 1] in 'skeleton'; it must be a pair"),
        (plain_set(categories=[ONE | {"keypoints": ["a", "b"]}]), "15 numbers in 'keypoints'; 2 joints need 6"),
        (changed(1, keypoints=[1, 2, 2]), "annotations[1] (id 4) has 3 numbers in 'keypoints'; 5 joints need 15"),
        (changed(0, keypoints=[float("nan"), *[1] * 14]), "(id 3) has a joint at nan or infinity"),
        (changed(0, keypoints=["x", *[1] * 14]), "(id 3) has something in 'keypoints' that is no number"),
        (changed(0, keypoints=[1, 1, 3, *[1] * 12]), "(id 3) has visibility 3"),
        (changed(0, bbox=[0, 0, float("inf"), 4]), "(id 3) has Infinity in 'bbox'"),
        (changed(0, bbox=[10, 10, 0, 4]), "annotation 3 has the box [10, 10, 0, 4], which has no area"),
        (changed(0, bbox=[100, 10, 9, 4]), "outside its image"),
        (changed(0, bbox=[10, -8, 9, 8]), "outside its image"),
        (changed(0, bbox=None), "(id 3) has 'bbox' as null"),
        (changed(0, area=True), "(id 3) has true in 'area'"),
        (changed(0, image_id=8), "annotation 3 is of image 8, which 'images' does not list"),
        (changed(0, id=4), "two annotations of id 4"),
        (plain_set(images=TWO), "two images of id 7"),
        (plain_set(images=[{"id": 7}]), "images[0] has 'file_name' as null"),
        (plain_set(images=[{"id": "7", "file_name": "a.png"}]), "images[0] has 'id' as \"7\"; an integer"),
        (plain_set(annotations=[]), "has no person with a labelled joint"),
        (plain_set(annotations=[person(1, 9, [1, 1, 5, 5], [0] * 15)]), "has no person with a labelled joint"),
        (plain_set(categories=[ONE | {"keypoints": ["left_x", *"abcd"]}]), "joint 'left_x' is of one side"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path, plain: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        open_set(tmp_path, plain)
    assert "people.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files_and_images_of_another_size(tmp_path: Path) -> None:
    file = write_set(tmp_path, plain_set())
    with pytest.raises(InputError, match=r"Keypoint file .*none\.json does not exist"):
        read_skeleton(tmp_path / "none.json")
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match=r"Image .*a\.png does not exist"):
        open_keypoints(file, tmp_path)
    turned = plain_set()
    turned["images"][0] |= {"height": 100, "width": 60}
    with pytest.raises(InputError, match=r"is 100x60 .* says 60x100.*EXIF"):
        open_set(tmp_path, turned)


def test_other_joints_than_the_sets_are_refused(tmp_path: Path) -> None:
    file = write_set(tmp_path, plain_set())
    with pytest.raises(InputError, match="has 5 joints; the data set's are 4"):
        open_keypoints(file, tmp_path, skeleton=skeleton(names=NAMES[:4], flip_pairs=(), sigmas=(0.1,) * 4))
    with pytest.raises(InputError, match="has 'left_hip' as joint 4; the data set has 'right_hip' there"):
        open_keypoints(file, tmp_path, skeleton=skeleton(names=(*NAMES[:3], NAMES[4], NAMES[3])))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"image_id": 8}, "entry 0 is of image 8, which"),
        ({"category_id": 2}, "has no box of category 1"),
        ({"score": float("nan")}, "entry 0 has NaN in 'score'"),
        ({"bbox": [1, 2, 3]}, "entry 0 has 'bbox' as a list of 3"),
        ({"bbox": [1, 2, 3, 0]}, "entry 0 has the box [1, 2, 3, 0], which has no area"),
        ({"bbox": [1, 70, 3, 5]}, "outside its image"),
        ("box", 'entry 0 is "box"; it must be a mapping'),
    ],
)
def test_detections_that_cannot_be_used_are_one_line(tmp_path: Path, entry: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        open_set(tmp_path, boxes=detections(tmp_path, entry))
    assert "boxes.json" in str(error.value)


def test_a_detectors_boxes_need_sigmas(tmp_path: Path) -> None:
    file = write_set(tmp_path, plain_set())
    with pytest.raises(InputError, match="needs the sigmas of these joints"):
        open_keypoints(file, tmp_path, boxes=detections(tmp_path, {}))


@pytest.mark.parametrize(
    ("folder", "images", "part", "people", "pictures", "labelled"),
    [
        ("coco_keypoints_mini", "images/train2017", "train2017", 86, 28, 800),
        ("coco_keypoints_mini", "images/val2017", "val2017", 68, 32, 652),
        ("coco_mmpose_tests", "images", "test", 12, 4, 181),
        ("lspet_pose", "images", "val", 300, 300, 3996),
    ],
)
def test_real_sets_have_their_counts(
    folder: str, images: str, part: str, people: int, pictures: int, labelled: int
) -> None:
    """The counts are those of the folders' README files."""
    root = SHARED / folder
    if not root.is_dir():
        pytest.skip(f"the real set is not at {root}")
    found = open_keypoints(root / f"annotations/person_keypoints_{part}.json", root / images)
    assert (len(found), len(found.pictures())) == (people, pictures)
    assert sum(int((found.people[index].joints[:, 2] > 0).sum()) for index in range(len(found))) == labelled
    assert found.read(len(found) - 1).content.dtype == np.uint8
    if folder != "lspet_pose":
        assert found.skeleton == COCO_SKELETON
