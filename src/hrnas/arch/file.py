"""The architecture file: versioned JSON, validated on reading, with a fingerprint."""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from hrnas.arch.architecture import Architecture
from hrnas.arch.codec import decode, encode, pretty
from hrnas.errors import InputError

FORMAT: Final = "hrnas-architecture"
VERSION: Final = 1


def to_data(architecture: Architecture) -> dict[str, Any]:
    """Return the architecture as plain JSON types."""
    return {"format": FORMAT, "version": VERSION, **encode(architecture)}


def from_data(data: object, source: str = "architecture") -> Architecture:
    """Return the architecture that plain JSON types describe.

    source: named in errors, usually the file.
    Raises InputError, naming the field and the remedy, for an unknown key, a wrong type or an impossible value.
    """
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        got = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise InputError(f"{source}: format is {got!r}; an architecture file has '{FORMAT}'. Give one hrnas wrote.")
    got = data.get("version")
    if type(got) is not int or got != VERSION:  # not isinstance: true equals 1
        raise InputError(f"{source}: version is {got!r}; this hrnas reads version {VERSION}. Update hrnas.")
    fields = {key: value for key, value in data.items() if key not in ("format", "version")}
    return decode(Architecture, fields, source)


def to_json(architecture: Architecture) -> str:
    """Return the text of an architecture file; a block stands on one line, for people and for diffs."""
    return pretty(to_data(architecture))


def from_json(text: str, source: str = "architecture") -> Architecture:
    """Return the architecture of an architecture file's text. Raises InputError as `from_data` does."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source} is not JSON ({error}). Give an architecture file that hrnas wrote.") from None
    return from_data(data, source)


def read_architecture(path: str | Path) -> Architecture:
    """Return the architecture in a file. Raises InputError when it is missing, unreadable or invalid."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}). Give the path of an architecture.json.") from None
    return from_json(text, str(path))


def fingerprint(architecture: Architecture) -> str:
    """Return 12 hexadecimal digits that change with every field and with nothing else."""
    text = json.dumps(to_data(architecture), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
