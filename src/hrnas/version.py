"""The version of hrnas, kept equal to pyproject.toml by a test."""

from typing import Final

VERSION: Final = "0.1.0"
