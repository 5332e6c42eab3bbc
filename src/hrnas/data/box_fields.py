"""Fields of data.yaml about objects in space: the classes' names and the boxes they usually have."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from hrnas.data.fields import Fields
from hrnas.data.kitti_classes import CLASSES, USUAL_OVERLAP
from hrnas.data.kitti_files import NOT_AN_OBJECT
from hrnas.errors import InputError, did_you_mean
from hrnas.structures import BoxClass

_BOX = "[length, width, height, z of the middle] in metres, such as [10.1, 2.6, 3.2, -0.1]; the first three above 0"


def box_classes(fields: Fields) -> tuple[BoxClass, ...]:
    """Return the classes that 'names' and 'anchors' say; without 'names' those of KITTI's benchmark.

    A class that is one of the benchmark's has its overlap, its neighbours but for those that are classes themselves,
    and its box where 'anchors' gives none.
    """
    names = _names(fields)
    anchors: Mapping[str, Any] = fields.get("anchors", {})
    if not isinstance(anchors, Mapping):
        raise fields.wrong("anchors", anchors, "a mapping, such as {Truck: [10.1, 2.6, 3.2, -0.1]}")
    for name in anchors:
        if name not in names:
            raise InputError(f"{fields.where}: 'anchors' has the unknown class '{name}'. {did_you_mean(name, names)}")
    known = {known.name.lower(): _without(known, names) for known in CLASSES}
    classes = []
    for name in names:
        if name in anchors:
            length, width, height, z = _numbers(fields, name, anchors[name])
            usual = known.get(name.lower(), BoxClass(name=name, size=(1.0, 1.0, 1.0), z=0.0, overlap=USUAL_OVERLAP))
            classes.append(replace(usual, name=name, size=(length, width, height), z=z))
        elif name.lower() in known:
            classes.append(replace(known[name.lower()], name=name))
        else:
            usual = ", ".join(known.name for known in CLASSES)
            raise fields.error(
                "anchors", f"has no box for class '{name}', which is none of {usual}", f"{{{name}: {_BOX}}}"
            )
    return tuple(classes)


def box_fields(classes: Sequence[BoxClass]) -> dict[str, Any]:
    """Return plain values from which `box_classes` makes the same classes."""
    return {
        "names": [known.name for known in classes],
        "anchors": {known.name: [*known.size, known.z] for known in classes},
    }


def _without(known: BoxClass, names: Sequence[str]) -> BoxClass:
    """Return a class without the neighbours that have one of the names."""
    taken = {name.lower() for name in names}
    return replace(known, neighbours=tuple(name for name in known.neighbours if name.lower() not in taken))


def _names(fields: Fields) -> tuple[str, ...]:
    value = fields.get("names")
    if value is None:
        return tuple(known.name for known in CLASSES)
    if not isinstance(value, list) or not value:
        raise fields.wrong("names", value, "a list of the types of the label files that are looked for")
    names = tuple(fields.text_value(f"names[{place}]", name) for place, name in enumerate(value))
    for name in names:
        alike = [other for other in names if other.lower() == name.lower()]
        if len(alike) > 1:
            twice = f"'{name}' twice" if len(set(alike)) == 1 else f"'{alike[0]}' and '{alike[1]}', alike but for case"
            raise fields.error("names", f"holds {twice}", "a different name for each class")
        if name.lower() == NOT_AN_OBJECT.lower() or len(name.split()) > 1:
            raise fields.error("names", f"holds '{name}'", f"types of objects, one word each, {NOT_AN_OBJECT} left out")
    return names


def _numbers(fields: Fields, name: str, value: object) -> list[float]:
    is_box = (
        isinstance(value, list)
        and len(value) == 4
        and all(isinstance(part, int | float) and not isinstance(part, bool) and isfinite(part) for part in value)
        and min(value[:3]) > 0
    )
    if not is_box:
        raise fields.wrong(f"anchors[{name}]", value, _BOX)
    assert isinstance(value, list)
    return [float(part) for part in value]
