"""hrnas toycity: a whole set on disk, its result as JSON, errors in a line."""

from pathlib import Path

import yaml

from commands.tiny import hrnas
from hrnas.data.kitti_files import read_objects


def test_a_set_is_written_and_described(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    words = ("toycity", folder, "--train", "1", "--validation", "1", "--test", "0", "--seed", "2")
    result = hrnas(*words, "--json").result
    assert (result["verb"], result["folder"]) == ("toycity", str(folder))
    assert result["frames"] == {"train": 1, "validation": 1, "test": 0}
    types = [name for file in (folder / "training" / "label_2").iterdir() for name in read_objects(file).types]
    assert result["objects"] == {name: types.count(name) for name in types}
    assert {"Car", "Pedestrian"} <= set(types)
    assert yaml.safe_load((folder / "data.yaml").read_text())["task"] == "detection3d"
    again = hrnas(*words)
    assert again.code == 2
    assert again.err == f"hrnas: {folder} is there and not an empty folder. Name another, or remove it.\n"


def test_numbers_that_are_too_low(tmp_path: Path) -> None:
    outcome = hrnas("toycity", tmp_path / "set", "--train", "0")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "hrnas: Toy City length is 0; at least 1 sample is needed. Give a larger length or none.\n"
    assert not (tmp_path / "set").exists()
