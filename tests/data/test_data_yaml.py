"""data.yaml: what is read, what is refused, and that a description survives the way into a run's config and back."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hrnas.data.data_yaml import parse_description, read_description
from hrnas.data.description import SPLITS, SplitFolders, SplitList
from hrnas.errors import InputError


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_folders_are_read(tree) -> None:
    description = tree.description(
        colors=[[1, 2, 3], [4, 5, 6], [7, 8, 9]], ignore=[250, 255], label_map={7: 0, 8: 1, 9: 2, 10: None}
    )
    assert description.task == "segmentation"
    assert description.path == tree.root.resolve()
    assert description.split_names == ("train", "validation")
    assert description.splits["train"] == SplitFolders(images="images/train", labels="masks/train")
    assert description.names == ("a", "b", "c")
    assert description.colors == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    assert description.ignore == (250, 255)
    assert description.label_map == {7: 0, 8: 1, 9: 2, 10: None}


def test_defaults(tree) -> None:
    description = tree.description()
    assert description.ignore == (255,)
    assert description.label_map is None
    assert len(set(description.colors)) == 3


def test_names_as_a_mapping_and_splits_as_lists(tree) -> None:
    description = tree.description(names={1: "b", 0: "a"}, train={"list": "train.txt"})
    assert description.names == ("a", "b")
    assert description.splits["train"] == SplitList(list="train.txt")


def test_the_source_may_be_the_file_the_folder_or_a_built_in_set(tree) -> None:
    file = tree.yaml()
    assert read_description(file) == read_description(str(tree.root)) == read_description(tree.root)
    assert read_description("toycity").dataset == "toycity"


def test_path_is_relative_to_the_yaml(tree) -> None:
    (tree.root / "below").mkdir()
    assert tree.description(path="below").path == (tree.root / "below").resolve()


def test_toycity(tree) -> None:
    description = read_description(
        tree.text("{dataset: toycity, size: [48, 64], length: {train: 3, test: 2}, seed: 7}")
    )
    assert description.toycity is not None
    assert description.toycity.size == (48, 64)
    assert dict(description.toycity.length) == {"train": 3, "test": 2}
    assert description.toycity.seed == 7
    assert description.split_names == SPLITS
    assert len(description.colors) == len(description.names)


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"ignore": [], "label_map": {200: 2, 255: 0, 3: None}},
        {"test": {"list": "test.txt"}, "colors": [[0, 0, 1], [0, 1, 0], [1, 0, 0]]},
    ],
)
def test_to_dict_is_read_back_as_the_same(tree, plain: dict[str, Any]) -> None:
    description = tree.description(**plain)
    stored = yaml.safe_load(yaml.safe_dump(description.to_dict()))
    assert stored["path"] == str(tree.root.resolve())
    assert parse_description(stored, where="config.yaml", folder=Path("elsewhere")) == description


@pytest.mark.parametrize(
    "text", ["dataset: toycity", "{dataset: toycity, size: [48, 64], length: {train: 3}, seed: 7}"]
)
def test_a_built_in_set_is_read_back_as_the_same(tree, text: str) -> None:
    description = read_description(tree.text(text))
    assert parse_description(description.to_dict(), where="config.yaml", folder=Path()) == description


# Each: changes of the fields, and what the message must hold besides the file's name.
BAD_FIELDS: list[tuple[dict[str, Any], list[str]]] = [
    ({"label_mapp": 1}, ["unknown key 'label_mapp'", "Did you mean 'label_map'?", "Known: "]),
    ({"colours": []}, ["unknown key 'colours'", "Did you mean 'colors'?"]),
    ({"train": {"imges": "x", "labels": "y"}}, ["'train.imges'", "Did you mean 'images'?"]),
    ({"train": {"images": "x"}}, ["'train.labels' is missing"]),
    ({"train": {"images": 3, "labels": "y"}}, ["'train.images' is 3 (an integer)", "a text"]),
    ({"train": {"images": "x", "labels": "y", "list": "z"}}, ["'train' mixes", "{list: FILE}"]),
    ({"train": "images"}, ["'train' is 'images' (a text)", "{images: DIR, labels: DIR}"]),
    ({"train": None}, ["'train' is missing"]),
    ({"task": None}, ["'task' is missing", "segmentation"]),
    ({"task": "segmantation"}, ["'segmantation'", "Did you mean 'segmentation'?"]),
    ({"task": True}, ["'task' is true (a yes/no value"]),
    ({"dataset": "camvit"}, ["'camvit'", "Did you mean 'camvid'?"]),
    ({"names": None}, ["'names' is missing"]),
    ({"names": "sky"}, ["'names' is 'sky' (a text)", "a list of class names"]),
    ({"names": ["sky"]}, ["'names' has 1 classes", "2 to 254"]),
    ({"names": ["yes", True]}, ["'names[1]' is true", "quote it"]),
    ({"names": ["sky", ""]}, ["'names[1]'", "a text"]),
    ({"names": ["sky", "sky"]}, ["'names' holds 'sky' twice"]),
    ({"names": {0: "a", 2: "b"}}, ["'names' has the indices 0, 2", "without a gap"]),
    ({"names": {"a": 0, "b": 1}}, ["'names, index a' is 'a' (a text)"]),
    ({"names": {False: "a", True: "b"}}, ["'names, index False' is false"]),
    ({"colors": [[0, 0, 0]]}, ["'colors' has 1 colours for 3 names"]),
    ({"colors": [[0, 0, 0], [0, 0, 300], [1, 1, 1]]}, ["'colors[1]' is 300", "0..255"]),
    ({"colors": [[0, 0, 0], [0, 0], [1, 1, 1]]}, ["'colors[1]' is [0, 0]", "[red, green, blue]"]),
    ({"colors": "red"}, ["'colors' is 'red' (a text)"]),
    ({"ignore": "255"}, ["'ignore' is '255' (a text)", "0..65535"]),
    ({"ignore": True}, ["'ignore' is true"]),
    ({"ignore": [255, -1]}, ["'ignore' is -1"]),
    ({"ignore": 1}, ["'ignore' is 1", "class 'b'", "label_map"]),
    ({"label_map": [0, 1]}, ["'label_map' is [0, 1] (a list)", "{7: 0, 8: 1}"]),
    ({"label_map": {7: 3}}, ["'label_map[7]' is 3", "0..2"]),
    ({"label_map": {7: True}}, ["'label_map[7]' is true"]),
    ({"label_map": {"7": 1}}, ["'label_map, key 7' is '7' (a text)"]),
    ({"label_map": {255: 1}}, ["'label_map[255]' is also in ignore"]),
    ({"path": 3}, ["'path' is 3 (an integer)"]),
    ({"path": "nowhere"}, ["'path' leads to", "nowhere", "not a folder"]),
]


@pytest.mark.parametrize(("changes", "parts"), BAD_FIELDS, ids=lambda value: str(value)[:40])
def test_a_bad_field_is_refused_in_one_line_that_names_it(tree, changes: dict[str, Any], parts: list[str]) -> None:
    file = tree.yaml(**changes)
    with pytest.raises(InputError) as error:
        read_description(file)
    message = one_line(error)
    for part in [str(file), *parts]:
        assert part in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "dataset: camvid\nnames: [a, b]\n",
            ["unknown key 'names'", "for dataset camvid", "Known: dataset, path, task"],
        ),
        ("dataset: toycity\npath: .\n", ["unknown key 'path'", "for dataset toycity", "length"]),
        ("dataset: toycity\nsize: [8, 64]\n", ["'size' is 8", "16..4096"]),
        ("dataset: toycity\nsize: 64\n", ["'size' is 64", "[height, width]"]),
        ("dataset: toycity\nlength: {val: 3}\n", ["unknown key 'length.val'", "validation"]),
        ("dataset: toycity\nlength: {train: 0}\n", ["'length.train' is 0", "1..1000000"]),
        ("dataset: toycity\nseed: 1.5\n", ["'seed' is 1.5 (a number)"]),
        ("task: segmentation\ntask: pose\n", ["line 2", "'task' is given twice"]),
        ("names: [a, b\ntask: x\n", ["data.yaml, line 2, column ", "not valid YAML"]),
        ("- a\n- b\n", ["a list", "it must be a mapping"]),
        ("", ["is empty", "it must be a mapping"]),
        ("a: !!python/object:os.system {}\n", ["line 1", "not valid YAML"]),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tree, text: str, parts: list[str]) -> None:
    file = tree.text(text)
    with pytest.raises(InputError) as error:
        read_description(file)
    message = one_line(error)
    for part in [str(file), *parts]:
        assert part in message


def test_a_binary_file_is_refused(tree) -> None:
    file = tree.root / "data.yaml"
    file.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InputError, match="not a text file"):
        read_description(file)


def test_an_absent_source_is_refused(tree) -> None:
    with pytest.raises(InputError, match=re.escape("'toycty'. Give a data.yaml") + ".*Did you mean 'toycity'"):
        read_description("toycty")
    with pytest.raises(InputError, match=r"holds no data\.yaml"):
        read_description(tree.root)
