"""What the camera sees of figures: joints on their own pixels, left and right by the facing, hidden where hidden."""

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from hrnas.data.coco_joints import COCO_SKELETON
from hrnas.data.toycity.figure import cycling, walking
from hrnas.data.toycity.placing import make_world
from hrnas.data.toycity.render import render
from hrnas.data.toycity.scenes import Scenes
from hrnas.data.toycity.seen import owners, seen_joints, seen_things
from hrnas.data.toycity.world import NAMES, Thing, View, World

BASE = make_world(Random(0))
EYE = View(position=(0.0, 0.0, 1.5), heading=0.0, pitch=0.0, roll=0.0, field_of_view=math.pi / 3)
SIZE = (192, 256)  # 221.7 pixels of focal length


def standing() -> Thing:
    """Somebody of 1.7 m at 4 m, who faces along the view, away from the camera; arms at the sides."""
    random = Random(1)
    pose = replace(
        walking(random, 1.7), hip_height=0.53 * 1.7, lean=0.0, ankles=((0, 0.11, 0.068), (0, -0.11, 0.068)),
        wrists=((0.05, 0.28, 0.87), (0.05, -0.28, 0.87)),
    )  # fmt: skip
    return Thing(
        category="person", kind="plain", position=(4.0, 0.0), heading=0.0, size=(0.5, 0.5, 1.7),
        colours=((0.5, 0.1, 0.1), (0.1, 0.1, 0.5), (0.6, 0.4, 0.3), (0.1, 0.1, 0.1), (0.5, 0.5, 0.5)), seed=1,
        pose=pose,
    )  # fmt: skip


def look(*things: Thing) -> tuple[World, dict[str, tuple[float, float, int]], np.ndarray, tuple[int, int, int, int]]:
    """Return the world, the joints of its first thing by name, and the pixels and the box of that figure."""
    world = replace(BASE, things=things, view=EYE)
    picture = render(world, *SIZE, Random(0))
    owner = owners(picture, only_figures=True)
    figures = [seen for seen in seen_things(owner) if seen.row == 0]
    (found,) = seen_joints(world, picture, figures)
    return (
        world,
        {name: tuple(row) for name, row in zip(COCO_SKELETON.names, found, strict=True)},
        owner == 0,
        figures[0].box,
    )


def wall(left: float, right: float, height: float, ahead: float = 2.0) -> Thing:
    """A wall across the view, from `left` to `right` of its middle line."""
    return Thing(
        category="building", kind="wall", position=(ahead, (left + right) / 2), heading=math.pi / 2,
        size=(abs(left - right), 0.1, height), colours=((0.5, 0.5, 0.5),), seed=1,
    )  # fmt: skip


def hidden(joint: dict[str, tuple[float, float, int]]) -> set[str]:
    return {name for name, (_, _, visibility) in joint.items() if visibility == 1}


def test_places_of_joints_by_hand():
    _, joint, pixels, (left, top, wide, high) = look(standing())
    # Shoulders 0.115 of 1.7 m aside, at 0.53 + 0.29 of it, 4 m off.
    for name, side in (("left_shoulder", -1), ("right_shoulder", 1)):
        column, row = 127.5 + side * 221.7 * 0.115 * 1.7 / 4, 95.5 + 221.7 * (1.5 - 0.82 * 1.7) / 4
        assert joint[name][:2] == pytest.approx((column, row), abs=0.1)
    assert pixels[top : top + high, left : left + wide].sum() == pixels.sum()
    for line in (pixels[top], pixels[top + high - 1], pixels[:, left], pixels[:, left + wide - 1]):
        assert line.any()


def test_left_and_right_are_the_persons_own_and_a_face_looks_ahead():
    paired = [(a, b) for a, b in COCO_SKELETON.flip_pairs if a >= 5]
    away, toward = look(standing())[1], look(replace(standing(), heading=math.pi))[1]
    for a, b in paired:
        a, b = COCO_SKELETON.names[a], COCO_SKELETON.names[b]
        assert away[a][0] < away[b][0] - 4
        assert toward[a][0] > toward[b][0] + 4
    assert hidden(away) == {"nose", "left_eye", "right_eye"}
    assert hidden(toward) == set()
    assert toward["left_ear"][0] > toward["left_eye"][0] > toward["nose"][0] > toward["right_eye"][0]
    assert toward["nose"][1] > toward["left_eye"][1]


@pytest.mark.parametrize(("heading", "near", "far"), [(math.pi / 2, "left", "right"), (-math.pi / 2, "right", "left")])
def test_from_the_side_the_far_half_is_hidden(heading, near, far):
    # Who walks to the left of the picture has the left side toward the camera.
    _, joint, _, _ = look(replace(standing(), heading=heading))
    parts = ("eye", "ear", "shoulder", "elbow", "hip", "knee", "ankle", "wrist")
    # The near hand hangs before the near hip.
    assert hidden(joint) == {f"{near}_hip", *(f"{far}_{part}" for part in parts)}


def test_behind_a_low_wall_what_is_seen_is_the_box_and_the_rest_is_not_labelled():
    _, joint, _, box = look(standing(), wall(2.0, -2.0, 1.2))  # hides what is below 0.9 m at 4 m: hips and hands down
    for name, (x, y, visibility) in joint.items():
        if name.split("_")[-1] in ("knee", "ankle"):
            assert (x, y, visibility) == (0, 0, 0)
        elif name.split("_")[-1] in ("shoulder", "ear"):
            assert visibility == 2
    assert box[1] + box[3] == pytest.approx(96 + 221.7 * 0.3 / 2.05, abs=1.0)  # over the wall's far edge


def test_behind_a_post_the_middle_is_hidden_but_labelled():
    away = look(standing())[1]
    _, joint, _, _ = look(standing(), wall(0.07, -0.07, 3.0))  # 0.28 m of the person
    assert {"left_hip", "right_hip", "left_knee", "right_knee"} <= hidden(joint)
    assert joint["nose"] == joint["left_ear"] == (0, 0, 0)  # of the head nothing is seen: it is above the box
    for side in ("left", "right"):
        for part in ("shoulder", "elbow", "wrist"):
            assert joint[f"{side}_{part}"] == away[f"{side}_{part}"]
    assert joint["left_hip"][:2] == away["left_hip"][:2]


def test_what_touches_the_person_hides_all_the_same():
    # The wall's face is 0.07 m before the middle of the right shoulder, less than a shoulder may be deep.
    _, joint, _, _ = look(standing(), wall(-0.1, -0.3, 3.0, ahead=3.98))
    assert joint["right_shoulder"][2] == 1
    assert joint["left_shoulder"][2] == 2


def test_outside_the_picture_nothing_is_labelled():
    near = replace(standing(), position=(1.2, -0.35))  # the feet are below the picture, half of the rest beside it
    _, joint, _, _ = look(near)
    assert joint["left_ankle"] == joint["right_ankle"] == (0, 0, 0)
    assert joint["left_shoulder"][2] == 2
    assert all(0 <= x < SIZE[1] and 0 <= y < SIZE[0] for x, y, _ in joint.values())


def test_a_bicycle_is_no_part_of_its_rider():
    random = Random(2)
    rider = replace(
        standing(), category="cyclist", kind="bicycle", heading=math.pi / 2, pose=cycling(random, 1.7),
        size=(1.75, 0.55, 1.75),
    )  # fmt: skip
    world, joint, pixels, box = look(rider)
    picture = render(world, *SIZE, Random(0))
    (whole,) = seen_things(owners(picture))
    assert box[2] < 0.75 * whole.box[2]  # the wheels reach farther than the rider
    assert whole.box[1] + whole.box[3] - (box[1] + box[3]) >= 5  # and lower, by more than 0.1 m
    assert (picture.mask[pixels] == NAMES.index("cyclist")).all()
    near = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    assert all(joint[f"left_{part}"][2] == 2 for part in near)
    assert {f"right_{part}" for part in ("shoulder", "elbow", "hip", "knee")} <= hidden(joint)


def test_over_many_scenes_visible_joints_lie_on_their_own_figure():
    scenes = Scenes("train", size=SIZE, seed=0, smallest=16, usual=SIZE)
    counts = np.zeros(3, int)
    for number in range(14):
        world, random = scenes.draw(number)
        picture = scenes.picture(world, random)
        owner = owners(picture, only_figures=True)
        figures = [seen for seen in seen_things(owner) if seen.area >= 60]
        for seen, joints in zip(figures, seen_joints(world, picture, figures), strict=True):
            left, top, wide, high = seen.box
            assert seen.area == (owner == seen.row).sum()
            counts += np.bincount(joints[:, 2].astype(int), minlength=3)
            for x, y, visibility in joints:
                if visibility == 2:
                    column, row = round(float(x)), round(float(y))
                    around = owner[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
                    assert (around == seen.row).any()
                if visibility:
                    assert left - 1 <= x <= left + wide + 1
                    assert top - 1 <= y <= top + high + 1
                else:
                    assert x == y == 0
    assert counts[2] > 0.5 * counts.sum()
    assert counts[1] > 0.2 * counts.sum()


def test_two_sizes_show_the_same_joints():
    small, large = (Scenes("test", size=size, seed=0, smallest=16, usual=size) for size in ((96, 128), (192, 256)))
    compared = 0
    for number in range(6):
        found = []
        for scenes in (small, large):
            world, random = scenes.draw(number)
            picture = scenes.picture(world, random)
            figures = [seen for seen in seen_things(owners(picture, only_figures=True)) if seen.area >= 30]
            rows = [seen.row for seen in figures]
            found.append(dict(zip(rows, seen_joints(world, picture, figures), strict=True)))
        for row in found[0].keys() & found[1].keys():
            a, b = found[0][row], found[1][row]
            both = (a[:, 2] > 0) & (b[:, 2] > 0)
            np.testing.assert_allclose(2 * a[both, :2] + 0.5, b[both, :2], atol=1e-3)
            assert (a[both, 2] == b[both, 2]).all()
            compared += both.sum()
    assert compared > 100
