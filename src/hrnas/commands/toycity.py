"""hrnas toycity: write the built-in Toy City as files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich
from rich.table import Table

from hrnas.commands.progress import counted_progress
from hrnas.data.toycity.drive_sets import LENGTHS, write_kitti_set


@dataclass(frozen=True, kw_only=True)
class ToycityOptions:
    """Write Toy City's drives, lidar, camera and boxes in space, as a data set in KITTI's layout, with a data.yaml.

    folder: where to; it is made, or is there and empty.
    train: number of training frames.
    validation: number of validation frames.
    test: number of test frames; 0 for none.
    seed: another seed makes another city.
    """

    folder: str
    train: int = LENGTHS["train"]
    validation: int = LENGTHS["validation"]
    test: int = LENGTHS["test"]
    seed: int = 0


def toycity(options: ToycityOptions) -> dict[str, Any]:
    """Write the set and show what is in it. Raises InputError for a folder in use and for numbers that are too low."""
    folder = Path(options.folder).expanduser()
    objects = write_kitti_set(
        folder, train=options.train, validation=options.validation, test=options.test, seed=options.seed,
        progress=counted_progress,
    )  # fmt: skip
    table = Table(title="Objects", title_justify="left")
    table.add_column("type")
    table.add_column("objects", justify="right")
    for name, count in objects.items():
        table.add_row(name, f"{count:,}")
    rich.print(table)
    rich.get_console().print(f"Data set: {folder / 'data.yaml'}", markup=False, highlight=False, soft_wrap=True)
    frames = {"train": options.train, "validation": options.validation, "test": options.test}
    return {"verb": "toycity", "folder": str(folder), "frames": frames, "objects": dict(objects)}
