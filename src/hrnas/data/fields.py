"""Strict reading of plain YAML values: one line that names file and field for whatever is not as it must be."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hrnas.errors import InputError, did_you_mean


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, which plain YAML reading answers with the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_yaml(file: Path) -> object:
    """Return the plain values of a YAML file. Raises InputError, one line with file, line and column."""
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not a text file in UTF-8. Give a YAML file.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"{file}{place}: not valid YAML: {error.problem or error.context}. Mend that line.") from error
    except yaml.YAMLError as error:
        raise InputError(f"{file}: not valid YAML: {' '.join(str(error).split())}.") from error


def _kind(value: object) -> str:
    """Describe a plain value as the user wrote it, with the kind it was read as."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return f"{str(value).lower()} (a yes/no value; quote it where it is meant as text)"
    kinds = {int: "an integer", float: "a number", str: "a text", list: "a list", dict: "a mapping"}
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return f"{shown} ({kinds.get(type(value), type(value).__name__)})"


@dataclass(frozen=True)
class Fields:
    """A mapping of one file, with the checks whose errors name `where` (the file) and the field's full name."""

    where: str
    values: Mapping[str, Any]
    prefix: str = ""

    @classmethod
    def of(cls, plain: object, where: str) -> "Fields":
        """Wrap a file's top level, which must be a mapping."""
        if not isinstance(plain, Mapping):
            raise InputError(f"{where} is {_kind(plain)}; it must be a mapping, such as 'task: segmentation'.")
        return cls(where, plain)

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return a field's plain value, `default` when it is absent or empty."""
        value = self.values.get(key)
        return default if value is None else value

    def error(self, field: str, got: str, need: str) -> InputError:
        """Return the error "where: 'field' got; it must be need."."""
        return InputError(f"{self.where}: '{self.prefix}{field}' {got}; it must be {need}.")

    def wrong(self, field: str, value: object, need: str) -> InputError:
        """Return the error for a value of the wrong kind."""
        return self.error(field, f"is {_kind(value)}", need)

    def allow(self, known: Iterable[str], remark: str = "") -> None:
        """Refuse keys that are not known."""
        known = tuple(known)
        for key in self.values:
            if key not in known:
                raise InputError(
                    f"{self.where}: unknown key '{self.prefix}{key}'. {remark}{did_you_mean(str(key), known)}"
                )

    def require(self, key: str) -> None:
        """Refuse a mapping without this key."""
        if self.values.get(key) is None:
            raise InputError(f"{self.where}: '{self.prefix}{key}' is missing. Add it.")

    def nested(self, key: str, example: str) -> "Fields":
        """Return the mapping under a key; example: of what it can be, for the error."""
        value = self.values[key]
        if not isinstance(value, Mapping):
            raise self.wrong(key, value, f"a mapping, such as {example}")
        return Fields(self.where, value, f"{self.prefix}{key}.")

    def text(self, key: str, default: str | None) -> str | None:
        """Return a text field, `default` when it is absent."""
        return self.text_value(key, self.values[key]) if self.values.get(key) is not None else default

    def required_text(self, key: str) -> str:
        """Return a text field that must be there."""
        self.require(key)
        return self.text_value(key, self.values[key])

    def text_value(self, field: str, value: object) -> str:
        """Check that a value is a text that is not empty."""
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(field, value, "a text")
        return value

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """Return an integer field in low..high."""
        return self.integer_value(key, self.get(key, default), low, high)

    def integer_value(self, field: str, value: object, low: int, high: int) -> int:
        """Check that a value is an integer (not a truth value) in low..high."""
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(field, value, f"an integer in {low}..{high}")
        return value
