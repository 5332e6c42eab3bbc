"""Files of a run directory: JSON lines that are appended, and files that are replaced as a whole.

What these functions have written is on the disk when they return: a power cut after it takes nothing back.
"""

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_PARTIAL: Final = ".partial"
"""Ends the name of a file that is being written."""


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one JSON object as a line. Numbers that JSON does not know (nan) become null."""
    is_new = not path.exists()
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(to_plain(record), separators=(", ", ": ")) + "\n")
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a file as a whole: a reader sees the old text or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # a folder cannot be opened there
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems know no such thing for a folder
            raise
    finally:
        os.close(handle)


def partial_files(folder: Path) -> list[Path]:
    """Return the files of a folder whose writing has not ended, or was killed."""
    return sorted(folder.glob(f".*{_PARTIAL}"))


def write_json(path: Path, data: Any) -> None:
    """Replace a JSON file as a whole."""
    write_text(path, json.dumps(to_plain(data), indent=1) + "\n")


def keep_lines_until(path: Path, step: int) -> None:
    """Drop the lines after `step` and any half-written one: a resumed run writes them again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    write_text(path, "".join(f"{line}\n" for line in kept))


def to_plain(value: Any) -> Any:
    """Return JSON types: text as keys, lists, and null for numbers JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
