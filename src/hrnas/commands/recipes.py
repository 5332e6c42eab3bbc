"""Recipes: a YAML of defaults for one data set, or for a task.

Nothing inherits; the options on the command line come over it.
"""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from hrnas.data.data_yaml import parse_description, read_description
from hrnas.errors import InputError, did_you_mean


def known_recipes() -> list[str]:
    """Return the names of the recipes that come with hrnas."""
    folder = files("hrnas") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def recipe_values(recipe: str | None, data: str | Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    """Return the option values of a recipe that `kind` has.

    recipe: a recipe's name or a YAML file; where left out, the one named like the known data set and its task, or like
    the task alone, if there is one.
    Raises InputError for an unknown or unreadable recipe, or a value that no verb has.
    """
    from hrnas.commands.search import SearchOptions  # not above: the list of recipes must not wait for torch
    from hrnas.commands.train import TrainOptions

    folder, known = files("hrnas") / "recipes", known_recipes()
    if recipe is None:
        if isinstance(data, Mapping):
            description = parse_description(dict(data), where="data", folder=Path.cwd())
        else:
            description = read_description(data)
        dataset, task = description.dataset, description.task
        names = [name for name in (f"{dataset}-{task}", dataset, task) if name in known]
        if not names:
            return {}
        recipe = str(names[0])
    if recipe in known:
        text, source = (folder / f"{recipe}.yaml").read_text(encoding="utf-8"), f"recipe {recipe}"
    elif Path(recipe).is_file():
        text, source = Path(recipe).read_text(encoding="utf-8"), recipe
    else:
        raise InputError(f"Unknown recipe '{recipe}'. {did_you_mean(recipe, known)}")
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{source} is not YAML ({' '.join(str(error).split())}). Mend that line.") from None
    if not isinstance(values, dict):
        raise InputError(f"{source} is {type(values).__name__}; a recipe maps options to values.")
    names = {field.name for field in fields(kind)}
    known_names = {field.name for verb in (SearchOptions, TrainOptions) for field in fields(verb)} | names
    for name in values:
        if name not in known_names:
            near = get_close_matches(str(name), known_names, n=1)
            question = f"Did you mean '{near[0]}'? " if near else ""
            raise InputError(f"{source} sets '{name}', which is no option of search or train. {question}Mend it there.")
    return _flat({name: value for name, value in values.items() if name in names})


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
