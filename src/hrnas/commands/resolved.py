"""Options to the plain types of config.yaml and back: what a run resolved is itself a valid input."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse.typing import register_type

from hrnas.commands.options import MemorySize
from hrnas.data.sizes import InputSize
from hrnas.errors import InputError

T = TypeVar("T")

for kind in (InputSize, MemorySize):
    register_type(
        kind, serializer=str, deserializer=lambda text, kind=kind: text if isinstance(text, kind) else kind.parse(text)
    )


def resolved_config(options: Any, **resolved: Any) -> dict[str, Any]:
    """Return options as plain types for config.yaml; `resolved` replaces what was left open.

    Where the run is written is not part of it: a copy of the file starts a run of its own.
    """
    config = {name: value for name, value in _plain(options).items() if name not in ("run", "overwrite")}
    return {**config, **{name: _plain(value) for name, value in resolved.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, InputSize | MemorySize):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}  # keys as they are: label_map has numbers
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def options_from(kind: type[T], config: Mapping[str, Any]) -> T:
    """Return the options that a config.yaml holds. Raises InputError for a key or value that does not fit."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, None)
    try:
        parsed = parser.parse_object(dict(config))
        values = vars(parser.instantiate(parsed))
        return kind(**{field.name: values[field.name] for field in dataclasses.fields(kind)})
    except (ArgumentError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"config.yaml does not fit this hrnas ({' '.join(str(error).split())}). Start anew.") from None
