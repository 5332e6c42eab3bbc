"""Where hrnas keeps what can be made again: rendered pictures, objects cut out of scenes, compiled kernels."""

import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


def cache_folder() -> Path:
    """Return $HRNAS_CACHE, or hrnas in $XDG_CACHE_HOME or ~/.cache; it need not exist."""
    if folder := os.environ.get("HRNAS_CACHE"):
        return Path(folder)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "hrnas"
    return Path.home() / ".cache" / "hrnas"


def load_arrays(file: Path) -> Arrays:
    """Read the arrays of a file of the cache; none when there is no such file, or none that is whole."""
    try:
        # Opened here: of a file that is no archive numpy would leave its own handle open.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, TypeError, RuntimeError):
        return {}


def store_arrays(file: Path, arrays: Arrays) -> None:
    """Write a file of the cache under a temporary name, then rename it: nobody ever sees half a file.

    An unwritable cache costs the next start the making of them, nothing else.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=file.stem, suffix=".tmp")
    except OSError:
        return
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, **arrays)
        os.replace(temporary, file)
    except OSError:  # a full disk
        Path(temporary).unlink(missing_ok=True)
