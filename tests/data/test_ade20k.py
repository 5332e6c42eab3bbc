"""ADE20K: the layout with its real file names, and every label value mapped to its class."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hrnas.data import ade20k
from hrnas.data.data_yaml import completed, parse_description
from hrnas.data.decoding import LabelTable, read_mask
from hrnas.data.folders import find_pairs
from hrnas.data.opening import open_split
from hrnas.errors import InputError
from hrnas.structures import IGNORED

STEMS = {"training": ("ADE_train_00000002", "ADE_train_00000001"), "validation": ("ADE_val_00000001",)}


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    """A tiny tree as the archive unpacks; the masks hold every value there is."""
    root = tmp_path / "ADEChallengeData2016"
    values = np.arange(151, dtype=np.uint8).reshape(1, 151)
    for split, stems in STEMS.items():
        (root / "images" / split).mkdir(parents=True)
        (root / "annotations" / split).mkdir(parents=True)
        for stem in stems:
            Image.new("RGB", (151, 1), (10, 20, 30)).save(root / "images" / split / f"{stem}.jpg")
            Image.fromarray(values).save(root / "annotations" / split / f"{stem}.png")
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n")
    return root


def test_every_image_has_its_mask_and_every_value_its_class(ade: Path) -> None:
    plain = {"dataset": "ade20k", "path": str(ade)}
    description = completed(parse_description(plain, where="x", folder=ade), where="x")
    assert open_split(description, "validation").read(0).truth.ravel().tolist() == [IGNORED, *range(150)]
    labels = LabelTable.build(len(ade20k.NAMES), (), ade20k.LABEL_MAP)
    pairing = find_pairs(description, "train")
    assert [pair.name for pair in pairing.pairs] == ["ADE_train_00000001", "ADE_train_00000002"]
    assert (pairing.missing, pairing.unused) == ((), ())
    assert [pair.name for pair in find_pairs(description, "validation").pairs] == ["ADE_val_00000001"]
    for pair in pairing.pairs:
        assert read_mask(pair.mask, labels).ravel().tolist() == [IGNORED, *range(150)]
    assert labels.unknown(np.array([[151]], np.uint8), labels.apply(np.array([[151]], np.uint8))) == {151: 1}


def test_the_names_are_where_they_belong() -> None:
    assert len(ade20k.NAMES) == len(set(ade20k.NAMES)) == len(set(ade20k.COLORS)) == 150
    listed = {
        1: "wall", 2: "building", 3: "sky", 13: "person", 21: "car", 41: "base", 62: "bridge", 81: "bus", 100: "buffet",
        106: "conveyer belt", 121: "food", 128: "bicycle", 137: "traffic light", 142: "crt screen", 150: "flag",
    }  # fmt: skip
    assert {value: ade20k.NAMES[value - 1] for value in listed} == listed


@pytest.mark.parametrize("wrong", ["images", ".."])
def test_a_near_folder_is_told(ade: Path, wrong: str) -> None:
    with pytest.raises(InputError) as caught:
        ade20k.check_layout((ade / wrong).resolve())
    assert f"Did you mean {ade}?" in str(caught.value)
    assert "it lacks images/training/, annotations/training/, images/validation/, annotations/validation/." in str(
        caught.value
    )
    assert "\n" not in str(caught.value)


def test_only_what_lacks_is_named(ade: Path) -> None:
    (ade / "annotations" / "training").rename(ade / "annotations" / "train")
    with pytest.raises(InputError, match=r"it lacks annotations/training/\. 'path' must name the folder ADECh"):
        ade20k.check_layout(ade)
