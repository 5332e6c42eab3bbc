"""Toy City's people as a set: the scenes of the masks, whole boxes, COCO's labels, a careful cache."""

import pickle

import numpy as np
import pytest

from hrnas.data.coco_joints import COCO_SKELETON
from hrnas.data.toycity import ToyCity, ToyCityPeople, scenes
from hrnas.data.toycity.people import find_people
from hrnas.data.toycity.seen import owners, seen_things
from hrnas.errors import InputError

SIZE = (96, 128)
LENGTH = 14


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> ToyCityPeople:
    return ToyCityPeople("test", size=SIZE, length=LENGTH, cache=tmp_path_factory.mktemp("people"))


def same(a: ToyCityPeople, b: ToyCityPeople, index: int) -> bool:
    x, y = a.read(index), b.read(index)
    return (
        np.array_equal(x.content, y.content)
        and x.name == y.name
        and np.array_equal(x.truth.joints, y.truth.joints)
        and (x.truth.box, x.truth.area, x.truth.image_id) == (y.truth.box, y.truth.area, y.truth.image_id)
    )


def test_samples_are_as_promised(people):
    assert len(people) == LENGTH
    assert people.names == COCO_SKELETON.names == people.skeleton.names
    assert len(people.colors) == len(set(people.colors)) == 17
    names = set()
    for index in range(LENGTH):
        sample = people.read(index)
        person = sample.truth
        assert (sample.content.shape, sample.content.dtype) == ((*SIZE, 3), np.uint8)
        assert (person.joints.shape, person.joints.dtype) == ((17, 3), np.float32)
        assert (person.index, person.annotation_id, person.score) == (index, index + 1, 1.0)
        left, top, wide, high = person.box
        assert 0 <= left < left + wide <= SIZE[1]
        assert 0 <= top < top + high <= SIZE[0]
        assert high >= 24
        assert 100 <= person.area <= wide * high
        seen = person.joints[person.joints[:, 2] == 2]
        assert ((seen[:, 0] > left - 1) & (seen[:, 0] < left + wide + 1)).all()
        assert ((seen[:, 1] > top - 1) & (seen[:, 1] < top + high + 1)).all()
        names.add(sample.name)
    assert len(names) == LENGTH


def test_scenes_are_those_of_the_masks_and_boxes_hold_their_persons(people, tmp_path):
    numbers = [people.read(group[0]).truth.image_id for group in people.pictures().values()]
    city = ToyCity("test", size=SIZE, length=max(numbers) + 1, cache=tmp_path)
    person, cyclist = (ToyCity.NAMES.index(name) for name in ("person", "cyclist"))
    for index in range(LENGTH):
        sample = people.read(index)
        scene = city.read(sample.truth.image_id)
        assert np.array_equal(sample.content, scene.content)
        left, top, wide, high = map(int, sample.truth.box)
        inside = scene.truth[top : top + high, left : left + wide]
        assert np.isin(inside, (person, cyclist)).sum() >= sample.truth.area
        for x, y, visibility in sample.truth.joints:
            if visibility == 2:
                column, row = round(float(x)), round(float(y))
                around = scene.truth[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
                assert np.isin(around, (person, cyclist)).any()


def test_pictures_group_the_persons_of_a_scene(people):
    groups = list(people.pictures().values())
    assert [index for group in groups for index in group] == list(range(LENGTH))
    scene_of = [{people.read(index).truth.image_id for index in group} for group in groups]
    assert all(len(numbers) == 1 for numbers in scene_of)
    assert len(set.union(*scene_of)) == len(groups) < LENGTH


def test_nobody_who_is_large_enough_is_left_out(people):
    count = {people.read(group[0]).truth.image_id: len(group) for group in people.pictures().values()}
    city = scenes.Scenes("test", size=SIZE, seed=0, smallest=16, usual=SIZE)
    for number in range(max(count)):  # the last scene may be cut short by the length
        figures = seen_things(owners(city.picture(*city.draw(number)), only_figures=True))
        assert sum(one.area >= 100 and one.box[3] >= 24 for one in figures) == count.get(number, 0)


def test_somebody_without_a_joint_in_sight_is_left_out():
    # At the right edge of this scene there is an arm's width of somebody: 80 rows, but neither wrist nor elbow.
    city = scenes.Scenes("train", size=(192, 256), seed=0, smallest=16, usual=SIZE)
    world, random = city.draw(198)
    picture = city.picture(world, random)
    (edge,) = (one for one in seen_things(owners(picture, only_figures=True)) if one.box == (250, 112, 6, 80))
    found = find_people(world, picture)
    assert edge.area >= 100
    assert edge.row not in [seen.row for seen, _ in found]
    assert all((joints[:, 2] == 2).any() for _, joints in found)


def test_ground_truth_is_cocos(people):
    truth = people.ground_truth
    assert [image["id"] for image in truth["images"]] == [
        people.read(g[0]).truth.image_id for g in people.pictures().values()
    ]
    assert {(image["height"], image["width"]) for image in truth["images"]} == {SIZE}
    assert len(truth["annotations"]) == LENGTH
    for index, annotation in enumerate(truth["annotations"]):
        person = people.read(index).truth
        assert annotation["keypoints"] == person.joints.reshape(51).tolist()
        assert annotation["num_keypoints"] == np.count_nonzero(person.joints[:, 2])
        assert (annotation["id"], annotation["image_id"]) == (index + 1, person.image_id)
        assert (tuple(annotation["bbox"]), annotation["area"]) == (person.box, person.area)
        assert (annotation["category_id"], annotation["iscrowd"]) == (1, 0)
    (category,) = truth["categories"]
    assert (category["id"], category["name"], category["keypoints"]) == (1, "person", list(COCO_SKELETON.names))
    assert {tuple(bone) for bone in category["skeleton"]} == {(a + 1, b + 1) for a, b in COCO_SKELETON.bones}


def test_poses_differ(people):
    """Arms and legs, seen against the trunk, point everywhere: no mean pose would do."""
    angles = []
    for index in range(LENGTH):
        joints = people.read(index).truth.joints
        for part, end in ((5, 7), (7, 9), (11, 13), (13, 15)):
            if joints[part, 2] and joints[end, 2]:
                across, down = joints[end, :2] - joints[part, :2]
                angles.append(np.degrees(np.arctan2(across, down)))
    assert np.std(angles) > 20


def test_first_samples_are_the_same_at_any_length_and_in_any_process(people, tmp_path):
    fewer = ToyCityPeople("test", size=SIZE, length=5, cache=tmp_path)
    moved = pickle.loads(pickle.dumps(fewer))
    assert all(same(people, fewer, index) and same(moved, fewer, index) for index in range(5))
    other = ToyCityPeople("test", size=SIZE, length=5, seed=1, cache=tmp_path)
    assert not any(same(other, fewer, index) for index in range(5))


def test_the_second_start_reads_the_cache_and_a_harmed_file_is_made_again(tmp_path, monkeypatch):
    calls = []
    render = scenes.render
    monkeypatch.setattr(scenes, "render", lambda *given: calls.append(1) or render(*given))
    first = ToyCityPeople("train", size=SIZE, length=3, cache=tmp_path)
    count = len(calls)
    again = ToyCityPeople("train", size=SIZE, length=3, cache=tmp_path)
    assert len(calls) == count
    assert all(same(first, again, index) for index in range(3))
    (file,) = tmp_path.iterdir()
    with np.load(file, allow_pickle=False) as arrays:
        whole = dict(arrays)
    for name, wrong in (("boxes", whole["boxes"][:2]), ("picture", whole["picture"] + 1), ("areas", None)):
        kept = {key: value for key, value in (whole | {name: wrong}).items() if value is not None}
        np.savez(file, **kept)
        assert same(first, ToyCityPeople("train", size=SIZE, length=3, cache=tmp_path), 2)
    assert len(calls) == 4 * count


def test_reading_gives_copies_and_errors_say_what_to_do(people, tmp_path):
    before = people.read(0).truth.joints.copy()
    people.read(0).truth.joints[:] = 0
    people.read(0).content[:] = 0
    assert np.array_equal(people.read(0).truth.joints, before)
    assert people.read(0).content.any()
    with pytest.raises(IndexError, match=r"persons 0\.\.13, got 14"):
        people.read(LENGTH)
    with pytest.raises(InputError, match="Did you mean 'train'"):
        ToyCityPeople("trian", cache=tmp_path)
    with pytest.raises(InputError, match=r"is 32x64; .* at least 64 pixels\. .* such as 192x256"):
        ToyCityPeople("train", size=(32, 64), cache=tmp_path)
    with pytest.raises(InputError, match="length is 0; at least 1"):
        ToyCityPeople("train", length=0, cache=tmp_path)
