"""Small trees of images and masks, made for each test."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from hrnas.data.data_yaml import read_description
from hrnas.data.description import DataDescription

SPLIT_FIELDS = ("train", "validation", "test")


@dataclass
class Tree:
    """A folder of pictures with a data.yaml in it; three classes a, b, c."""

    root: Path

    def image(self, file: str, size: tuple[int, int] = (12, 16), seed: int | None = None) -> Path:
        """Write a random image of (H, W), another one for each name."""
        rng = np.random.default_rng(seed if seed is not None else list(file.encode()))
        return self.picture(file, rng.integers(0, 256, (*size, 3), np.uint8))

    def mask(self, file: str, size: tuple[int, int] = (12, 16), values: tuple[int, ...] = (0, 1, 2)) -> Path:
        """Write a mask of (H, W) with one band of columns for each value."""
        columns = np.asarray(values, np.uint8)[np.arange(size[1]) * len(values) // size[1]]
        return self.picture(file, np.tile(columns, (size[0], 1)))

    def picture(self, file: str, array: np.ndarray, mode: str | None = None) -> Path:
        """Write an array as a picture."""
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(array)
        (picture if mode is None else picture.convert(mode)).save(path)
        return path

    def pairs(self, split: str, stems: str | list[str], **mask: Any) -> None:
        """Write images and masks for each stem into images/SPLIT and masks/SPLIT."""
        for stem in stems:
            self.image(f"images/{split}/{stem}.png")
            self.mask(f"masks/{split}/{stem}.png", **mask)

    def fields(self, **changes: Any) -> dict[str, Any]:
        """Return the plain data.yaml of a tree with train and validation; a change to None takes a field out."""
        plain: dict[str, Any] = {"task": "segmentation", "names": ["a", "b", "c"]}
        for split in SPLIT_FIELDS[:2]:
            plain[split] = {"images": f"images/{split}", "labels": f"masks/{split}"}
        plain |= changes
        return {key: value for key, value in plain.items() if value is not None}

    def yaml(self, **changes: Any) -> Path:
        """Write data.yaml and return its path."""
        return self.text(yaml.safe_dump(self.fields(**changes)))

    def text(self, text: str, file: str = "data.yaml") -> Path:
        """Write a text file."""
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def description(self, **changes: Any) -> DataDescription:
        """Write data.yaml and read it."""
        return read_description(self.yaml(**changes))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty tree."""
    return Tree(tmp_path)


@pytest.fixture
def full_tree(tree: Tree) -> Tree:
    """A tree of three training and two validation pairs without a fault."""
    tree.pairs("train", ["r0", "r1", "r2"])
    tree.pairs("validation", ["v0", "v1"])
    return tree
