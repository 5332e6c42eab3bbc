"""Tiny keypoint sets on disk: one image or a few, people with a few joints."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hrnas.data.coco_keypoints import KeypointSet, open_keypoints
from hrnas.data.description import DataDescription
from hrnas.data.pictures import default_palette
from hrnas.structures import Skeleton
from hrnas.tasks import make_task
from hrnas.tasks.pose import Pose
from hrnas.tasks.task import EvaluationOptions, TargetOptions

NAMES = ("head", "left_shoulder", "right_shoulder", "left_hip", "right_hip")


def plain_set(**changes: Any) -> dict[str, Any]:
    """Return COCO's JSON of two images: two people and a crowd in the first, one unlabelled person in the second."""
    joints = [30, 10, 2, 40, 20, 2, 20, 20, 1, 36, 40, 2, 24, 40, 2]
    second = [70, 12, 2, 78, 22, 2, 0, 0, 0, 76, 38, 2, 66, 39, 2]
    nobody = [0] * 15
    plain: dict[str, Any] = {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 60, "width": 100},
            {"id": 9, "file_name": "b.png", "height": 60, "width": 100},
        ],
        "annotations": [
            person(3, 7, [15, 5, 30, 50], joints),
            person(4, 7, [60, 5.5, 25, 40], second),
            person(5, 7, [0, 0, 100, 60], nobody) | {"iscrowd": 1},
            person(6, 9, [10, 10, 20, 20], nobody),
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": list(NAMES), "skeleton": [[1, 2], [2, 4]]}],
    }
    return plain | changes


def person(number: int, image: int, box: list[float], joints: list[float]) -> dict[str, Any]:
    """Return a plain annotation."""
    area = 0.9 * box[2] * box[3]
    return {
        "id": number, "image_id": image, "category_id": 1, "bbox": box, "keypoints": joints, "area": area, "iscrowd": 0,
        "num_keypoints": sum(value > 0 for value in joints[2::3]),
    }  # fmt: skip


def write_set(root: Path, plain: Any) -> Path:
    """Write the JSON, as text where it is one, and the images it lists; return the file."""
    file = root / "people.json"
    file.write_text(plain if isinstance(plain, str) else json.dumps(plain))
    for name in ("a.png", "b.png"):
        noise = np.random.default_rng(list(name.encode())).integers(0, 256, (60, 100, 3), np.uint8)
        Image.fromarray(noise).save(root / name)
    return file


def open_set(root: Path, plain: Any = None, *, boxes: Path | None = None) -> KeypointSet:
    """Write a set and open it, with sigmas of its joints where there are a detector's boxes."""
    file = write_set(root, plain_set() if plain is None else plain)
    return open_keypoints(file, root, skeleton=skeleton() if boxes else None, boxes=boxes)


def skeleton(**changes: Any) -> Skeleton:
    """Return the skeleton of NAMES."""
    fields: dict[str, Any] = {
        "names": NAMES, "flip_pairs": ((1, 2), (3, 4)), "bones": ((0, 1), (1, 3)),
        "sigmas": (0.05, 0.08, 0.08, 0.1, 0.1),
    }  # fmt: skip
    return Skeleton(**fields | changes)


def pose_task(joints: Skeleton | None = None, **options: Any) -> Pose:
    """Return the task of these joints; options: of TargetOptions and EvaluationOptions."""
    joints = joints or skeleton()
    description = DataDescription(
        task="pose", names=joints.names, colors=default_palette(len(joints.names)), skeleton=joints
    )
    targets = {name: value for name, value in options.items() if name == "sigma"}
    evaluation = {name: value for name, value in options.items() if name != "sigma"}
    task = make_task(description, TargetOptions(**targets), EvaluationOptions(**evaluation))
    assert isinstance(task, Pose)
    return task
