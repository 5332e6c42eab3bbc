"""The CamVid layout: refused when it is not there, and the real set when it is at hand."""

import re
from pathlib import Path

import pytest

from hrnas.data.data_yaml import parse_description, read_description
from hrnas.data.description import DataDescription
from hrnas.data.doctor import examine
from hrnas.errors import InputError

CAMVID = Path(__file__).parents[3] / "shared" / "data" / "camvid"
COUNTS = {"train": 367, "validation": 101, "test": 233}


def test_another_folder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "data.yaml"
    file.write_text("{dataset: camvid, path: .}")
    for folder in ("train", "trainannot", "val", "valannot", "testannot"):
        (tmp_path / folder).mkdir()
    for listed in ("train.txt", "val.txt"):
        (tmp_path / listed).touch()
    with pytest.raises(
        InputError, match=re.escape(f"{tmp_path} is not a CamVid folder: it lacks test/, test.txt. 'path'")
    ):
        read_description(file)


@pytest.fixture
def camvid(tmp_path: Path) -> DataDescription:
    if not CAMVID.is_dir():
        pytest.skip(f"CamVid is not at {CAMVID}")
    file = tmp_path / "data.yaml"
    file.write_text(f"{{dataset: camvid, path: {CAMVID}}}")
    return read_description(file)


def test_the_real_set_has_its_counts_and_shares(camvid: DataDescription) -> None:
    """The shares are those the folder's README gives: 11 classes, then void, in percent of all pixels."""
    found = examine(camvid)
    assert found.problems == ()
    assert found.repeated == ()
    assert {split.split: split.num_pictures for split in found.splits} == COUNTS
    assert {split.split: split.num_read for split in found.splits} == COUNTS
    assert all(split.sizes == {(360, 480): COUNTS[split.split]} for split in found.splits)
    text = " ".join((CAMVID / "README.md").read_text(encoding="utf-8").split())
    for split, word in zip(found.splits, ("train", "val", "test"), strict=True):
        listed = re.search(rf"\b{word} ((?:[0-9.]+ ){{11}}[0-9.]+)", text)
        assert listed, word
        expected = [float(share) for share in listed[1].rstrip(".").split()]
        assert [100 * share for share in (*split.shares, split.ignored_share)] == pytest.approx(expected, abs=0.1)


def test_a_run_can_keep_its_description(camvid: DataDescription) -> None:
    plain = camvid.to_dict()
    assert plain == {"task": "segmentation", "dataset": "camvid", "path": str(CAMVID.resolve())}
    assert parse_description(plain, where="config.yaml", folder=Path()) == camvid
