"""Fields of data.yaml about names and label values: names, colors, ignore, label_map."""

from collections.abc import Mapping
from typing import Final

from hrnas.data.fields import Fields
from hrnas.data.pictures import RGB, default_palette

MAX_CLASSES: Final = 254  # 255 is IGNORED and 254 marks a value no class covers while masks are read
MAX_VALUE: Final = 65_535  # masks have at most 16 bits


def class_names(fields: Fields) -> tuple[str, ...]:
    """Return the names of the classes, checked."""
    fields.require("names")
    need = "a list of class names, or a mapping of class index to name with indices 0, 1, 2, ... without a gap"
    value = fields["names"]
    if isinstance(value, Mapping):
        for key in value:
            fields.integer_value(f"names, index {key}", key, 0, MAX_CLASSES - 1)
        if sorted(value) != list(range(len(value))):
            raise fields.error("names", f"has the indices {', '.join(map(str, sorted(value)))}", need)
        value = [value[index] for index in range(len(value))]
    if not isinstance(value, list):
        raise fields.wrong("names", value, need)
    for index, name in enumerate(value):
        fields.text_value(f"names[{index}]", name)
    if not 2 <= len(value) <= MAX_CLASSES:
        raise fields.error("names", f"has {len(value)} classes", f"2 to {MAX_CLASSES} classes")
    if len(set(value)) < len(value):
        twice = next(name for name in value if value.count(name) > 1)
        raise fields.error("names", f"holds '{twice}' twice", "a different name for each class")
    return tuple(value)


def class_colors(fields: Fields, num_classes: int) -> tuple[RGB, ...]:
    """Return a colour for each class, given or chosen."""
    value = fields.get("colors")
    if value is None:
        return default_palette(num_classes)
    if not isinstance(value, list):
        raise fields.wrong("colors", value, "a list of [red, green, blue], one per class")
    if len(value) != num_classes:
        raise fields.error("colors", f"has {len(value)} colours for {num_classes} names", "one colour per name")
    colors: list[RGB] = []
    for index, color in enumerate(value):
        if not isinstance(color, list) or len(color) != 3:
            raise fields.wrong(f"colors[{index}]", color, "[red, green, blue], each 0..255")
        red, green, blue = (fields.integer_value(f"colors[{index}]", part, 0, 255) for part in color)
        colors.append((red, green, blue))
    return tuple(colors)


def label_values(fields: Fields, num_classes: int) -> tuple[tuple[int, ...], dict[int, int | None] | None]:
    """Return (ignore, label_map), checked against each other and the number of classes."""
    value = fields.get("ignore", 255)
    values = value if isinstance(value, list) else [value]
    ignore = tuple(dict.fromkeys(fields.integer_value("ignore", item, 0, MAX_VALUE) for item in values))

    plain_map = fields.get("label_map")
    if plain_map is None:
        for item in ignore:
            if item < num_classes:
                name = fields["names"][item]
                raise fields.error(
                    "ignore",
                    f"is {item}, which is also the index of class '{name}'",
                    "a value no class uses; where the file's values are not class indices, give label_map",
                )
        return ignore, None
    if not isinstance(plain_map, Mapping) or not plain_map:
        raise fields.wrong("label_map", plain_map, "a mapping of file value to class index, such as {7: 0, 8: 1}")
    label_map: dict[int, int | None] = {}
    for key, target in plain_map.items():
        file_value = fields.integer_value(f"label_map, key {key}", key, 0, MAX_VALUE)
        if target is not None:
            fields.integer_value(f"label_map[{key}]", target, 0, num_classes - 1)
        if target is not None and file_value in ignore:
            need = "each value in one of them only (the default of ignore is 255; ignore: [] turns it off)"
            raise fields.error(f"label_map[{key}]", "is also in ignore", need)
        label_map[file_value] = target
    return ignore, label_map
