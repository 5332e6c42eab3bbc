"""KITTI's files: what is written is read back to the bit, what is not as it must be is said in a line."""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrnas.data.kitti_files import (
    no_objects,
    read_calibration,
    read_objects,
    read_points,
    write_calibration,
    write_objects,
    write_points,
)
from hrnas.errors import InputError
from hrnas.structures import Calibration, KittiObjects
from kitti_sets import MINI, camera, read_results

CAR = "Car 0.00 1 -1.57 599.41 156.40 629.75 189.25 1.50 1.63 3.90 0.47 1.49 20.44 -1.56"
DONT_CARE = "DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10"
ROWS = {
    "P0": "1 0 0 0 0 1 0 0 0 0 1 0",
    "P2": "700 0 600 40 0 700 170 0.5 0 0 1 0.002",
    "R0_rect": "1 0 0 0 1 0 0 0 1",
    "Tr_velo_to_cam": "0 -1 0 0 0 0 -1 -0.1 1 0 0 -0.3",
}


def same(first: Any, second: Any) -> bool:
    """Whether all fields agree to the bit, the sign of a zero included."""
    return all(
        left.tobytes() == right.tobytes() if isinstance(left, np.ndarray) else left == right
        for left, right in ((getattr(first, part.name), getattr(second, part.name)) for part in fields(first))
    )


def random_objects(count: int, seed: int) -> KittiObjects:
    rng = np.random.default_rng(seed)
    return KittiObjects(
        types=tuple(str(name) for name in rng.choice(["Car", "Pedestrian", "Cyclist"], count)),
        truncated=np.where(rng.random(count) < 0.5, -1.0, rng.random(count)),
        occluded=rng.integers(-1, 4, count),
        alphas=rng.uniform(-np.pi, np.pi, count),
        boxes_2d=rng.uniform(0, 1242, (count, 4)),
        sizes=rng.uniform(0.3, 12, (count, 3)),
        locations=rng.normal(0, 30, (count, 3)),
        rotations=rng.uniform(-np.pi, np.pi, count),
        scores=10.0 ** rng.uniform(-9, 0, count),
    )


def write(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def calibration_text(**changes: str | None) -> str:
    rows = {**ROWS, **changes}
    return "".join(f"{name}: {row}\n" for name, row in rows.items() if row is not None)


def message_of(read: Any, file: Path, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        read(file, **options)
    message = str(error.value)
    assert "\n" not in message
    assert str(file) in message
    return message


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_points_are_read_back_as_they_are(tmp_path: Path, count: int) -> None:
    points = np.random.default_rng(0).normal(0, 30, (count, 4)).astype(np.float32)
    write_points(tmp_path / "a.bin", points)
    assert (tmp_path / "a.bin").stat().st_size == 16 * count
    read = read_points(tmp_path / "a.bin")
    assert (read.dtype, read.shape) == (np.float32, (count, 4))
    assert np.array_equal(read, points)
    read[:] = 0  # who reads may change what was read


def test_a_points_file_that_is_cut_off_is_told(tmp_path: Path) -> None:
    write_points(tmp_path / "a.bin", np.ones((9, 4), np.float32))
    (tmp_path / "a.bin").write_bytes((tmp_path / "a.bin").read_bytes()[:-3])
    assert "has 141 bytes, which is no multiple of 16" in message_of(read_points, tmp_path / "a.bin")
    assert "does not exist" in message_of(read_points, tmp_path / "b.bin")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", range(4))
def test_points_that_are_no_numbers_are_told(tmp_path: Path, value: float, column: int) -> None:
    points = np.ones((9, 4), np.float32)
    points[6:8, column] = value
    write_points(tmp_path / "a.bin", points)
    message = message_of(read_points, tmp_path / "a.bin")
    assert "has 2 points with a value that is nan or infinite, the first is point 7 of 9" in message


def test_a_calibration_is_read_back_to_the_bit(tmp_path: Path) -> None:
    calibration = camera(np.random.default_rng(3))
    write_calibration(tmp_path / "a.txt", calibration)
    assert same(read_calibration(tmp_path / "a.txt"), calibration)
    names = [line.split(":")[0] for line in (tmp_path / "a.txt").read_text().splitlines()]
    assert names == [
        "P0",
        "P1",
        "P2",
        "P3",
        "R0_rect",
        "Tr_velo_to_cam",
        "Tr_imu_to_velo",
    ]  # KITTI's rows, in its order


def test_a_calibration_is_read_by_the_rows_names(tmp_path: Path) -> None:
    read = read_calibration(write(tmp_path / "a.txt", "\n" + calibration_text(extra="no numbers")))
    assert read.p2.tolist() == [[700, 0, 600, 40], [0, 700, 170, 0.5], [0, 0, 1, 0.002]]
    assert read.r0_rect.tolist() == np.eye(3).tolist()
    assert read.tr_velo_to_cam.tolist() == [[0, -1, 0, 0], [0, 0, -1, -0.1], [1, 0, 0, -0.3]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (calibration_text(R0_rect=None), "lacks the row R0_rect; it must have P2, R0_rect, Tr_velo_to_cam. Restore it"),
        (calibration_text(P2=None, Tr_velo_to_cam=None), "lacks the rows P2, Tr_velo_to_cam;"),
        ("", "lacks the rows P2, R0_rect, Tr_velo_to_cam;"),
        (calibration_text(P2="1 2 3"), "line 2: row P2 has 3 values; it must have 12"),
        (calibration_text(P2=ROWS["P2"] + " 1"), "line 2: row P2 has 13 values"),
        (calibration_text(R0_rect="1 0 0 0 one 0 0 0 1"), "line 3: R0_rect value 'one' is not a finite number"),
        (calibration_text(R0_rect="1 0 0 0 nan 0 0 0 1"), "line 3: R0_rect value 'nan' is not a finite number"),
        (calibration_text() + calibration_text(), "line 6: row P2 is given twice"),
        (calibration_text(R0_rect="1 0 0 0 1 0 0 0 0"), "row R0_rect cannot be inverted"),
        (calibration_text(Tr_velo_to_cam=" ".join(["0"] * 12)), "row Tr_velo_to_cam cannot be inverted"),
    ],
)
def test_a_calibration_that_is_not_as_it_must_be_is_told(tmp_path: Path, text: str, message: str) -> None:
    assert message in message_of(read_calibration, write(tmp_path / "a.txt", text))


def test_labels_are_read_by_their_columns(tmp_path: Path) -> None:
    read = read_objects(write(tmp_path / "a.txt", f"{CAR}\n\n{DONT_CARE}\n"))
    assert read.types == ("Car", "DontCare")
    assert read.truncated.tolist() == [0, -1]
    assert (read.occluded.tolist(), read.occluded.dtype) == ([1, -1], np.int64)
    assert read.alphas.tolist() == [-1.57, -10]
    assert read.boxes_2d.tolist() == [[599.41, 156.40, 629.75, 189.25], [503.89, 169.71, 590.61, 190.13]]
    assert read.sizes.tolist() == [[1.5, 1.63, 3.9], [-1, -1, -1]]
    assert read.locations.tolist() == [[0.47, 1.49, 20.44], [-1000, -1000, -1000]]
    assert read.rotations.tolist() == [-1.56, -10]
    assert read.scores.tolist() == [1, 1]


@pytest.mark.parametrize("scored", [False, True])
def test_objects_are_read_back_to_the_bit(tmp_path: Path, scored: bool) -> None:
    objects = random_objects(200, seed=1)
    file = tmp_path / "a.txt"
    write_objects(file, objects, scored=scored)
    read = read_results(file) if scored else read_objects(file)
    assert same(read, objects if scored else replace(objects, scores=np.ones(200)))
    # The kit's readme: a type, then numbers, 15 columns and the score; %lf reads plain decimals wherever it is built.
    number = r"-?\d+\.\d{2,}"
    line = rf"\w+ (-1|{number}) -?\d {' '.join([number] * (13 if scored else 12))}"
    texts = file.read_text().splitlines()
    assert all(re.fullmatch(line, text) for text in texts)
    assert [text.split()[1] == "-1" for text in texts] == (objects.truncated == -1).tolist()


def test_the_mark_before_a_text_of_windows_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"{CAR}\n{DONT_CARE}\n", encoding="utf-8-sig")
    (tmp_path / "b.txt").write_text(calibration_text(P0=None), encoding="utf-8-sig")
    assert read_objects(tmp_path / "a.txt").types == ("Car", "DontCare")
    assert read_calibration(tmp_path / "b.txt").p2[0].tolist() == [700, 0, 600, 40]


@pytest.mark.parametrize("scored", [False, True])
def test_a_frame_without_objects_is_an_empty_file(tmp_path: Path, scored: bool) -> None:
    write_objects(tmp_path / "a.txt", no_objects(), scored=scored)
    assert (tmp_path / "a.txt").read_bytes() == b""
    read = read_objects(tmp_path / "a.txt")
    assert len(read) == 0
    assert (read.boxes_2d.shape, read.locations.shape, read.scores.shape) == ((0, 4), (0, 3), (0,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CAR.rsplit(" ", 1)[0], "line 2 has 14 columns; it must have 15. Mend that line: type, truncated"),
        (f"{CAR} 0.9", "line 2 has 16 columns; it must have 15 (16 columns are a result file's"),
        (f"{CAR} 0.9 1", "line 2 has 17 columns; it must have 15."),
        (CAR.replace("1.63", "wide"), "line 2, column 10: 'wide' is not a finite number"),
        (CAR.replace("-1.57", "nan"), "line 2, column 4: 'nan' is not a finite number"),
        (CAR.replace(" 1 ", " 4 "), "line 2, column 3: occluded is '4'; it must be 0, 1, 2, 3, or -1"),
        (CAR.replace(" 1 ", " 0.5 "), "line 2, column 3: occluded is '0.5'"),
    ],
)
def test_lines_that_are_not_as_they_must_be_are_told(tmp_path: Path, text: str, message: str) -> None:
    assert message in message_of(read_objects, write(tmp_path / "a.txt", f"{DONT_CARE}\n{text}\n"))


def test_what_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"Car \xff\xfe")
    assert "is not a text file" in message_of(read_objects, tmp_path / "a.txt")
    assert "does not exist" in message_of(read_calibration, tmp_path / "b.txt")
    assert "cannot be read" in message_of(read_calibration, tmp_path)


@pytest.mark.skipif(not MINI.is_dir(), reason="the KITTI frames (../shared/data/kitti_mini) are not on this machine")
def test_real_labels_are_written_as_kitti_writes_them(tmp_path: Path) -> None:
    files = sorted((MINI / "training" / "label_2").glob("*.txt"))
    assert len(files) == 14
    for file in files:
        write_objects(tmp_path / file.name, read_objects(file))
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


@pytest.mark.skipif(not MINI.is_dir(), reason="the KITTI frames (../shared/data/kitti_mini) are not on this machine")
def test_real_calibrations_and_points_are_read_back(tmp_path: Path) -> None:
    calibration = read_calibration(MINI / "training" / "calib" / "000142.txt")
    write_calibration(tmp_path / "a.txt", calibration)
    again: Calibration = read_calibration(tmp_path / "a.txt")
    assert same(again, calibration)
    file = MINI / "training" / "velodyne" / "000134.bin"
    points = read_points(file)
    assert len(points) == 19_097
    assert (points[:, 3] >= 0).all()
    assert (points[:, 3] <= 1).all()
    write_points(tmp_path / "a.bin", points)
    assert (tmp_path / "a.bin").read_bytes() == file.read_bytes()
