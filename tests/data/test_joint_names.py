"""Left and right, upper and lower, from the names of joints."""

import pytest

from hrnas.data.coco_joints import COCO_SKELETON
from hrnas.data.joint_names import find_joint, flip_pairs_of, lower_body, without_partner


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("Left hip", "Neck", "Right hip"), ((0, 2),)),
        (("l_eye", "r_eye", "r_ear", "l_ear"), ((0, 1), (3, 2))),
        (("LEye", "REye", "LKnee", "RKnee", "Nose"), ((0, 1), (2, 3))),
        (("hip.l", "hip.r"), ((0, 1),)),
        (("hipR", "hipL"), ((1, 0),)),
        (("leftShoulder", "rightShoulder"), ((0, 1),)),
        (("leftshoulder", "rightshoulder", "lhip", "rhip"), ((0, 1), (2, 3))),
        (("hand_left_1", "hand_left_2", "hand_right_2", "hand_right_1"), ((0, 3), (1, 2))),
        (("lip", "rear", "tail"), ()),
        (("lip", "chin", "roll"), ()),
    ],
)
def test_joints_that_change_places(names: tuple[str, ...], pairs: tuple[tuple[int, int], ...]) -> None:
    assert flip_pairs_of(names) == pairs
    assert without_partner(names) is None


def test_cocos_names_give_cocos_pairs() -> None:
    assert flip_pairs_of(COCO_SKELETON.names) == COCO_SKELETON.flip_pairs


def test_a_side_without_its_partner_is_found() -> None:
    assert without_partner(("left_hip", "right_hip", "left_knee")) == "left_knee"


def test_parts_of_the_body() -> None:
    assert find_joint(("RHip", "LHip", "Head"), "hip", "left") == 1
    assert find_joint(("RHip", "LHip", "Head"), "head") == 2
    assert find_joint(("RHip", "LHip", "Head"), "shoulder", "left") is None
    assert find_joint(("lip", "lHip", "rHip"), "lip") == 0
    assert lower_body(COCO_SKELETON.names) == (11, 12, 13, 14, 15, 16)
    assert lower_body(("left_ankle", "right_knee")) is None
    assert lower_body(("a", "b")) is None
