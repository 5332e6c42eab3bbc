"""Reading a data.yaml.

task: segmentation
path: .                                   # every other path is relative to it; it is relative to the yaml's folder
train: {images: images/train, labels: masks/train}
validation: {list: validation.txt}        # "image mask" per line
test: {images: ..., labels: ...}          # optional
names: [sky, building]                    # or {0: sky, 1: building}
colors: [[128, 128, 128], [128, 0, 0]]    # optional
ignore: 255                               # file value, or list of values, that is void
label_map: {7: 0, 8: 1, 9: null}          # optional: file value -> class index, null = void

task: pose
train: {coco: annotations/train.json, images: images}
validation: {coco: annotations/val.json, images: images, boxes: detections.json}    # boxes: optional, a detector's
flip_pairs, skeleton, sigmas              # optional: the file's, or what its joints' names say

task: classification
train: {images: train}                    # a folder for each class; optional where they are called train and val
names: {n01440764: tench}                 # optional: folder -> name

task: detection3d
train: {kitti: training, list: ImageSets/train.txt}     # a folder in KITTI's layout; list: optional, else all frames
names: [Car, Truck]                       # optional: types of the label files; KITTI's three
anchors: {Truck: [10.1, 2.6, 3.2, -0.1]}  # length, width, height and z of a usual box, for names that are not KITTI's

A known set needs less: `{dataset: camvid, path: DIR}`, or `{dataset: toycity}` with optional task, size, length, seed.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from hrnas.data import coco, kitti
from hrnas.data.box_fields import box_classes
from hrnas.data.class_folders import class_folders
from hrnas.data.coco_joints import COCO_SKELETON
from hrnas.data.decoding import IMAGE_ENDINGS
from hrnas.data.description import (
    SPLITS,
    DataDescription,
    Rendering,
    Split,
    SplitClasses,
    SplitFolders,
    SplitKeypoints,
    SplitKitti,
    SplitList,
    SplitSource,
)
from hrnas.data.fields import Fields, read_yaml
from hrnas.data.kitti_classes import CLASSES, COLORS, colors_of
from hrnas.data.known_masks import KNOWN_MASKS
from hrnas.data.mask_fields import class_colors, class_names, label_values
from hrnas.data.pictures import default_palette
from hrnas.data.pose_fields import KEYS, GivenJoints, whole_skeleton
from hrnas.data.toycity.crops import ToyCityCrops
from hrnas.data.toycity.dataset import ToyCity
from hrnas.data.toycity.people import ToyCityPeople
from hrnas.errors import InputError, did_you_mean

TASKS: Final = ("segmentation", "pose", "classification", "detection3d")
DATASETS: Final[dict[str, tuple[str, ...]]] = {
    "ade20k": ("segmentation",),
    "camvid": ("segmentation",),
    "cityscapes": ("segmentation",),
    "coco": ("pose",),
    "imagenet": ("classification",),
    "kitti": ("detection3d",),
    "toycity": TASKS,
}
"""The tasks of each known set; the first is meant where none is named."""
BUILT_IN: Final = {"toycity": "segmentation", **{f"toycity-{task}": task for task in TASKS[1:]}}
"""Sets that need no file, by the name that stands for one and its task."""
TOYCITY_SIZES: Final = {
    "segmentation": (96, 128),
    "pose": (192, 256),
    "classification": (192, 256),
    "detection3d": kitti.IMAGE_SIZE,
}
"""Height and width of the rendered scenes. That of drives is KITTI's: how difficult an object is goes by its pixels."""


def read_description(source: str | Path) -> DataDescription:
    """Read a data.yaml, given as its path, as the folder that holds it, or as a built-in set's name ("toycity").

    Raises InputError naming the file and the field. The splits' files are looked at only when a split is opened, but
    for what the description leaves to them: joints and class folders.
    """
    if isinstance(source, str) and source in BUILT_IN:
        plain = {"dataset": source.split("-")[0], "task": BUILT_IN[source]}
        return parse_description(plain, where=source, folder=Path.cwd())
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
    return completed(description, where=str(file))


def completed(description: DataDescription, *, where: str) -> DataDescription:
    """Return a description with what it leaves to its files: joints, class folders, where a known set's files are.

    where: what error messages call the source. Raises InputError for a folder or file that is not as it must be.
    """
    path, known = description.path, description.dataset
    if path is None:
        return description
    if not path.is_dir():
        raise InputError(f"{where}: 'path' leads to {path}, which is not a folder. Mend 'path'.")
    if known in KNOWN_MASKS:
        KNOWN_MASKS[known].check_layout(path)
    if known == "kitti":
        kitti.check_layout(path)
    if description.task == "pose" and description.skeleton is None:
        splits: Mapping[Split, SplitSource] = description.splits
        if known == "coco" and not splits:
            splits = {split: SplitKeypoints(coco=file, images=images) for split, file, images in coco.find_splits(path)}
        first = next(iter(splits.values()))
        assert isinstance(first, SplitKeypoints)
        skeleton = description.given.completed(path / first.coco, where)
        return replace(
            description,
            splits=splits,
            names=skeleton.names,
            colors=default_palette(len(skeleton.names)),
            skeleton=skeleton,
            given=GivenJoints(),
        )
    if description.task == "classification":
        splits = description.splits or _class_splits(path)
        first = splits["train"]
        assert isinstance(first, SplitClasses)
        folders = description.folders or class_folders(path / first.images)
        names = description.names or folders
        return replace(description, splits=splits, folders=folders, names=names, colors=default_palette(len(names)))
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
    task = fields.text("task", None if dataset is None else DATASETS[dataset][0])
    if task is None:
        raise fields.error("task", "is missing", f"one of: {', '.join(TASKS)}")
    if task not in TASKS:
        raise InputError(f"{where}: 'task' is unknown: '{task}'. {did_you_mean(task, TASKS)}")
    if dataset is not None and task not in DATASETS[dataset]:
        raise fields.error("task", f"is '{task}'", f"{' or '.join(DATASETS[dataset])} for dataset {dataset}")
    if dataset == "toycity":
        fields.allow(("task", "dataset", "size", "length", "seed"), "for dataset toycity ")
        return _toycity(fields, task)
    parts = {
        "segmentation": _segmentation,
        "pose": _pose,
        "classification": _classification,
        "detection3d": _detection3d,
    }
    return parts[task](fields, dataset, _path(fields, folder))


def _segmentation(fields: Fields, dataset: str | None, path: Path) -> DataDescription:
    if dataset is not None:
        fields.allow(("task", "dataset", "path"), f"for dataset {dataset} ")
        known = KNOWN_MASKS[dataset]
        return DataDescription(
            task="segmentation",
            dataset=dataset,
            path=path,
            splits=known.splits,
            names=known.names,
            colors=known.colors,
            ignore=known.ignore,
            label_map=known.label_map,
        )
    fields.allow(("task", "path", *SPLITS, "names", "colors", "ignore", "label_map"))
    fields.require("train")
    names = class_names(fields)
    ignore, label_map = label_values(fields, len(names))
    return DataDescription(
        task="segmentation",
        dataset=None,
        path=path,
        splits={name: _mask_split(fields, name) for name in SPLITS if name in fields},
        names=names,
        colors=class_colors(fields, len(names)),
        ignore=ignore,
        label_map=label_map,
    )


def _mask_split(fields: Fields, name: Split) -> SplitFolders | SplitList:
    split = fields.nested(name, "{images: DIR, labels: DIR}")
    split.allow(("images", "labels", "image_suffix", "label_suffix", "list"))
    if "list" in split:
        if len(split) > 1:
            raise fields.error(name, "mixes 'list' with folders", "either {list: FILE} or {images: DIR, labels: DIR}")
        return SplitList(list=split.required_text("list"))
    return SplitFolders(
        images=split.required_text("images"),
        labels=split.required_text("labels"),
        image_suffix=split.text("image_suffix", None),
        label_suffix=split.text("label_suffix", None),
    )


def _pose(fields: Fields, dataset: str | None, path: Path) -> DataDescription:
    fields.allow(("task", "dataset", "path", *SPLITS, *KEYS))
    if dataset is None:
        fields.require("train")
    splits = {name: _keypoint_split(fields, name) for name in SPLITS if name in fields}
    skeleton = whole_skeleton(fields)
    names = skeleton.names if skeleton else ()
    return DataDescription(
        task="pose",
        dataset=dataset,
        path=path,
        splits=splits,
        names=names,
        colors=default_palette(len(names)),
        skeleton=skeleton,
        given=GivenJoints() if skeleton else GivenJoints.of(fields),
    )


def _keypoint_split(fields: Fields, name: Split) -> SplitKeypoints:
    split = fields.nested(name, "{coco: FILE, images: DIR}")
    split.allow(("coco", "images", "boxes"))
    if name == "train" and split.get("boxes") is not None:
        raise split.error("boxes", "is given", "left out: joints are learnt in labelled boxes")
    return SplitKeypoints(
        coco=split.required_text("coco"), images=split.required_text("images"), boxes=split.text("boxes", None)
    )


def _classification(fields: Fields, dataset: str | None, path: Path) -> DataDescription:
    fields.allow(("task", "dataset", "path", *SPLITS, "names"))
    splits = {name: _class_split(fields, name) for name in SPLITS if name in fields}
    if splits:
        fields.require("train")
    value = fields.get("names", {})
    if isinstance(value, list):
        value = {name: name for name in value}
    if not isinstance(value, Mapping) or len(value) == 1:
        raise fields.wrong("names", value, "a list of class folders, at least 2, or a mapping of class folder to name")
    folders = tuple(fields.text_value("names", folder) for folder in value)
    names = tuple(fields.text_value(f"names[{folder}]", value[folder]) for folder in folders)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise fields.error("names", f"holds '{twice}' twice", "a different name for each class")
    return DataDescription(
        task="classification",
        dataset=dataset,
        path=path,
        splits=splits,
        names=names,
        colors=default_palette(len(names)),
        folders=folders,
    )


def _class_split(fields: Fields, name: Split) -> SplitClasses:
    split = fields.nested(name, "{images: DIR}")
    split.allow(("images",))
    return SplitClasses(images=split.required_text("images"))


def _class_splits(path: Path) -> dict[Split, SplitSource]:
    """Return where the splits of a classification set are that has them under their usual names."""
    usual: dict[Split, tuple[str, ...]] = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
    found: dict[Split, SplitSource] = {}
    for split, names in usual.items():
        for name in names:
            folder = path / name
            if split in found or not folder.is_dir():
                continue
            if any(entry.is_dir() for entry in folder.iterdir()):
                found[split] = SplitClasses(images=name)
            elif split == "validation" and any(entry.suffix.lower() in IMAGE_ENDINGS for entry in folder.iterdir()):
                raise InputError(
                    f"{folder} holds images without a folder for each class, as ImageNet's archive unpacks. Sort them "
                    "into the class folders of train, or give another folder as 'validation: {images: FOLDER}'."
                )
    if "train" not in found:
        raise InputError(
            f"{path} holds no train/ with a folder of images for each class. Give 'train: {{images: FOLDER}}', or mend "
            "'path'."
        )
    return found


def _detection3d(fields: Fields, dataset: str | None, path: Path) -> DataDescription:
    splits: Mapping[Split, SplitSource]
    if dataset is not None:
        fields.allow(("task", "dataset", "path"), f"for dataset {dataset} ")
        splits, classes = kitti.SPLIT_SOURCES, CLASSES
    else:
        fields.allow(("task", "path", *SPLITS, "names", "anchors"))
        fields.require("train")
        splits = {name: _kitti_split(fields, name) for name in SPLITS if name in fields}
        classes = box_classes(fields)
    names = tuple(known.name for known in classes)
    return DataDescription(
        task="detection3d",
        dataset=dataset,
        path=path,
        splits=splits,
        names=names,
        colors=colors_of(names),
        classes=classes,
    )


def _kitti_split(fields: Fields, name: Split) -> SplitKitti:
    split = fields.nested(name, "{kitti: DIR, list: FILE}")
    split.allow(("kitti", "list"))
    return SplitKitti(kitti=split.required_text("kitti"), list=split.text("list", None))


def _path(fields: Fields, folder: Path) -> Path:
    text = fields.text("path", ".")
    assert text is not None
    return (folder / Path(text).expanduser()).resolve()


def _toycity(fields: Fields, task: str) -> DataDescription:
    size = fields.get("size", list(TOYCITY_SIZES[task]))
    if not isinstance(size, list) or len(size) != 2:
        raise fields.wrong("size", size, "[height, width] in pixels")
    height, width = (fields.integer_value("size", side, 16, 4096) for side in size)
    if task == "detection3d" and (height, width) != TOYCITY_SIZES[task]:
        raise fields.wrong(
            "size", size, f"{list(TOYCITY_SIZES[task])}, or left out: the camera of the drives has one size"
        )
    lengths = fields.nested("length", "{train: 256}") if "length" in fields else Fields.of({}, fields.where)
    lengths.allow(SPLITS)
    names, colors = {
        "segmentation": (ToyCity.NAMES, ToyCity.COLORS),
        "pose": (COCO_SKELETON.names, ToyCityPeople.COLORS),
        "classification": (ToyCityCrops.NAMES, ToyCityCrops.COLORS),
        "detection3d": (tuple(known.name for known in CLASSES), COLORS),
    }[task]
    return DataDescription(
        task=task,
        dataset="toycity",
        path=None,
        splits={},
        names=names,
        colors=colors,
        skeleton=COCO_SKELETON if task == "pose" else None,
        classes=CLASSES if task == "detection3d" else (),
        toycity=Rendering(
            size=(height, width),
            length={name: lengths.integer(name, 1, 1_000_000) for name in SPLITS if name in lengths},
            seed=fields.integer("seed", 0, 2**31 - 1, default=0),
        ),
    )
