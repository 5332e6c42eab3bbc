"""data.yaml as typed data: which files make up each split, what their label values mean, and the classes' names.

task: segmentation
path: .                                   # every other path is relative to it; it is relative to the yaml's folder
train: {images: images/train, labels: masks/train}
validation: {list: validation.txt}        # "image mask" per line
test: {images: ..., labels: ...}          # optional
names: [sky, building]                    # or {0: sky, 1: building}
colors: [[128, 128, 128], [128, 0, 0]]    # optional
ignore: 255                               # file value, or list of values, that is void
label_map: {7: 0, 8: 1, 9: null}          # optional: file value -> class index, null = void

A known set needs less: `{dataset: camvid, path: DIR}`, or `{dataset: toycity}` with optional size, length and seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from hrnas.data import camvid
from hrnas.data.fields import Fields, read_yaml
from hrnas.data.pictures import RGB, default_palette
from hrnas.data.toycity.dataset import ToyCity
from hrnas.errors import InputError, did_you_mean

Split = Literal["train", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)
DATASETS: Final = ("camvid", "toycity")
BUILT_IN: Final = ("toycity",)
TASKS: Final = ("segmentation",)
MAX_CLASSES: Final = 254  # 255 is IGNORED and 254 marks a value no class covers while masks are read
MAX_VALUE: Final = 65_535  # masks have at most 16 bits


@dataclass(frozen=True, kw_only=True)
class SplitFolders:
    """A split kept as two folders; images and masks are paired by their stems. Paths are relative to `path`."""

    images: str
    labels: str


@dataclass(frozen=True, kw_only=True)
class SplitList:
    """A split kept as a text file of "image mask" lines. Paths are relative to `path`."""

    list: str


@dataclass(frozen=True, kw_only=True)
class ToyCityOptions:
    """How the built-in Toy City is rendered. size: (H, W); length: images per split, the set's own where absent."""

    size: tuple[int, int] = (96, 128)
    length: Mapping[Split, int]
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class DataDescription:
    """A data set for semantic segmentation, described but not opened (see `opening.open_split`).

    task: what the labels are; "segmentation".
    dataset: the known set this is, or None for the user's own files.
    path: absolute folder that split paths are relative to; None for a set that needs no files.
    splits: where each split's files are; a split may be absent. Empty for a set that needs no files.
    names: one per class; the index is the class index.
    colors: one (r, g, b) in 0..255 per class, for pictures.
    ignore: file values that are void; they become structures.IGNORED.
    label_map: file value -> class index, None = void; None as a whole: file values are class indices.
    toycity: how to render it, when dataset is "toycity".
    """

    task: str
    dataset: str | None
    path: Path | None
    splits: Mapping[Split, SplitFolders | SplitList]
    names: tuple[str, ...]
    colors: tuple[RGB, ...]
    ignore: tuple[int, ...]
    label_map: Mapping[int, int | None] | None
    toycity: ToyCityOptions | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes, void not counted."""
        return len(self.names)

    @property
    def split_names(self) -> tuple[Split, ...]:
        """The splits that can be opened, in the order train, validation, test."""
        return SPLITS if self.toycity else tuple(name for name in SPLITS if name in self.splits)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values with the path made absolute: itself a valid data.yaml; `parse_description` reads it."""
        plain: dict[str, Any] = {"task": self.task}
        if self.dataset is not None:
            plain["dataset"] = self.dataset
        if self.toycity is not None:
            plain |= {
                "size": list(self.toycity.size),
                "length": dict(self.toycity.length),
                "seed": self.toycity.seed,
            }
        if self.path is not None:
            plain["path"] = str(self.path)
        if self.dataset is None:
            plain |= {name: dict(vars(self.splits[name])) for name in self.split_names}
            plain |= {
                "names": list(self.names),
                "colors": [list(color) for color in self.colors],
                "ignore": list(self.ignore),
            }
            if self.label_map is not None:
                plain["label_map"] = dict(self.label_map)
        return plain


def read_description(source: str | Path) -> DataDescription:
    """Read a data.yaml, given as its path, as the folder that holds it, or as a built-in set's name ("toycity").

    Raises InputError naming the file and the field. The splits' files are looked at only when a split is opened.
    """
    if isinstance(source, str) and source in BUILT_IN:
        return parse_description({"dataset": source}, where=source, folder=Path.cwd())
    file = Path(source).expanduser()
    if file.is_dir():
        file = file / "data.yaml"
        if not file.is_file():
            raise InputError(
                f"Folder {source} holds no data.yaml. Write one there (task, train, validation, names;"
                " for CamVid: dataset: camvid, path: .), or name the file."
            )
    elif not file.is_file():
        raise InputError(
            f"There is no data description '{source}'. Give a data.yaml, a folder that holds one, or a built-in set."
            f" {did_you_mean(str(source), BUILT_IN)}"
        )
    description = parse_description(read_yaml(file), where=str(file), folder=file.parent)
    if description.path is not None and not description.path.is_dir():
        raise InputError(f"{file}: 'path' leads to {description.path}, which is not a folder. Mend 'path'.")
    if description.dataset == "camvid" and description.path is not None:
        camvid.check_layout(description.path)
    return description


def parse_description(plain: object, *, where: str, folder: Path) -> DataDescription:
    """Check plain values (a parsed data.yaml, or what `to_dict` gave) and return them typed.

    where: what error messages call the source; folder: what a relative `path` is relative to. Touches no file.
    Raises InputError naming `where` and the field.
    """
    fields = Fields.of(plain, where)
    dataset = fields.text("dataset", None)
    if dataset is not None and dataset not in DATASETS:
        raise InputError(f"{where}: 'dataset' is unknown: '{dataset}'. {did_you_mean(dataset, DATASETS)}")
    task = fields.text("task", None if dataset is None else "segmentation")
    if task is None:
        raise fields.error("task", "is missing", f"one of: {', '.join(TASKS)}")
    if task not in TASKS:
        raise InputError(f"{where}: 'task' is unknown: '{task}'. {did_you_mean(task, TASKS)}")

    if dataset == "toycity":
        fields.allow(("task", "dataset", "size", "length", "seed"), "for dataset toycity ")
        return _toycity(fields, task)
    if dataset == "camvid":
        fields.allow(("task", "dataset", "path"), "for dataset camvid ")
        return DataDescription(
            task=task,
            dataset=dataset,
            path=_path(fields, folder),
            splits={name: SplitList(list=file) for name, file in camvid.LIST_FILES.items()},  # type: ignore[misc]
            names=camvid.NAMES,
            colors=camvid.COLORS,
            ignore=(camvid.VOID,),
            label_map=None,
        )
    fields.allow(("task", "dataset", "path", *SPLITS, "names", "colors", "ignore", "label_map"))
    fields.require("train")
    names = _names(fields)
    ignore, label_map = _labels(fields, len(names))
    return DataDescription(
        task=task,
        dataset=None,
        path=_path(fields, folder),
        splits={name: _split(fields, name) for name in SPLITS if name in fields},
        names=names,
        colors=_colors(fields, len(names)),
        ignore=ignore,
        label_map=label_map,
    )


def _path(fields: Fields, folder: Path) -> Path:
    text = fields.text("path", ".")
    assert text is not None
    return (folder / Path(text).expanduser()).resolve()


def _split(fields: Fields, name: Split) -> SplitFolders | SplitList:
    split = fields.nested(name)
    split.allow(("images", "labels", "list"))
    if "list" in split:
        if len(split) > 1:
            raise fields.error(name, "mixes 'list' with folders", "either {list: FILE} or {images: DIR, labels: DIR}")
        return SplitList(list=split.required_text("list"))
    return SplitFolders(images=split.required_text("images"), labels=split.required_text("labels"))


def _names(fields: Fields) -> tuple[str, ...]:
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


def _colors(fields: Fields, num_classes: int) -> tuple[RGB, ...]:
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


def _labels(fields: Fields, num_classes: int) -> tuple[tuple[int, ...], dict[int, int | None] | None]:
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


def _toycity(fields: Fields, task: str) -> DataDescription:
    size = fields.get("size", [96, 128])
    if not isinstance(size, list) or len(size) != 2:
        raise fields.wrong("size", size, "[height, width] in pixels")
    height, width = (fields.integer_value("size", side, 16, 4096) for side in size)
    lengths = fields.nested("length") if "length" in fields else Fields.of({}, fields.where)
    lengths.allow(SPLITS)
    return DataDescription(
        task=task,
        dataset="toycity",
        path=None,
        splits={},
        names=ToyCity.NAMES,
        colors=ToyCity.COLORS,
        ignore=(),
        label_map=None,
        toycity=ToyCityOptions(
            size=(height, width),
            length={name: lengths.integer(name, 1, 1_000_000) for name in SPLITS if name in lengths},
            seed=fields.integer("seed", 0, 2**31 - 1, default=0),
        ),
    )
