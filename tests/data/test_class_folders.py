"""A folder for each class: which images belong to which class, and what is wrong with a tree, in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from hrnas.data.data_yaml import completed, parse_description, read_description
from hrnas.data.doctor import examine
from hrnas.data.opening import open_split
from hrnas.errors import InputError


def picture(file: Path, shade: int, size: tuple[int, int] = (10, 12), mode: str = "RGB") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(shade).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(file)
    return file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Classes ape, bee, cow; the validation split is called val, as ImageNet's is."""
    shade = 0
    for split, count in (("train", 3), ("val", 2)):
        for name in ("cow", "ape", "bee"):
            for number in range(count):
                shade += 1
                picture(tmp_path / split / name / f"{name}{number}.png", shade, (10 + number, 12))
    (tmp_path / "data.yaml").write_text("task: classification\n")
    return tmp_path


def describe(root: Path, **fields: Any) -> Any:
    (root / "data.yaml").write_text(yaml.safe_dump({"task": "classification", **fields}, sort_keys=False))
    return read_description(root)


def test_folders_are_the_classes_in_alphabetical_order(root: Path) -> None:
    description = read_description(root)
    assert description.names == description.folders == ("ape", "bee", "cow")
    assert description.split_names == ("train", "validation")
    train = open_split(description, "train")
    assert [train.read(index).truth for index in range(len(train))] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert train.read(3).name == "bee/bee0"
    assert train.read(4).content.shape == (11, 12, 3)
    assert list(train.pictures().values()) == [[index] for index in range(9)]
    assert len(open_split(description, "validation")) == 6


def test_names_give_order_and_words(root: Path) -> None:
    description = describe(root, names={"cow": "a cow", "bee": "a bee", "ape": "an ape"})
    assert (description.folders, description.names) == (("cow", "bee", "ape"), ("a cow", "a bee", "an ape"))
    validation = open_split(description, "validation")
    assert [validation.read(index).name[:3] for index in range(6)] == ["cow", "cow", "bee", "bee", "ape", "ape"]
    assert describe(root, names=["bee", "ape", "cow"]).names == ("bee", "ape", "cow")


def test_what_a_run_keeps_is_the_same_description_and_needs_no_files(root: Path) -> None:
    description = describe(root, train={"images": "train"}, validation={"images": "val"})
    plain = yaml.safe_load(yaml.safe_dump(description.to_dict(), sort_keys=False))
    again = parse_description(plain, where="config", folder=Path("/nowhere"))
    assert again == description
    assert completed(again, where="config") == description


def test_a_known_layout_needs_only_a_path(root: Path) -> None:
    (root / "here.yaml").write_text(f"dataset: imagenet\npath: {root}\n")
    description = read_description(root / "here.yaml")
    assert (description.task, description.dataset) == ("classification", "imagenet")
    assert description.names == ("ape", "bee", "cow")


def test_grey_and_palette_pictures_are_read_as_colours(root: Path) -> None:
    picture(root / "train" / "ape" / "ape0.png", 77, mode="L")
    picture(root / "train" / "ape" / "ape1.png", 78, mode="P")
    train = open_split(read_description(root), "train")
    assert [train.read(index).content.shape[2] for index in range(2)] == [3, 3]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda root: [file.unlink() for file in (root / "val" / "bee").iterdir()],
            r"val/bee of split .validation.",
        ),
        (
            lambda root: picture(root / "val" / "dog" / "x.png", 1),
            r"has the class folder 'dog', which is not among",
        ),
        (lambda root: (root / "val" / "bee").rename(root / "bee"), r"val/bee of split 'validation' does not exist"),
        (lambda root: (root / "val" / "bee" / "bee0.png").write_bytes(b"no"), r"bee0\.png is not a picture Pillow"),
    ],
)
def test_what_is_wrong_with_a_split_is_said_in_a_line(root: Path, spoil: Any, message: str) -> None:
    spoil(root)
    with pytest.raises(InputError, match=message) as error:
        open_split(read_description(root), "validation")
    assert "\n" not in str(error.value)


def test_validation_images_without_class_folders_are_told(root: Path) -> None:
    for file in (root / "val").rglob("*.png"):
        file.rename(root / "val" / f"{file.parent.name}-{file.name}")
    for folder in ("ape", "bee", "cow"):
        (root / "val" / folder).rmdir()
    with pytest.raises(InputError, match=r"val holds images without a folder for each class"):
        read_description(root)


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "one" / "x.png", 1)
    with pytest.raises(InputError, match="train holds 1 class folder; at least 2 are needed"):
        describe(tmp_path)
    with pytest.raises(InputError, match="holds no train/ with a folder of images for each class"):
        describe(tmp_path / "train")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ape"], "a list of class folders, at least 2"),
        ("ape", "a list of class folders, at least 2"),
        ({"ape": "x", "bee": "x"}, "holds 'x' twice"),
        ({"ape": "x", "bee": ""}, r"names\[bee\]"),
    ],
)
def test_bad_names_are_refused(root: Path, names: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe(root, names=names)


def test_the_doctor_counts_images_and_finds_repeated_and_broken_ones(root: Path) -> None:
    (root / "val" / "ape" / "ape0.png").write_bytes((root / "train" / "cow" / "cow0.png").read_bytes())
    broken = root / "train" / "bee" / "bee1.png"
    broken.write_bytes(broken.read_bytes()[:90])
    found = examine(read_description(root))
    assert found.counted == "image of"
    train, validation = found.splits
    assert train.counts == (3, 2, 3)
    assert validation.shares == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert found.repeated == (("train: cow/cow0", "validation: ape/ape0"),)
    assert len(found.problems) == 1
    assert str(broken) in found.problems[0]
