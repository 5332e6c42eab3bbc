"""Cityscapes: the layout with its real file names, and every label value mapped to its class."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hrnas.data import cityscapes
from hrnas.data.data_yaml import completed, parse_description
from hrnas.data.description import DataDescription
from hrnas.data.folders import find_pairs
from hrnas.data.opening import open_split
from hrnas.errors import InputError
from hrnas.structures import IGNORED

CITIES = {
    "train": {"zurich": ["zurich_000120_000019"], "aachen": ["aachen_000001_000019", "aachen_000000_000019"]},
    "val": {"frankfurt": ["frankfurt_000001_083852"]},
}

EVALUATED = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
"""The labels of the benchmark's score, in the order of its train ids, and their values in a labelIds file."""


@pytest.fixture
def city(tmp_path: Path) -> Path:
    """A tiny tree as the two archives unpack; the masks hold every value there is."""
    root = tmp_path / "cityscapes"
    values = np.arange(34, dtype=np.uint8).reshape(2, 17)
    for split, cities in {**CITIES, "test": {"berlin": ["berlin_000000_000019"]}}.items():
        for name, frames in cities.items():
            images, masks = root / "leftImg8bit" / split / name, root / "gtFine" / split / name
            images.mkdir(parents=True)
            masks.mkdir(parents=True)
            for frame in frames:
                Image.new("RGB", (17, 2), (10, 20, 30)).save(images / f"{frame}_leftImg8bit.png")
                Image.fromarray(values).save(masks / f"{frame}_gtFine_labelIds.png")
                Image.fromarray(values).save(masks / f"{frame}_gtFine_instanceIds.png")
                Image.new("RGBA", (17, 2)).save(masks / f"{frame}_gtFine_color.png")
                (masks / f"{frame}_gtFine_polygons.json").write_text(json.dumps({"imgHeight": 2}))
    return root


def described(city: Path) -> DataDescription:
    return completed(parse_description({"dataset": "cityscapes", "path": str(city)}, where="x", folder=city), where="x")


def test_every_image_has_its_mask(city: Path) -> None:
    description = described(city)
    assert description.split_names == ("train", "validation")
    names = []
    for split, own in (("train", "train"), ("validation", "val")):
        for pair in find_pairs(description, split).pairs:
            place = f"{own}/{pair.name.split('_')[0]}/{pair.name}"
            assert pair.image == city / f"leftImg8bit/{place}_leftImg8bit.png"
            assert pair.mask == city / f"gtFine/{place}_gtFine_labelIds.png"
            names.append(pair.name)
    assert names == ["aachen_000000_000019", "aachen_000001_000019", "zurich_000120_000019", "frankfurt_000001_083852"]


def test_every_value_becomes_its_class(city: Path) -> None:
    opened = open_split(described(city), "validation")
    expected = np.full(34, IGNORED)
    expected[list(EVALUATED.values())] = range(19)
    assert opened.read(0).truth.ravel().tolist() == expected.tolist()
    assert tuple(EVALUATED) == cityscapes.NAMES == opened.names
    # A licence plate that someone drew: -1 in 8 bits.
    assert opened.labels.apply(np.array([255], np.uint8)).tolist() == [IGNORED]
    Image.fromarray(np.full((2, 17), 34, np.uint8)).save(opened.pairs[0].mask)
    with pytest.raises(InputError, match="label values no class covers: 34"):
        opened.read(0)


def test_a_run_keeps_the_path_alone(city: Path) -> None:
    description = described(city)
    assert description.to_dict() == {"task": "segmentation", "dataset": "cityscapes", "path": str(city)}


def test_the_table_of_labels() -> None:
    assert [label.value for label in cityscapes.LABELS] == [*range(34), -1]
    assert len({label.name for label in cityscapes.LABELS}) == 35
    assert len(cityscapes.LABEL_MAP) == 35
    colors = dict(zip(cityscapes.NAMES, cityscapes.COLORS, strict=True))
    assert len(set(colors.values())) == 19
    assert colors["road"] == (128, 64, 128)
    assert colors["bicycle"] == (119, 11, 32)


@pytest.mark.parametrize("wrong", ["leftImg8bit", ".."])
def test_a_near_folder_is_told(city: Path, wrong: str) -> None:
    with pytest.raises(InputError) as caught:
        cityscapes.check_layout((city / wrong).resolve())
    assert f"Did you mean {city}?" in str(caught.value)
    assert "it lacks leftImg8bit/train/, leftImg8bit/val/, gtFine/train/, gtFine/val/." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_what_lacks_is_named(city: Path) -> None:
    (city / "gtFine" / "val").rename(city / "gtFine" / "other")
    with pytest.raises(InputError, match=r"it lacks gtFine/val/\. 'path' must name the folder into which"):
        cityscapes.check_layout(city)


def test_a_missing_mask_is_named(city: Path) -> None:
    lacking = city / "gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png"
    lacking.rename(lacking.with_name("aachen_000001_000019_gtFine_labelTrainIds.png"))
    with pytest.raises(InputError, match=r"aachen_000001_000019_leftImg8bit\.png of split 'train' has no mask\."):
        open_split(described(city), "train")
    (city / "gtFine/train/zurich/zurich_000120_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(InputError, match=r"and 1 more image of split 'train' have no mask"):
        open_split(described(city), "train")
    assert len(open_split(described(city), "validation")) == 1


def test_a_split_without_images_is_told(city: Path) -> None:
    (city / "leftImg8bit/val/frankfurt").rename(city / "leftImg8bit/frankfurt")
    with pytest.raises(InputError, match=r"Split 'validation' is empty: .* holds no image \(\*_leftImg8bit\.bmp"):
        open_split(described(city), "validation")
