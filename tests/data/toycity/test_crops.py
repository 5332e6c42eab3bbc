"""Toy City's crops as a set: the thing of the class is in the middle and the largest, classes alike in number."""

import pickle

import numpy as np
import pytest

from hrnas.data.toycity import ToyCityCrops, scenes
from hrnas.data.toycity.crops import find_crops
from hrnas.data.toycity.scenes import Scenes
from hrnas.data.toycity.world import NAMES

SIZE = (192, 256)
LENGTH = 11  # at this size every class is met within some twenty scenes


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> ToyCityCrops:
    return ToyCityCrops("test", size=SIZE, length=LENGTH, cache=tmp_path_factory.mktemp("crops"))


def same(a: ToyCityCrops, b: ToyCityCrops, index: int) -> bool:
    x, y = a.read(index), b.read(index)
    return np.array_equal(x.content, y.content) and (x.truth, x.name) == (y.truth, y.name)


def test_samples_are_as_promised(crops):
    assert len(crops) == LENGTH
    assert len(crops.names) == len(set(crops.colors)) == 11
    assert [crops.read(index).truth for index in range(LENGTH)] == list(range(11))
    assert len({crops.read(index).name for index in range(LENGTH)}) == LENGTH
    assert crops.pictures() == {crops.read(index).name: [index] for index in range(LENGTH)}
    sizes = {crops.read(index).content.shape for index in range(LENGTH)}
    assert len(sizes) > 5
    for height, width, _ in sizes:
        assert max(height, width) >= 20
        assert min(height, width) >= 5


def test_a_crop_is_the_part_of_the_scene_where_its_class_is(crops):
    """The thing is whole and in the middle, and what is not behind it is nearly always of its class for the most."""
    classes = {
        "car": "car", "van": "car", "lorry": "car", "bus": "car", "person": "person", "cyclist": "cyclist",
        "tree": "tree", "conifer": "tree", "lamp": "pole", "sign": "pole", "building": "building",
    }  # fmt: skip
    assert tuple(classes) == crops.names
    behind = [NAMES.index(name) for name in ("road", "pavement", "ground", "building", "sky")]
    found = np.zeros(len(classes), int)
    most = []
    city = Scenes("test", size=SIZE, seed=0, smallest=16, usual=SIZE)
    for number in range(12):
        world, random = city.draw(number)
        picture = city.picture(world, random)
        here = find_crops(world, picture)
        areas = [seen.area for _, _, seen in here]
        assert areas == sorted(areas, reverse=True)
        for label, (left, top, wide, high), seen in here:
            mask = picture.mask[top : top + high, left : left + wide]
            category = classes[crops.names[label]]
            assert world.things[seen.row].category == category
            counts = np.bincount(mask.reshape(-1), minlength=len(NAMES))
            assert counts[NAMES.index(category)] >= seen.area >= 100
            x, y, w, h = seen.box
            assert left <= x < x + w <= left + wide
            assert top <= y < y + h <= top + high
            if left > 0 and left + wide < SIZE[1]:
                assert x + w / 2 == pytest.approx(left + wide / 2, abs=1)
            counts[[index for index in behind if index != NAMES.index(category)]] = 0
            most.append(counts.argmax() == NAMES.index(category))
            found[label] += 1
    assert (found > 0).sum() >= 9
    assert np.mean(most) > 0.9


def test_crops_are_cut_from_the_scene_as_it_is(crops):
    city = Scenes("test", size=SIZE, seed=0, smallest=16, usual=SIZE)
    world, random = city.draw(0)
    picture = city.picture(world, random)
    taken = {label for label, _, _ in find_crops(world, picture)}
    for label in taken:
        left, top, wide, high = next(edges for one, edges, _ in find_crops(world, picture) if one == label)
        assert np.array_equal(crops.read(label).content, picture.image[top : top + high, left : left + wide])
    assert len(taken) > 2


def test_more_samples_begin_with_the_same_and_classes_stay_alike_in_number(crops, tmp_path):
    more = ToyCityCrops("test", size=SIZE, length=17, cache=tmp_path)
    assert all(same(more, crops, index) for index in range(LENGTH))
    assert np.bincount([more.read(index).truth for index in range(17)]).tolist() == [2] * 6 + [1] * 5
    moved = pickle.loads(pickle.dumps(more))
    assert all(same(more, moved, index) for index in range(17))


def test_the_second_start_reads_the_cache_and_a_harmed_file_is_made_again(tmp_path, monkeypatch):
    calls = []
    render = scenes.render
    monkeypatch.setattr(scenes, "render", lambda *given: calls.append(1) or render(*given))
    first = ToyCityCrops("train", size=SIZE, length=2, cache=tmp_path)
    count = len(calls)
    again = ToyCityCrops("train", size=SIZE, length=2, cache=tmp_path)
    assert len(calls) == count
    assert same(first, again, 0)
    assert same(first, again, 1)
    (file,) = tmp_path.iterdir()
    with np.load(file, allow_pickle=False) as arrays:
        whole = dict(arrays)
    np.savez(file, pixels=whole["pixels"][1:], sizes=whole["sizes"])
    assert same(first, ToyCityCrops("train", size=SIZE, length=2, cache=tmp_path), 1)
    assert len(calls) == 2 * count


def test_index_out_of_range_and_copies(crops):
    before = crops.read(3).content.copy()
    crops.read(3).content[:] = 0
    assert np.array_equal(crops.read(3).content, before)
    with pytest.raises(IndexError, match=r"crops 0\.\.10, got -1"):
        crops.read(-1)
