"""Tasks: what a network is trained for. One file a task, one dict of them."""

from typing import Final

from hrnas.errors import InputError, did_you_mean
from hrnas.tasks.segmentation import Segmentation
from hrnas.tasks.task import Task

TASKS: Final[dict[str, type[Segmentation]]] = {"segmentation": Segmentation}


def make_task(name: str, *, names: tuple[str, ...], colors: tuple[tuple[int, int, int], ...]) -> Task:
    """Return the task of that name for classes with these names and colours. Raises InputError when unknown."""
    if name not in TASKS:
        raise InputError(f"Unknown task '{name}'. {did_you_mean(name, TASKS)}")
    return TASKS[name](names=names, colors=colors)
