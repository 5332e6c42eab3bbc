"""The data doctor finds every fault of a tree at once; the contact sheet shows it all the same."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hrnas.data.data_yaml import read_description
from hrnas.data.doctor import UnknownValue, examine
from hrnas.data.pictures import UNKNOWN_COLOR
from hrnas.data.sheet import contact_sheet


def test_a_sound_tree_has_nothing_to_report(full_tree) -> None:
    found = examine(full_tree.description())
    assert found.problems == ()
    assert found.warnings == ()
    assert found.repeated == ()
    train, validation = found.splits
    assert (train.split, train.num_pictures, train.num_read) == ("train", 3, 3)
    assert validation.num_pictures == 2
    assert train.sizes == {(12, 16): 3}
    assert train.counts == (3 * 72, 3 * 60, 3 * 60)
    assert train.shares == pytest.approx((72 / 192, 60 / 192, 60 / 192))
    assert train.ignored == 0


def test_every_fault_is_found_at_once(full_tree) -> None:
    full_tree.pairs("train", ["s0", "s1", "s2", "s3", "s4"])
    broken = full_tree.image("images/train/s0.png", size=(40, 40))
    broken.write_bytes(broken.read_bytes()[:500])
    full_tree.mask("masks/train/s1.png", size=(12, 20))
    full_tree.mask("masks/train/s2.png", values=(0, 77, 77, 88))
    full_tree.mask("masks/train/s3.png", values=(77, 255))
    full_tree.image("masks/train/s4.png")
    lonely = full_tree.image("images/train/t0.png")
    unused = full_tree.mask("masks/train/u0.png")
    found = examine(full_tree.description())
    train = found.splits[0]
    assert (train.num_pictures, train.num_read) == (8, 5)
    assert train.missing_masks == (lonely,)
    assert train.unused_masks == (unused,)
    assert [str(broken) in train.broken[0], "s4.png" in train.broken[1], len(train.broken)] == [True, True, 2]
    assert len(train.mismatched) == 1
    assert "s1.png is 16x12 but its mask" in train.mismatched[0]
    assert train.unknown == (
        UnknownValue(value=77, pixels=96 + 96, files=2, example="s2"),
        UnknownValue(value=88, pixels=48, files=1, example="s2"),
    )
    assert train.ignored == 96
    assert train.ignored_share == pytest.approx(96 / train.total)
    for part in (
        f"1 image without a mask, such as {lonely}",
        "2 broken files, the first: Image",
        "1 pair of different sizes",
        "77 (192 pixels), 88 (48 pixels); see 's2'. Add their classes to names",
    ):
        assert any(part in problem for problem in found.problems), part
    assert len(found.problems) == 4
    assert [line for line in found.warnings if "1 mask without an image" in line]
    assert all("\n" not in line for line in (*found.problems, *found.warnings))


def test_an_absent_split_and_one_that_cannot_be_opened_are_problems(full_tree) -> None:
    found = examine(full_tree.description(train={"images": "nowhere", "labels": "masks"}, validation=None))
    assert found.splits[0].fault == found.problems[0]
    assert "nowhere" in found.problems[0]
    assert "no split 'validation'" in found.problems[1]


def test_a_split_without_a_label_is_a_problem(full_tree) -> None:
    found = examine(full_tree.description(ignore=[0, 1, 2], label_map={9: 0, 10: 1, 11: 2}))
    assert [problem for problem in found.problems if problem.startswith("train: nothing is labelled")]


def test_absent_classes_and_much_ignored_are_warnings(full_tree) -> None:
    for stem in ("v0", "v1"):
        full_tree.mask(f"masks/validation/{stem}.png", values=(0, 255, 255))
    found = examine(full_tree.description(names=["a", "b", "c", "d"]))
    assert found.problems == ()
    assert found.warnings == (
        "train: no pixel of d, which therefore cannot be learnt.",
        "validation: no pixel of b, c, d, which therefore cannot be scored.",
        "validation: 62% of the pixels are ignored. Check ignore and label_map.",
    )


def test_pictures_in_two_splits_are_found_in_any_format(full_tree) -> None:
    with Image.open(full_tree.root / "images/train/r1.png") as picture:
        picture.save(full_tree.root / "images/validation/copy.bmp")
        picture.save(full_tree.root / "images/train/again.bmp")
    full_tree.mask("masks/validation/copy.png")
    full_tree.mask("masks/train/again.png")
    found = examine(full_tree.description())
    assert found.repeated == (("train: again", "train: r1"), ("train: again", "validation: copy"))
    assert found.problems == ()
    assert "1 picture in more than one split, such as 'train: again' = 'validation: copy'" in found.warnings[0]
    assert "1 picture twice in a split" in found.warnings[1]


def test_the_limit_and_progress(full_tree) -> None:
    seen = []
    found = examine(full_tree.description(), limit=2, progress=lambda *done: seen.append(done))
    assert [(split.num_pictures, split.num_read) for split in found.splits] == [(3, 2), (2, 2)]
    assert seen == [("train", 1, 2), ("train", 2, 2), ("validation", 1, 2), ("validation", 2, 2)]


def test_toycity_is_examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRNAS_CACHE", str(tmp_path))
    file = tmp_path / "data.yaml"
    file.write_text("{dataset: toycity, size: [32, 48], length: {train: 2, validation: 2, test: 2}}")
    found = examine(read_description(file))
    assert found.problems == ()
    assert [split.num_read for split in found.splits] == [2, 2, 2]
    assert sum(found.splits[0].counts) == 2 * 32 * 48


def colors_in(file: Path) -> set[tuple[int, ...]]:
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        return {tuple(color) for color in np.unique(np.array(picture).reshape(-1, 3), axis=0).tolist()}


def test_the_contact_sheet_shows_every_class(full_tree, tmp_path: Path) -> None:
    description = full_tree.description()
    file = contact_sheet(description, tmp_path / "new folder" / "sheet.png")
    assert colors_in(file) >= set(description.colors)
    assert UNKNOWN_COLOR not in colors_in(file)


def test_the_contact_sheet_shows_a_tree_with_faults(full_tree, tmp_path: Path) -> None:
    (full_tree.root / "images/train/r0.png").write_text("broken")
    full_tree.mask("masks/train/r1.png", values=(0, 77))
    for stem in ("v0", "v1"):
        (full_tree.root / f"images/validation/{stem}.png").unlink()
    file = contact_sheet(full_tree.description(), tmp_path / "sheet.png", per_split=2)
    assert (255, 0, 0) in colors_in(file)  # "cannot be read"
    file = contact_sheet(full_tree.description(), tmp_path / "sheet.png")
    assert UNKNOWN_COLOR in colors_in(file)
    with Image.open(file) as picture:
        legend = np.array(picture)[-24:]
    assert (legend == UNKNOWN_COLOR).all(axis=-1).any()
