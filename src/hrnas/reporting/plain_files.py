"""Reading the JSON, JSON-lines and YAML files of a run directory; every error names the file and the remedy."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import yaml

from hrnas.errors import InputError

_REMEDY: Final = "Give a run directory that hrnas wrote, or restore the file."


@dataclass(frozen=True)
class Fields:
    """A JSON object of a file, read key by key; `source` (file, and line where it has lines) is named in errors.

    Unknown keys are left alone, so that an older hrnas reports the runs of a newer one.
    """

    source: str
    values: Mapping[str, Any]

    def has(self, key: str) -> bool:
        """True when the key is there and not null."""
        return self.values.get(key) is not None

    def integer(self, key: str) -> int:
        """Return a whole number."""
        value = self._value(key)
        if type(value) is float and value.is_integer():
            return int(value)
        if type(value) is not int:
            raise self._wrong(key, value, "a whole number")
        return value

    def number(self, key: str) -> float:
        """Return a number; null, as strict JSON writes it, is nan."""
        value = self.values.get(key)
        if value is None and key in self.values:
            return math.nan
        value = self._value(key)
        if type(value) not in (int, float):
            raise self._wrong(key, value, "a number")
        return float(value)

    def flag(self, key: str) -> bool:
        """Return true or false."""
        value = self._value(key)
        if type(value) is not bool:
            raise self._wrong(key, value, "true or false")
        return value

    def text(self, key: str) -> str:
        """Return a text."""
        value = self._value(key)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a text")
        return value

    def size(self, key: str) -> tuple[int, int]:
        """Return a (height, width) pair in pixels: a list in JSON files, HEIGHTxWIDTH in config.yaml."""
        value = self._value(key)
        if isinstance(value, str) and (match := re.fullmatch(r"(\d+)x(\d+)", value)):
            value = [int(match[1]), int(match[2])]
        if not (isinstance(value, list) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)):
            raise self._wrong(key, value, "[height, width] in pixels")
        return (value[0], value[1])

    def color(self, key: str) -> tuple[int, int, int]:
        """Return a colour."""
        value = self._value(key)
        if not (isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)):
            raise self._wrong(key, value, "[red, green, blue], each 0..255,")
        return (value[0], value[1], value[2])

    def mapping(self, key: str) -> "Fields":
        """Return the object under a key."""
        value = self._value(key)
        if not isinstance(value, dict):
            raise self._wrong(key, value, "an object")
        return Fields(f"{self.source}: {key}", value)

    def texts(self, key: str) -> list[str]:
        """Return the list of texts under a key."""
        value = self._value(key)
        if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise self._wrong(key, value, "a list of texts")
        return value

    def text_values(self) -> Mapping[str, str]:
        """Return the object itself, of which every value must be a text."""
        return {key: self.text(key) for key in self.values}

    def inner_folder(self, key: str) -> str:
        """Return a path of a folder inside the run directory, with "." for the run directory itself."""
        value = self.text(key)
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts:
            raise self._wrong(key, value, "a folder inside the run directory")
        return path.as_posix()

    def objects(self, key: str) -> list["Fields"]:
        """Return the list of objects under a key."""
        value = self._value(key)
        if not (isinstance(value, list) and all(isinstance(item, dict) for item in value)):
            raise self._wrong(key, value, "a list of objects")
        return [Fields(f"{self.source}: {key}[{index}]", item) for index, item in enumerate(value)]

    def _value(self, key: str) -> Any:
        if key not in self.values:
            raise InputError(f"{self.source}: '{key}' is missing. {_REMEDY}")
        return self.values[key]

    def _wrong(self, key: str, value: object, needed: str) -> InputError:
        text = json.dumps(value, default=str)
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        return InputError(f"{self.source}: '{key}' is {shown}; {needed} is needed. {_REMEDY}")


def read_json(path: Path) -> Fields:
    """Return the object in a JSON file. Raises InputError when it cannot be read or is none."""
    try:
        data = json.loads(_text(path))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}). {_REMEDY}") from None
    return Fields(str(path), _mapping(path, data))


def read_json_lines(path: Path) -> list[Fields]:
    """Return the objects of a JSON-lines file.

    A last line that was cut off, as a killed run leaves it, is skipped; raises InputError for any other broken line.
    """
    text = _text(path)
    lines = text.split("\n")
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except ValueError as error:
            # Every whole line ends in a newline, so only a line without one can be half-written.
            if number == len(lines):
                break
            raise InputError(f"{path}, line {number} is not JSON ({error}). {_REMEDY}") from None
        found.append(Fields(f"{path}, line {number}", _mapping(path, data, number)))
    return found


def read_yaml(path: Path) -> Fields:
    """Return the mapping in a YAML file. Raises InputError when it cannot be read or is none."""
    try:
        data = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML ({' '.join(str(error).split())}). {_REMEDY}") from None
    return Fields(str(path), _mapping(path, data))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path} is missing; a report needs it. {_REMEDY}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). {_REMEDY}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file in UTF-8. {_REMEDY}") from None


def _mapping(path: Path, data: object, line: int | None = None) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        where = f"{path}, line {line}" if line else str(path)
        raise InputError(f"{where} holds {type(data).__name__}; an object of named values is needed. {_REMEDY}")
    return data
