"""Tasks: what a network is trained for. One file a task, one dict of them."""

from typing import Final

from hrnas.data.description import DataDescription
from hrnas.tasks.classification import Classification
from hrnas.tasks.detection3d import Detection3D
from hrnas.tasks.pose import Pose
from hrnas.tasks.segmentation import Segmentation
from hrnas.tasks.task import EvaluationOptions, TargetOptions, Task, settled

TASKS: Final[dict[str, type[Segmentation | Pose | Classification | Detection3D]]] = {
    "segmentation": Segmentation,
    "pose": Pose,
    "classification": Classification,
    "detection3d": Detection3D,
}


def make_task(
    description: DataDescription,
    targets: TargetOptions | None = None,
    evaluation: EvaluationOptions | None = None,
) -> Task:
    """Return the task of a described set, with its own choice for the options that are left to it.

    Raises InputError for an option that means nothing to the task.
    """
    name = description.task
    kind = TASKS[name]
    return kind(
        description,
        settled(targets or TargetOptions(), kind.own, name, "targets"),
        settled(evaluation or EvaluationOptions(), kind.own, name, "evaluation"),
    )
