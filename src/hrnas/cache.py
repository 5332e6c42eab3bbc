"""Where hrnas keeps what can be made again: rendered pictures, compiled kernels."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return $HRNAS_CACHE, or hrnas in $XDG_CACHE_HOME or ~/.cache; it need not exist."""
    if folder := os.environ.get("HRNAS_CACHE"):
        return Path(folder)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "hrnas"
    return Path.home() / ".cache" / "hrnas"
