"""What data.yaml says about joints beside the keypoint file, and what it keeps for a run."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from hrnas.data.coco_joints import COCO_SKELETON
from hrnas.data.data_yaml import completed, parse_description, read_description
from hrnas.data.doctor import examine
from hrnas.errors import InputError
from people import NAMES, plain_set, write_set


def describe(root: Path, **fields: Any) -> Any:
    write_set(root, plain_set())
    split = {"coco": "people.json", "images": "."}
    plain = {"task": "pose", "train": split, "validation": split, **fields}
    (root / "data.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    return read_description(root)


def test_the_file_and_its_names_say_what_data_yaml_leaves_out(tmp_path: Path) -> None:
    description = describe(tmp_path)
    assert description.names == NAMES
    assert description.skeleton.flip_pairs == ((1, 2), (3, 4))
    assert description.skeleton.bones == ((0, 1), (1, 3))
    assert set(description.skeleton.sigmas) == {0.067}


def test_what_a_run_keeps_is_the_same_description_and_needs_no_files(tmp_path: Path) -> None:
    given = {"sigmas": dict(zip(NAMES, (0.1, 0.2, 0.2, 0.3, 0.3), strict=True)), "skeleton": [["head", "left_hip"]]}
    description = describe(tmp_path, **given)
    assert description.skeleton.sigmas == (0.1, 0.2, 0.2, 0.3, 0.3)
    assert description.skeleton.bones == ((0, 3),)
    plain = yaml.safe_load(yaml.safe_dump(description.to_dict(), sort_keys=False))
    again = parse_description(plain, where="config", folder=Path("/nowhere"))
    assert again == description
    assert completed(again, where="config") == description


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"names": ["head", "left_shoulder"]}, r"'names' has 2 joints, head, left_shoulder; .*people\.json has 5"),
        ({"flip_pairs": [["left_hip", "rihgt_hip"]]}, r"unknown joint 'rihgt_hip'\. Did you mean 'right_hip'"),
        (
            {"flip_pairs": [["left_hip", "right_hip"], ["right_hip", "head"]]},
            "flip_pairs has the joint 'right_hip' twice",
        ),
        ({"flip_pairs": [["left_hip"]]}, "a pair of two joint names"),
        ({"sigmas": [0.1]}, "'sigmas' has 1 numbers; .* has 5 joints"),
        ({"sigmas": {"head": 0.1}}, "'sigmas' has no 'left_shoulder'"),
        ({"sigmas": [0.1, 0.1, 0.1, 0.1, 0]}, "a list of positive numbers"),
        ({"train": {"coco": "people.json", "images": ".", "boxes": "x.json"}}, "joints are learnt in labelled boxes"),
    ],
)
def test_what_does_not_fit_the_joints_is_one_line(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        describe(tmp_path, **fields)
    assert "\n" not in str(error.value)


def test_a_joint_twice_is_refused_where_a_run_gives_all(tmp_path: Path) -> None:
    plain = describe(tmp_path).to_dict()
    with pytest.raises(InputError, match="names has the joint 'head' twice"):
        parse_description(
            {**plain, "names": [*plain["names"], "head"], "sigmas": [0.1] * 6}, where="config", folder=tmp_path
        )


def test_the_known_layout_needs_only_a_path(tmp_path: Path) -> None:
    joints = [[0.0, 0.0, 0.0]] * 17
    joints[0] = [5.0, 6.0, 2.0]
    person = {
        "id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 1, 20, 30], "area": 300.0, "iscrowd": 0,
        "keypoints": [number for joint in joints for number in joint],
    }  # fmt: skip
    plain = plain_set(
        annotations=[person], categories=[{"id": 1, "name": "person", "keypoints": list(COCO_SKELETON.names)}]
    )
    (tmp_path / "annotations").mkdir()
    parsed = parse_description({"dataset": "coco", "path": str(tmp_path)}, where="x", folder=tmp_path)
    with pytest.raises(InputError, match=r"lacks annotations/person_keypoints_train2017\.json and train2017/"):
        completed(parsed, where="x")
    for part, folder in (("train2017", "train2017"), ("val2017", "images/val2017")):
        (tmp_path / folder).mkdir(parents=True)
        write_set(tmp_path / folder, plain).rename(tmp_path / "annotations" / f"person_keypoints_{part}.json")
    description = completed(parsed, where="x")
    assert [source.images for source in description.splits.values()] == ["train2017", "images/val2017"]
    assert description.skeleton.sigmas == COCO_SKELETON.sigmas
    assert description.skeleton.flip_pairs == COCO_SKELETON.flip_pairs


def test_the_doctor_counts_people_by_joint_and_warns_of_guessed_sigmas(tmp_path: Path) -> None:
    found = examine(describe(tmp_path))
    assert found.problems == ()
    assert found.counted == "person with"
    assert found.splits[0].counts == (2, 2, 1, 2, 2)
    assert found.splits[0].total == 2
    assert any("sigmas of these 5 joints are not known" in line for line in found.warnings)
