"""Whether a folder has the folders of a known set."""

from collections.abc import Sequence
from pathlib import Path

from hrnas.errors import InputError


def check_folders(path: Path, folders: Sequence[str], *, known: str, below: str, remedy: str) -> None:
    """Raise InputError naming the folders that `path` lacks to be the known set, and a near folder that has them all.

    below: where they mostly are, a folder of this name. remedy: what 'path' must name.
    """

    def lacking(root: Path) -> list[str]:
        return [f"{folder}/" for folder in folders if not (root / folder).is_dir()]

    if missing := lacking(path):
        near = next((folder for folder in (path.parent, path / below) if not lacking(folder)), None)
        question = f" Did you mean {near}?" if near else ""
        raise InputError(
            f"{path} is not the folder of {known}: it lacks {', '.join(missing)}.{question} 'path' must name {remedy}."
        )
