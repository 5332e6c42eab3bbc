"""Frozen dataclasses to plain JSON types and back, with errors that name the field.

Known types: int, float, str, bool, a dataclass, `X | None`, `tuple[X, ...]`, and `tuple[tuple[int, int], ...]`,
which is an object with integer keys in JSON ({"3": 96, "5": 96}). A field may be one of several dataclasses,
`X | Y`: each has a class variable `kind`, a key of its object in JSON; where it is left out it is the first one's.
"""

import dataclasses
import json
import types
import typing
from typing import Any, TypeVar

from hrnas.errors import InputError, did_you_mean

_T = TypeVar("_T")
_REMEDY = "Correct the file or write it anew with hrnas."
_TYPE_NAMES: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
LATER: typing.Final = types.MappingProxyType({"later": True})
"""Metadata of a field that files did not always have: at its default it is left out, so that files and fingerprints
of before stay what they were."""
_INT_PAIRS = tuple[tuple[int, int], ...]


def encode(value: Any) -> Any:
    """Return a dataclass, tuple or plain value as JSON types: every field, but LATER ones at their default."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = typing.get_type_hints(type(value))
        return {
            field.name: _encode_field(hints[field.name], getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not (field.metadata == LATER and getattr(value, field.name) == field.default)
        }
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    return value


def decode(kind: type[_T], data: object, source: str, where: str = "") -> _T:
    """Return the dataclass `kind` from JSON types.

    source: named in errors, usually the file; where: the field within it.
    Raises InputError for an unknown or missing key, a wrong type, or a value the dataclass refuses.
    """
    return typing.cast(_T, _decode(kind, data, source, where))


def pretty(data: object, width: int = 148) -> str:
    """Return JSON text in which whatever fits into one line stands on one line."""
    return _pretty(data, "", width) + "\n"


def _encode_field(kind: Any, value: Any) -> Any:
    if kind == _INT_PAIRS:
        return {str(key): number for key, number in value}
    kinds = [own for own in typing.get_args(kind) if dataclasses.is_dataclass(own)]
    if len(kinds) > 1 and type(value) in kinds[1:]:
        return {"kind": value.kind, **encode(value)}
    # 0 and 0.0 are equal, so they must give the same text and the same fingerprint.
    return float(value) if kind is float else encode(value)


def _decode(kind: Any, data: object, source: str, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, source, where)
    if kind == _INT_PAIRS:
        return _decode_pairs(data, source, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if data is None and type(None) in arguments:
            return None
        kinds = [argument for argument in arguments if argument is not type(None)]
        return _decode(_kind_of(kinds, data, source, where), data, source, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise _wrong_type(data, list, source, where)
        return tuple(_decode(arguments[0], item, source, f"{where}.{index}") for index, item in enumerate(data))
    if kind is float and type(data) is int:
        return float(data)
    if type(data) is not kind:  # not isinstance: true is an int there
        raise _wrong_type(data, kind, source, where)
    return data


def _kind_of(kinds: list[Any], data: object, source: str, where: str) -> Any:
    """Return which of several dataclasses an object is of."""
    if len(kinds) == 1 or not isinstance(data, dict):
        return kinds[0]
    known = {kind.kind: kind for kind in kinds}
    name = _decode(str, data.get("kind", kinds[0].kind), source, f"{where}.kind")
    if name not in known:
        raise InputError(f"{source}: {where}.kind is '{name}'. {did_you_mean(name, known)}")
    return known[name]


def _decode_dataclass(kind: Any, data: object, source: str, where: str) -> Any:
    if not isinstance(data, dict):
        raise _wrong_type(data, dict, source, where)
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    prefix = f"{where}." if where else ""
    if isinstance(getattr(kind, "kind", None), str) and "kind" not in fields:
        data = {key: value for key, value in data.items() if key != "kind"}
    for key in data:
        if key not in fields:
            raise InputError(f"{source}: unknown key '{prefix}{key}'. {did_you_mean(str(key), fields)}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _decode(hints[name], data[name], source, prefix + name)
        elif field.default is dataclasses.MISSING:
            raise InputError(f"{source}: key '{prefix}{name}' is missing. {_REMEDY}")
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{source}: {prefix.removesuffix('.') + ': ' if prefix else ''}{error}") from None


def _decode_pairs(data: object, source: str, where: str) -> tuple[tuple[int, int], ...]:
    if not isinstance(data, dict):
        raise _wrong_type(data, dict, source, where)
    pairs = []
    for key, value in data.items():
        if not str(key).isdecimal():
            raise InputError(f"{source}: {where} has the key '{key}'; whole numbers are needed. {_REMEDY}")
        pairs.append((int(key), int(_decode(int, value, source, f"{where}.{key}"))))
    return tuple(sorted(pairs))


def _wrong_type(data: object, needed: object, source: str, where: str) -> InputError:
    got = _TYPE_NAMES.get(type(data), type(data).__name__)
    text = json.dumps(data)
    shown = f" ({text})" if len(text) <= 40 else ""
    return InputError(f"{source}: {where or 'the file'} is {got}{shown}; {_TYPE_NAMES[needed]} is needed. {_REMEDY}")


def _pretty(data: object, indent: str, width: int) -> str:
    line = json.dumps(data)
    if len(indent) + len(line) <= width or not isinstance(data, dict | list) or not data:
        return line
    inner = indent + " "
    if isinstance(data, dict):
        items = [f"{inner}{json.dumps(key)}: {_pretty(value, inner, width)}" for key, value in data.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _pretty(item, inner, width) for item in data) + f"\n{indent}]"
