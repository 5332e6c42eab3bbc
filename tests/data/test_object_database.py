"""The database of objects: what is in it, when its file is used and when it is made anew, what is drawn from it."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.small_scenes import (
    CAR,
    CYCLIST,
    NAMES,
    OTHER_CAR,
    VAN,
    WALKER,
    boxes3d,
    open_set,
    points_on,
    scene,
    without_objects,
    write_set,
)
from hrnas.data import object_database
from hrnas.data.kitti import SPLIT_SOURCES, KittiSet, find_frames
from hrnas.data.kitti_classes import CLASSES, COLORS
from hrnas.data.kitti_frames import boxes_of
from hrnas.data.object_database import LEAST_POINTS, ObjectDatabase, open_database
from hrnas.errors import InputError
from hrnas.geometry.boxes import points_in_boxes
from hrnas.structures import Sample, Scene

KITTI_MINI = Path(__file__).parents[3] / "shared" / "data" / "kitti_mini"
WANTED = (15, 10, 10)

Reads = list[int]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """The scenes read so far, by any set."""
    seen: Reads = []

    def read(self: KittiSet, index: int) -> Sample[Scene]:
        seen.append(index)
        return whole(self, index)

    whole = KittiSet.read
    monkeypatch.setattr(KittiSet, "read", read)
    return seen


@pytest.fixture
def samples() -> list[Sample[Scene]]:
    return [
        scene({CAR: "Car", WALKER: "Pedestrian", VAN: "Van"}, index=0, seed=1),
        scene({}, index=1, seed=2),
        scene({OTHER_CAR: "Car", CYCLIST: "Cyclist"}, index=2, points=LEAST_POINTS, seed=3),
        scene({CAR: "Car"}, index=3, points=LEAST_POINTS - 1, seed=4),
    ]


@pytest.fixture
def dataset(samples: list[Sample[Scene]], tmp_path: Path) -> KittiSet:
    return write_set(tmp_path / "training", samples)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def opened(dataset: KittiSet, cache: Path) -> ObjectDatabase:
    database = open_database(dataset, WANTED, cache)
    assert database is not None
    return database


def equal(one: ObjectDatabase, other: ObjectDatabase) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) and getattr(one, name).dtype == value.dtype
        for name, value in vars(other).items()
    )


def the_file(cache: Path) -> Path:
    (file,) = cache.iterdir()
    return file


def test_objects_of_the_classes_with_enough_points_are_in_it(dataset: KittiSet, cache: Path) -> None:
    found = opened(dataset, cache)
    assert len(found) == 4
    assert found.boxes == pytest.approx(np.array([CAR, WALKER, OTHER_CAR, CYCLIST]), abs=1e-9)
    assert found.labels.tolist() == [0, 1, 0, 2]
    assert found.scenes.tolist() == [0, 0, 2, 2]
    # The points of an object have reflectances of their own, which tell them from all others.
    for index, (place, count, seed) in enumerate([(0, 30, 1), (1, 30, 1), (0, 5, 3), (1, 5, 3)]):
        box, rng = (CAR, WALKER, OTHER_CAR, CYCLIST)[index], np.random.default_rng(seed)
        before = [(CAR, WALKER), (CAR, WALKER), (OTHER_CAR, CYCLIST), (OTHER_CAR, CYCLIST)][index]
        clouds = [points_on(other, count, rng, at + 1.0) for at, other in enumerate(before)]
        assert np.array_equal(found.points_of(index), clouds[place]), box


@pytest.mark.parametrize("wanted", [(), (0, 0, 0)])
def test_who_wants_no_objects_reads_nothing(dataset: KittiSet, cache: Path, reads: Reads, wanted: Any) -> None:
    assert open_database(dataset, wanted, cache) is None
    assert not reads
    assert not cache.exists()


def test_the_second_time_no_scene_is_read(dataset: KittiSet, cache: Path, reads: Reads) -> None:
    first = opened(dataset, cache)
    assert reads == [0, 1, 2, 3]
    again = opened(open_set(dataset.frames[0].points.parents[1]), cache)
    assert reads == [0, 1, 2, 3]
    assert equal(again, first)


def test_the_cache_of_hrnas_is_used(dataset: KittiSet, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRNAS_CACHE", str(cache))
    assert open_database(dataset, WANTED) is not None
    assert the_file(cache).name.startswith("objects-v")


def older(file: Path) -> None:
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns - 1))


def shorter(file: Path) -> None:
    """Take the last line away, and give the file the time it had."""
    status = file.stat()
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [
    lambda frame: older(frame.points), lambda frame: older(frame.calibration), lambda frame: older(frame.labels),
    lambda frame: shorter(frame.labels),
])  # fmt: skip
def test_it_is_made_anew_when_a_file_has_changed(
    dataset: KittiSet, cache: Path, reads: Reads, change: Callable[[Any], None]
) -> None:
    opened(dataset, cache)
    reads.clear()
    change(dataset.frames[2])
    opened(dataset, cache)
    assert reads == [0, 1, 2, 3]


def test_a_file_that_is_not_there_any_more_is_told(dataset: KittiSet, cache: Path) -> None:
    dataset.frames[2].calibration.unlink()
    with pytest.raises(InputError, match=r"calib/000002\.txt, a file of .* frame 000002, cannot be found any more \("):
        open_database(dataset, WANTED, cache)


def test_it_is_made_anew_for_other_frames_classes_and_versions(
    dataset: KittiSet, cache: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(dataset, cache)
    reads.clear()
    assert opened(replace(dataset, frames=dataset.frames[1:]), cache).scenes.tolist() == [1, 1]
    assert reads == [0, 1, 2]
    reads.clear()
    turned = replace(dataset, names=NAMES[::-1], classes=CLASSES[::-1])
    assert opened(turned, cache).labels.tolist() == [2, 1, 2, 0]
    assert reads == [0, 1, 2, 3]
    reads.clear()
    monkeypatch.setattr(object_database, "VERSION", 0)
    opened(dataset, cache)
    assert reads == [0, 1, 2, 3]


def without(name: str) -> Callable[[Path], None]:
    return lambda file: rewrite(file, lambda arrays: {key: value for key, value in arrays.items() if key != name})


def changed(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    return lambda file: rewrite(file, lambda arrays: {**arrays, name: change(arrays[name])})


def rewrite(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    with np.load(file) as arrays:
        kept = dict(arrays)
    np.savez(file, **change(kept))


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 4
    file.write_bytes(content)


def encrypt(file: Path) -> None:
    """Say of the archive's first file that it is encrypted."""
    content = bytearray(file.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [
    lambda file: file.write_bytes(b""),
    lambda file: file.write_bytes(file.read_bytes()[:-200]),
    lambda file: file.write_bytes(b"not an archive"),
    flip_a_bit,
    encrypt,
    without("ends"),
    changed("boxes", lambda boxes: boxes[:, :6]),
    changed("points", lambda points: points.astype(np.float64)),
    changed("points", lambda points: points[1:]),
    changed("labels", lambda labels: labels + 2),
    changed("scenes", lambda scenes: scenes[1:]),
    changed("scenes", lambda scenes: scenes + 3),
    changed("ends", lambda ends: ends[::-1]),
])  # fmt: skip
def test_a_damaged_file_is_made_anew(
    dataset: KittiSet, cache: Path, reads: Reads, damage: Callable[[Path], None]
) -> None:
    first = opened(dataset, cache)
    damage(the_file(cache))
    reads.clear()
    assert equal(opened(dataset, cache), first)
    assert reads == [0, 1, 2, 3]
    assert equal(opened(dataset, cache), first)
    assert reads == [0, 1, 2, 3], "the file is mended"


def test_an_unwritable_cache_costs_only_time(dataset: KittiSet, tmp_path: Path, reads: Reads) -> None:
    (tmp_path / "file").write_text("in the way")
    assert len(opened(dataset, tmp_path / "file" / "cache")) == 4
    assert len(opened(dataset, tmp_path / "file" / "cache")) == 4
    assert len(reads) == 8


def test_a_full_disk_leaves_no_half_file(dataset: KittiSet, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(stream: Any, **arrays: Any) -> None:
        stream.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(opened(dataset, cache)) == 4
    assert list(cache.iterdir()) == []


def test_a_set_without_objects_has_an_empty_database(
    samples: list[Sample[Scene]], tmp_path: Path, cache: Path, reads: Reads
) -> None:
    dataset = write_set(tmp_path / "empty", [without_objects(sample) for sample in samples])
    for _ in range(2):
        found = opened(dataset, cache)
        assert len(found) == 0
        assert found.points.shape == (0, 4)
        assert found.boxes.shape == (0, 7)
        assert found.drawn(0, 5, 0, np.random.default_rng(0)).tolist() == []
    assert len(reads) == len(samples)


@pytest.fixture
def many() -> ObjectDatabase:
    """Ten objects of class 0 and four of class 1 in each of five scenes, without points."""
    labels = np.tile(np.repeat([0, 1], [10, 4]), 5)
    return ObjectDatabase(
        points=np.zeros((0, 4), np.float32),
        ends=np.zeros(70, np.int64),
        boxes=boxes3d(*[CAR] * 70).boxes,
        labels=labels,
        scenes=np.repeat(np.arange(5), 14),
    )


def test_drawn_are_different_objects_of_the_class_of_other_scenes(many: ObjectDatabase) -> None:
    counts = np.zeros(70, int)
    for seed in range(400):
        drawn = many.drawn(0, 8, 3, np.random.default_rng(seed))
        assert len(set(drawn.tolist())) == 8
        counts[drawn] += 1
        assert np.array_equal(drawn, many.drawn(0, 8, 3, np.random.default_rng(seed)))
    allowed = (many.labels == 0) & (many.scenes != 3)
    assert not counts[~allowed].any()
    # 400 draws of 8 among 40: each 80 times, give or take four standard deviations of 8.
    assert counts[allowed].min() > 48
    assert counts[allowed].max() < 112


def test_drawn_are_all_there_are_when_more_are_asked_for(many: ObjectDatabase) -> None:
    rng = np.random.default_rng(0)
    assert sorted(many.drawn(1, 99, 0, rng)) == [index for index in range(14, 70) if many.labels[index] == 1]
    assert len(many.drawn(1, 0, 0, rng)) == len(many.drawn(1, -3, 0, rng)) == len(many.drawn(2, 5, 0, rng)) == 0


@pytest.mark.skipif(not KITTI_MINI.is_dir(), reason="../shared/data/kitti_mini is not there")
def test_the_objects_of_real_frames(cache: Path) -> None:
    dataset = KittiSet(
        frames=find_frames(KITTI_MINI, SPLIT_SOURCES["train"], "train"), names=NAMES, colors=COLORS, classes=CLASSES
    )
    found = opened(dataset, cache)
    index = 0
    for number in range(len(dataset)):
        sample = dataset.read(number)
        known = boxes_of(sample.truth.objects, NAMES, sample.truth.calibration)
        inside = points_in_boxes(sample.content, known.boxes)
        for box, label, mask in zip(known.boxes, known.labels, inside, strict=True):
            if mask.sum() >= LEAST_POINTS:
                assert np.array_equal(found.boxes[index], box)
                assert (found.labels[index], found.scenes[index]) == (label, number)
                assert np.array_equal(found.points_of(index), sample.content[mask])
                index += 1
    assert index == len(found) == 36
    assert np.bincount(found.labels).tolist() == [19, 12, 5]
