"""Toy City's drives as files: KITTI's layout for a reader of KITTI, a careful cache, whole sets for users."""

import json
import multiprocessing
import os
import pickle
import shutil
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from hrnas.data.data_yaml import parse_description, read_description
from hrnas.data.kitti import IMAGE_SIZE, KittiSet
from hrnas.data.kitti_classes import CLASSES
from hrnas.data.kitti_files import read_calibration, read_objects, read_points
from hrnas.data.kitti_frames import in_view
from hrnas.data.opening import open_split
from hrnas.data.toycity import drive_sets
from hrnas.data.toycity.drive_sets import open_toycity_scenes, write_kitti_set
from hrnas.data.toycity.drives import Recording, draw_recording
from hrnas.errors import InputError


def small_frame(split: str, number: int, seed: int) -> Recording:
    """Return a frame that takes no time: eight points, which tell of split, number and seed."""
    points = np.zeros((8, 4), np.float32)
    points[:, 0], points[:, 1] = 40 + seed, number
    points[:, 3] = len(split) / 16
    p2 = np.array([[10.0, 0, 20, 0], [0, 10, 6, 0], [0, 0, 1, 0]])  # of a small image, in which the points are
    calibration = replace(real_frame().calibration, p2=p2)
    return replace(real_frame(), points=points, image=np.zeros((12, 40, 3), np.uint8), calibration=calibration)


@cache
def real_frame() -> Recording:
    return draw_recording("train", 0, 0)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """What was drawn, in order; frames are small ones."""
    calls: list[tuple[str, int, int]] = []

    def draw(split: str, number: int, seed: int) -> Recording:
        calls.append((split, number, seed))
        return small_frame(split, number, seed)

    monkeypatch.setattr(drive_sets, "draw_recording", draw)
    return calls


def same(a: KittiSet, b: KittiSet, index: int) -> bool:
    x, y = a.read(index).content, b.read(index).content
    assert len(x)
    return np.array_equal(x, y)


def test_the_reader_of_kitti_gives_back_the_frame(tmp_path):
    scenes = open_toycity_scenes("train", length=1, cache=tmp_path)
    sample = scenes.read(0)
    frame = real_frame()
    assert (len(scenes), scenes.names, scenes.classes) == (1, ("Car", "Pedestrian", "Cyclist"), CLASSES)
    assert (sample.content.dtype, sample.name) == (np.float32, "000000")
    assert np.array_equal(sample.content, frame.points[in_view(frame.points, frame.calibration, IMAGE_SIZE)])
    assert len(sample.content) > 12_000
    for name in ("p2", "r0_rect", "tr_velo_to_cam"):
        assert np.array_equal(getattr(sample.truth.calibration, name), getattr(frame.calibration, name))
    assert sample.truth.objects.types == frame.objects.types
    for name in ("truncated", "occluded", "alphas", "boxes_2d", "sizes", "locations", "rotations"):
        assert np.array_equal(getattr(sample.truth.objects, name), getattr(frame.objects, name)), name
    assert sample.truth.image_size == IMAGE_SIZE
    with Image.open(sample.truth.image) as image:
        assert np.array_equal(np.asarray(image), frame.image)
        assert image.format == "PNG"
    moved = pickle.loads(pickle.dumps(scenes))
    assert same(scenes, moved, 0)


def test_default_lengths_and_first_frames_are_the_same_at_any_length(drawn, tmp_path, monkeypatch):
    assert drive_sets.LENGTHS == {"train": 256, "validation": 64, "test": 64}
    lengths = {"train": 5, "validation": 3, "test": 4}
    monkeypatch.setattr(drive_sets, "LENGTHS", lengths)
    for split, length in lengths.items():
        assert len(open_toycity_scenes(split, cache=tmp_path)) == length
        assert drawn == [(split, number, 0) for number in range(length)]
        drawn.clear()
    fewer = open_toycity_scenes("test", length=2, cache=tmp_path)
    assert len(fewer) == 2
    assert all(same(fewer, open_toycity_scenes("test", cache=tmp_path), index) for index in range(2))


def test_the_second_start_reads_the_cache(drawn, tmp_path):
    first = open_toycity_scenes("train", length=3, cache=tmp_path / "new" / "folder")
    again = open_toycity_scenes("train", length=3, cache=tmp_path / "new" / "folder")
    assert len(drawn) == 3
    assert all(same(first, again, index) for index in range(3))
    open_toycity_scenes("train", length=3, seed=1, cache=tmp_path / "new" / "folder")
    assert len(drawn) == 6
    names = sorted(file.name for file in (tmp_path / "new" / "folder").iterdir())
    assert names == [f"toycity-drives2-v1-seed{seed}-train-3" for seed in (0, 1)]


def test_the_usual_cache(drawn, tmp_path, monkeypatch):
    monkeypatch.setenv("HRNAS_CACHE", str(tmp_path / "own"))
    open_toycity_scenes("test", length=1)
    assert len(list((tmp_path / "own").iterdir())) == 1


@pytest.mark.parametrize(
    "harm", ["cut", "flipped", "missing", "list", "no contents", "contents cut", "foreign", "emptied", "names"]
)
def test_a_harmed_split_is_made_anew(drawn, tmp_path, harm):
    first = open_toycity_scenes("train", length=2, cache=tmp_path)
    (folder,) = tmp_path.iterdir()
    points = folder / "training" / "velodyne" / "000001.bin"
    whole = {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    kept = [first.read(index).content for index in range(2)]
    contents = folder / "contents.json"
    if harm == "cut":
        points.write_bytes(points.read_bytes()[:-16])
    elif harm == "flipped":
        content = points.read_bytes()
        points.write_bytes(content[:5] + bytes([content[5] ^ 1]) + content[6:])
    elif harm == "missing":
        (folder / "training" / "calib" / "000000.txt").unlink()
    elif harm == "list":
        (folder / "ImageSets" / "train.txt").write_text("000001\n")
    elif harm == "no contents":
        contents.unlink()
    elif harm == "contents cut":
        contents.write_text(contents.read_text()[:-9])
    elif harm == "foreign":
        contents.write_text("[1, 2]")
    elif harm == "names":
        contents.write_text(json.dumps(dict(list(json.loads(contents.read_text()).items())[:4])))
    else:
        shutil.rmtree(folder)
        folder.mkdir()
    again = open_toycity_scenes("train", length=2, cache=tmp_path)
    assert len(drawn) == 4
    assert all(np.array_equal(again.read(index).content, kept[index]) for index in range(2))
    assert {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()} == whole
    assert list(tmp_path.iterdir()) == [folder]  # nothing is left beside it


def test_one_that_was_stopped_leaves_nothing_behind(tmp_path, monkeypatch):
    def stop(split: str, number: int, seed: int) -> Recording:
        if number == 2:
            raise KeyboardInterrupt
        return small_frame(split, number, seed)

    monkeypatch.setattr(drive_sets, "draw_recording", stop)
    with pytest.raises(KeyboardInterrupt):
        open_toycity_scenes("train", length=3, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_process_that_was_faster_is_believed(drawn, tmp_path, monkeypatch):
    def drawn_meanwhile(split: str, number: int, seed: int) -> Recording:
        with monkeypatch.context() as inner:
            inner.setattr(drive_sets, "draw_recording", small_frame)
            if number == 1:
                others.append(open_toycity_scenes("train", length=2, cache=tmp_path))
        return small_frame(split, number, seed)

    others: list[KittiSet] = []
    monkeypatch.setattr(drive_sets, "draw_recording", drawn_meanwhile)
    mine = open_toycity_scenes("train", length=2, cache=tmp_path)
    assert all(same(mine, others[0], index) for index in range(2))
    assert len(list(tmp_path.iterdir())) == 1


def _open_many(cache: Path, queue: "multiprocessing.Queue[int]") -> None:
    drive_sets.draw_recording = small_frame
    for length in range(1, 9):
        scenes = open_toycity_scenes("train", length=length, cache=cache)
        assert [int(scenes.read(index).content[0, 1]) for index in range(length)] == list(range(length))
    queue.put(1)


def test_processes_at_once_do_no_harm(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    for length in range(1, 9, 2):  # every second one lies there damaged
        (tmp_path / f"toycity-drives2-v1-seed0-train-{length}" / "training").mkdir(parents=True)
    others = [context.Process(target=_open_many, args=(tmp_path, queue)) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
    assert [other.exitcode for other in others] == [0, 0, 0]
    assert len(list(tmp_path.iterdir())) == 8


def test_errors_say_what_to_do(drawn, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"Unknown split 'trian' of Toy City\. Did you mean 'train'\?"):
        open_toycity_scenes("trian", cache=tmp_path)
    with pytest.raises(InputError, match="Toy City length is 0; at least 1"):
        open_toycity_scenes("train", length=0, cache=tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        InputError, match=r"cannot be written to .*file.*train-2 \(.*\); they take about 2 MB.*HRNAS_CACHE"
    ):
        open_toycity_scenes("train", length=2, cache=tmp_path / "file" / "below")

    def full_disk(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drive_sets, "write_points", full_disk)
    with pytest.raises(InputError, match=r"\(No space left on device\)"):
        open_toycity_scenes("train", length=2, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_progress_is_shown_while_frames_are_made(drawn, tmp_path):
    shown: list[object] = []

    @contextmanager
    def progress(what: str, total: int):
        shown.append((what, total))
        yield shown.append
        shown.append("end")

    for _ in range(2):
        open_toycity_scenes("validation", length=3, cache=tmp_path, progress=progress)
    assert shown == [("Driving through Toy City for validation", 3), 1, 2, 3, "end"]


def test_a_set_for_users(drawn, tmp_path):
    folder = tmp_path / "there" / "set"
    objects = write_kitti_set(folder, train=3, validation=2, test=1, seed=5)
    assert drawn == [("train", 0, 5), ("train", 1, 5), ("train", 2, 5), ("validation", 0, 5), ("validation", 1, 5),
                     ("test", 0, 5)]  # fmt: skip
    count = {name: 6 * real_frame().objects.types.count(name) for name in set(real_frame().objects.types)}
    assert objects == count
    assert next(iter(objects)) == "Car"
    lists = {file.name: file.read_text().split() for file in (folder / "ImageSets").iterdir()}
    assert lists == {
        "train.txt": ["000000", "000001", "000002"], "val.txt": ["000003", "000004"], "test.txt": ["000005"],
        "trainval.txt": ["000000", "000001", "000002", "000003", "000004"],
    }  # fmt: skip
    for part, ending in (("velodyne", ".bin"), ("calib", ".txt"), ("label_2", ".txt"), ("image_2", ".png")):
        files = sorted(file.name for file in (folder / "training" / part).iterdir())
        assert files == [f"{number:06d}{ending}" for number in range(6)]
    points = read_points(folder / "training" / "velodyne" / "000004.bin")
    assert np.array_equal(points, small_frame("validation", 1, 5).points)
    assert read_objects(folder / "training" / "label_2" / "000004.txt").types == real_frame().objects.types
    calibration = read_calibration(folder / "training" / "calib" / "000004.txt")
    assert np.array_equal(calibration.p2, small_frame("validation", 1, 5).calibration.p2)


def test_a_set_for_users_is_described(drawn, tmp_path):
    write_kitti_set(tmp_path, train=3, validation=2, test=1)
    description = read_description(tmp_path)
    lengths = {split: len(open_split(description, split)) for split in description.split_names}
    assert lengths == {"train": 3, "validation": 2, "test": 1}
    assert description.classes == CLASSES
    known = parse_description({"dataset": "kitti", "path": str(tmp_path)}, where="here", folder=tmp_path)
    assert [open_split(known, split).read(1).name for split in ("train", "validation")] == ["000001", "000004"]
    without = tmp_path / "without"
    write_kitti_set(without, train=1, validation=1, test=0)
    assert sorted(file.name for file in (without / "ImageSets").iterdir()) == ["train.txt", "trainval.txt", "val.txt"]
    assert "test" not in yaml.safe_load((without / "data.yaml").read_text())
    assert read_description(without).split_names == ("train", "validation")


def test_a_set_is_written_over_nothing(drawn, tmp_path):
    (tmp_path / "mine").write_text("of value")
    for folder in (tmp_path, tmp_path / "mine"):
        with pytest.raises(InputError, match=r"not an empty folder\. Name another"):
            write_kitti_set(folder, train=1, validation=1, test=1)
    for counts, got in (((0, 1, 1), 0), ((1, 0, 1), 0), ((1, 1, -1), -1)):
        with pytest.raises(InputError, match=f"length is {got}"):
            write_kitti_set(tmp_path / "new", **dict(zip(("train", "validation", "test"), counts, strict=True)))
    assert (drawn, os.listdir(tmp_path)) == ([], ["mine"])


def test_toy_city_is_opened_by_its_description(drawn, tmp_path, monkeypatch):
    monkeypatch.setenv("HRNAS_CACHE", str(tmp_path))
    plain = {"dataset": "toycity", "task": "detection3d", "length": {"validation": 2}, "seed": 3}
    description = parse_description(plain, where="here", folder=tmp_path)
    scenes = open_split(description, "validation")
    assert isinstance(scenes, KittiSet)
    assert drawn == [("validation", 0, 3), ("validation", 1, 3)]
    assert parse_description(description.to_dict(), where="here", folder=tmp_path) == description
    with pytest.raises(InputError, match=r"'size' is \[96, 128\].*\[375, 1242\]"):
        parse_description(plain | {"size": [96, 128]}, where="here", folder=tmp_path)
