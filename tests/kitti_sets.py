"""Tiny sets in KITTI's layout on disk: a camera like KITTI's, clouds with objects in them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hrnas.data.kitti_files import write_calibration, write_objects, write_points
from hrnas.data.kitti_frames import to_objects
from hrnas.structures import Boxes3D, Calibration, KittiObjects

IMAGE_SIZE: Final = (188, 621)
MINI: Final = Path(__file__).parents[2] / "shared" / "data" / "kitti_mini"

CAR: Final = (12.0, 2.0, -0.95, 3.9, 1.6, 1.56, 0.1)
WALKER: Final = (9.0, -3.0, -0.85, 0.8, 0.6, 1.73, 1.2)
SCENES: Final[Mapping[str, Sequence[tuple[str, tuple[float, ...]]]]] = {
    "000000": (("Car", CAR), ("Pedestrian", WALKER)),
    "000001": (("Cyclist", (15.0, 1.0, -0.9, 1.76, 0.6, 1.73, -2.0)), ("Van", (25.0, -4.0, -0.7, 5.0, 1.9, 2.2, 0.0))),
    "000002": (("Car", (20.0, -1.0, -0.9, 4.2, 1.7, 1.5, 3.0)),),
}


def camera(rng: np.random.Generator | None = None, tilt: float = 0.02) -> Calibration:
    """Return a camera ahead of the lidar and above it; with a generator turned by about `tilt` radians on each axis."""
    turned = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    angles = np.zeros((2, 3)) if rng is None else rng.normal(0, tilt, (2, 3))
    focal, shift = 360.0, np.array([0.02, -0.08, -0.27])
    return Calibration(
        p2=np.array([[focal, 0, 310, 22.4], [0, focal, 86, 0.1], [0, 0, 1, 0.003]]),
        r0_rect=_rotation(angles[0]),
        tr_velo_to_cam=np.concatenate([_rotation(angles[1]) @ turned, shift[:, None]], 1),
    )


def labelled(scene: Sequence[tuple[str, tuple[float, ...]]], calibration: Calibration) -> KittiObjects:
    """Return objects from types and boxes in the lidar's frame, wholly seen."""
    names = [name for name, _ in scene]
    boxes = np.array([box for _, box in scene], np.float64).reshape(-1, 7)
    found = to_objects(
        Boxes3D(boxes=boxes, labels=np.arange(len(names)), scores=np.ones(len(names))), names, calibration, IMAGE_SIZE
    )
    return KittiObjects(
        **{**vars(found), "truncated": np.zeros(len(found)), "occluded": np.zeros(len(found), np.int64)}
    )


def cloud(scene: Sequence[tuple[str, tuple[float, ...]]], seed: int = 0) -> NDArray[np.float32]:
    """Return ground all around and 40 points inside each box, float32 (P, 4)."""
    rng = np.random.default_rng(seed)
    parts = [np.stack([*rng.uniform(-30, 30, (2, 400)), np.full(400, -1.73)], 1)]
    for _, (x, y, z, length, width, height, yaw) in scene:
        along, across, up = (rng.uniform(-0.45, 0.45, (40, 3)) * (length, width, height)).T
        parts.append(
            np.stack(
                [
                    x + along * np.cos(yaw) - across * np.sin(yaw),
                    y + along * np.sin(yaw) + across * np.cos(yaw),
                    z + up,
                ],
                1,
            )
        )
    points = np.concatenate(parts)
    return np.concatenate([points, rng.uniform(0, 1, (len(points), 1))], 1).astype(np.float32)


def write_frame(
    root: Path, name: str, scene: Sequence[tuple[str, tuple[float, ...]]], *, image: str | None = ".png"
) -> None:
    """Write a frame's files below root (training/)."""
    for part in ("velodyne", "calib", "label_2", "image_2"):
        (root / part).mkdir(parents=True, exist_ok=True)
    calibration = camera()
    write_points(root / "velodyne" / f"{name}.bin", cloud(scene, int(name)))
    write_calibration(root / "calib" / f"{name}.txt", calibration)
    write_objects(root / "label_2" / f"{name}.txt", labelled(scene, calibration))
    if image is not None:
        pixels = np.random.default_rng(int(name)).integers(0, 256, (*IMAGE_SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(root / "image_2" / f"{name}{image}")


def write_set(path: Path, *, image: str | None = ".png") -> Path:
    """Write SCENES with two training frames and one of validation; return the path."""
    for name, scene in SCENES.items():
        write_frame(path / "training", name, scene, image=image)
    (path / "ImageSets").mkdir(exist_ok=True)
    (path / "ImageSets" / "train.txt").write_text("000001\n000000\n")
    (path / "ImageSets" / "val.txt").write_text("000002\n")
    return path


def read_results(file: Path) -> KittiObjects:
    """Return the objects of a result file, 16 columns a line."""
    rows = [line.split() for line in file.read_text().splitlines()]
    table = np.array([[float(value) for value in row[1:]] for row in rows], np.float64).reshape(-1, 15)
    return KittiObjects(
        types=tuple(row[0] for row in rows),
        truncated=table[:, 0],
        occluded=table[:, 1].astype(np.int64),
        alphas=table[:, 2],
        boxes_2d=table[:, 3:7],
        sizes=table[:, 7:10],
        locations=table[:, 10:13],
        rotations=table[:, 13],
        scores=table[:, 14],
    )


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation by angles about x, then y, then z."""
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result
