"""Sets kept as files: pairing, decoding, label values, and one line for each thing that can be wrong with them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hrnas.data.data_yaml import read_description
from hrnas.data.decoding import UNKNOWN, LabelTable, read_image, read_mask
from hrnas.data.folders import find_pairs
from hrnas.data.opening import open_split
from hrnas.errors import InputError
from hrnas.structures import IGNORED


def refused(description: Any, *parts: str, split: Any = "train") -> None:
    """Assert that opening, or else reading, is refused in one line that holds the parts."""

    def read() -> None:
        opened = open_split(description, split)
        for index in range(len(opened)):
            opened.read(index)

    with pytest.raises(InputError) as error:
        read()
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def stored_mode(file: Path) -> str:
    with Image.open(file) as picture:
        return picture.mode


def test_a_split_is_read_in_sorted_order(full_tree) -> None:
    opened = open_split(full_tree.description(), "train")
    assert len(opened) == 3
    assert opened.names == ("a", "b", "c")
    assert [opened.read(index).name for index in range(3)] == ["r0", "r1", "r2"]
    sample = opened.read(1)
    assert sample.content.shape == (12, 16, 3)
    assert sample.truth.dtype == np.uint8
    assert np.array_equal(sample.content, read_image(full_tree.root / "images/train/r1.png"))
    assert np.array_equal(np.unique(sample.truth), [0, 1, 2])


@pytest.mark.parametrize("suffix", ["_mask", "_gtFine_labelIds", "_L", "-seg"])
def test_masks_may_have_one_suffix(tree, suffix: str) -> None:
    for stem in ("1", "10", "10_b"):  # each is the beginning of the next
        tree.image(f"images/train/{stem}.jpg")
        tree.mask(f"masks/train/{stem}{suffix}.png")
    pairs = find_pairs(tree.description(), "train").pairs
    assert [(pair.name, pair.mask.stem) for pair in pairs] == [(s, s + suffix) for s in ("1", "10", "10_b")]


def test_a_suffix_is_never_a_further_digit(tree) -> None:
    tree.image("images/train/1.jpg")
    tree.mask("masks/train/10.png")
    refused(tree.description(), "1.jpg", "no mask")


def test_several_kinds_of_masks_are_refused(tree) -> None:
    tree.image("images/train/x.jpg")
    tree.mask("masks/train/x_color.png")
    tree.mask("masks/train/x_ids.png")
    refused(tree.description(), "several masks per image", "'_color', '_ids'", "list file")


def test_folders_below_are_paired_by_their_paths(tree) -> None:
    for city in ("aachen", "bonn"):
        tree.image(f"images/train/{city}/x.png")
        tree.mask(f"masks/train/{city}/x.png")
    pairs = find_pairs(tree.description(), "train").pairs
    assert [pair.name for pair in pairs] == ["aachen/x", "bonn/x"]
    assert [pair.mask.parent.name for pair in pairs] == ["aachen", "bonn"]


def test_hidden_and_foreign_files_are_left_out(full_tree) -> None:
    full_tree.text("notes", "images/train/notes.txt")
    full_tree.text("x", "images/train/._r0.png")
    assert len(open_split(full_tree.description(), "train")) == 3


def test_a_list_file_keeps_its_order_and_may_hold_spaces(tree) -> None:
    for stem in ("z", "a"):
        tree.image(f"pictures/{stem} 1.png")
        tree.mask(f"labels/{stem}.png")
    tree.text("pictures/z 1.png\tlabels/z.png\n\npictures/a 1.png\tlabels/a.png\n", "train.txt")
    opened = open_split(tree.description(train={"list": "train.txt"}), "train")
    assert [opened.read(index).name for index in range(2)] == ["z 1", "a 1"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("images/a.png\n", ["train.txt, line 1", "1 parts", "image mask"]),
        ("x y\nx z\n", ["train.txt, line 2", "listed twice"]),
        ("\n", ["'train' is empty", "train.txt"]),
        (None, ["train.txt", "cannot be read", "train.list"]),
        ("images/a.png masks/b.png\n", ["a.png", "no mask"]),
    ],
)
def test_a_bad_list_file_is_refused(tree, text: str | None, parts: list[str]) -> None:
    if text is not None:
        tree.text(text, "train.txt")
    refused(tree.description(train={"list": "train.txt"}), *parts)


def test_a_listed_image_that_is_not_there_is_refused(tree) -> None:
    tree.mask("a.png")
    tree.text("nowhere.png a.png\n", "train.txt")
    refused(tree.description(train={"list": "train.txt"}), "nowhere.png", "does not exist")


def test_missing_masks_are_named_and_counted(full_tree) -> None:
    full_tree.image("images/train/r3.jpg")
    refused(full_tree.description(), "images/train/r3.jpg of split 'train' has no mask", "take the image out")
    full_tree.image("images/train/r4.jpg")
    full_tree.image("images/train/r5.jpg")
    refused(full_tree.description(), "r3.jpg and 2 more images of split 'train' have no mask")


def test_an_empty_split_is_refused(full_tree) -> None:
    for file in (full_tree.root / "images/train").iterdir():
        file.unlink()
    refused(full_tree.description(), "'train' is empty", "images/train", "train.images")


def test_a_folder_of_jpeg_masks_is_refused(tree) -> None:
    tree.image("images/train/a.png")
    tree.image("masks/train/a.jpg")
    refused(tree.description(), "holds no mask", "JPEG", "train.labels")


def test_absent_or_shared_folders_are_refused(full_tree) -> None:
    refused(full_tree.description(train={"images": "nowhere", "labels": "masks"}), "nowhere", "train.images")
    refused(full_tree.description(train={"images": "images", "labels": "nowhere"}), "nowhere", "train.labels")
    refused(full_tree.description(train={"images": "images", "labels": "images"}), "in one folder", "list file")


def test_images_that_differ_in_their_ending_alone_are_refused(full_tree) -> None:
    full_tree.image("images/train/r0.jpg")
    refused(full_tree.description(), "r0.jpg", "r0.png", "ending alone")


def test_an_absent_split_is_refused(full_tree) -> None:
    refused(full_tree.description(), "no split 'test'", "Known: train, validation", split="test")
    refused(full_tree.description(), "Did you mean 'train'?", split="trian")


def test_different_sizes_are_refused_at_opening(full_tree) -> None:
    full_tree.mask("masks/train/r1.png", size=(12, 17))
    with pytest.raises(InputError, match=r"r1.png is 16x12 but its mask .*r1.png is 17x12 \(width x height\)"):
        open_split(full_tree.description(), "train")


def test_a_turned_image_is_explained(full_tree) -> None:
    full_tree.mask("masks/train/r1.png", size=(16, 12))
    refused(full_tree.description(), "EXIF orientation")


def test_a_size_that_changes_after_opening_is_refused(full_tree) -> None:
    opened = open_split(full_tree.description(), "train")
    full_tree.mask("masks/train/r1.png", size=(12, 17))
    with pytest.raises(InputError, match="16x12 but its mask"):
        opened.read(1)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_truncated_image_is_refused(tree, ending: str) -> None:
    image = tree.image(f"images/train/x.{ending}", size=(64, 64))
    tree.mask("masks/train/x.png", size=(64, 64))
    image.write_bytes(image.read_bytes()[: image.stat().st_size * 2 // 3])
    refused(tree.description(), str(image), "corrupt or truncated", "take it out of its split")


def test_a_corrupt_mask_is_refused(full_tree) -> None:
    mask = full_tree.root / "masks/train/r1.png"
    content = bytearray(mask.read_bytes())
    place = content.index(b"IDAT") + 6
    content[place : place + 4] = b"\0\1\2\3"
    mask.write_bytes(bytes(content))
    refused(full_tree.description(), f"Mask {mask}", "corrupt or truncated")


def test_a_file_that_is_no_picture_is_refused(full_tree) -> None:
    (full_tree.root / "images/train/r1.png").write_text("hello")
    refused(full_tree.description(), "r1.png", "not a picture")


def test_values_out_of_range_are_listed_with_their_pixels(full_tree) -> None:
    full_tree.mask("masks/train/r1.png", values=(0, 7, 9, 9))
    refused(
        full_tree.description(), "masks/train/r1.png", "9 (96 pixels), 7 (48 pixels)", "names", "ignore", "label_map"
    )


def test_label_map_refuses_values_it_does_not_list(full_tree) -> None:
    refused(full_tree.description(label_map={0: 2, 1: 1}), "r0.png", "2 (60 pixels)", "label_map")


def test_label_map_and_ignore(full_tree) -> None:
    full_tree.mask("masks/train/r0.png", values=(5, 6, 7, 40))
    opened = open_split(full_tree.description(label_map={5: 2, 6: 0, 7: None}, ignore=40), "train")
    assert opened.read(0).truth[0].tolist() == [2] * 4 + [0] * 4 + [IGNORED] * 8


def test_a_palette_mask_is_read_as_indices_and_a_grey_one_as_values(tree) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    palette = Image.fromarray(values).convert("P")
    palette.putdata(values.ravel().tolist())
    palette.putpalette([200, 10, 30, 7, 7, 7, 90, 91, 92])
    palette.save(tree.root / "p.png")
    Image.fromarray(values).save(tree.root / "l.png")
    Image.fromarray(values.astype(np.uint16)).save(tree.root / "i16.png")
    Image.fromarray(values.astype(np.int32)).save(tree.root / "i32.tif")
    labels = LabelTable.build(3, (255,), None)
    assert stored_mode(tree.root / "p.png") == "P"
    for file in ("p.png", "l.png", "i16.png", "i32.tif"):
        mask = read_mask(tree.root / file, labels)
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, values), file
    Image.fromarray(values > 0).save(tree.root / "one.png")
    assert np.array_equal(read_mask(tree.root / "one.png", labels), values > 0)


def test_wide_values_are_mapped_or_listed(tree) -> None:
    file = tree.picture("m.png", np.array([[300, 1000], [65535, 300]], np.uint16))
    labels = LabelTable.build(2, (65535,), {300: 1, 1000: 0})
    assert read_mask(file, labels).tolist() == [[1, 0], [IGNORED, 1]]
    signed = tree.picture("m.tif", np.array([[-1, 70_000], [300, 70_000]], np.int32))
    with pytest.raises(InputError, match=re.escape("70000 (2 pixels), -1 (1 pixel)")):
        read_mask(signed, labels)


def test_a_colour_mask_is_refused(full_tree) -> None:
    full_tree.image("masks/train/r1.png")
    refused(full_tree.description(), "masks/train/r1.png", "mode RGB", "class indices", "PNG of mode P or L")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_images_of_other_modes_become_rgb(tree, mode: str) -> None:
    array = np.full((4, 5, 3), 255, np.uint8)
    file = tree.picture("x.tif", array, mode=mode)
    assert stored_mode(file) == mode
    assert np.array_equal(read_image(file), array)


def test_a_palette_image_with_transparency_brings_no_warning(tree) -> None:
    picture = Image.fromarray(np.full((4, 5, 3), (9, 8, 7), np.uint8)).convert("P", palette=Image.Palette.ADAPTIVE)
    picture.save(tree.root / "x.png", transparency=b"\x80\xff")
    assert np.array_equal(read_image(tree.root / "x.png"), np.full((4, 5, 3), (9, 8, 7)))


def test_an_image_of_16_bits_is_refused(tree) -> None:
    file = tree.picture("x.png", np.full((4, 5), 3000, np.uint16))
    with pytest.raises(InputError, match="more than 8 bits"):
        read_image(file)


@given(st.integers(2, 254), st.data())
def test_the_table_maps_each_value_as_described(num_classes: int, data: st.DataObject) -> None:
    values = st.integers(0, 65_535)
    label_map = data.draw(st.dictionaries(values, st.none() | st.integers(0, num_classes - 1), min_size=1, max_size=8))
    ignore = tuple(data.draw(st.sets(values.filter(lambda value: value not in label_map), max_size=3)))
    table = LabelTable.build(num_classes, ignore, label_map).table
    seen = {int(value): int(table[value]) for value in np.flatnonzero(table != UNKNOWN)}
    assert seen == {
        value: IGNORED if target is None else target for value, target in label_map.items()
    } | dict.fromkeys(ignore, IGNORED)


def test_toycity_is_opened_as_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRNAS_CACHE", str(tmp_path))
    file = tmp_path / "data.yaml"
    file.write_text("{dataset: toycity, size: [32, 48], length: {test: 2}, seed: 3}")
    description = read_description(file)
    opened = open_split(description, "test")
    assert len(opened) == 2
    assert len(opened.names) == len(opened.colors) == len(description.names)
    sample = opened.read(1)
    assert sample.content.shape == (32, 48, 3)
    assert sample.truth.shape == (32, 48)
    assert sample.truth.max() < len(description.names)
