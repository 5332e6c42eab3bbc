"""Toy City as a data set: the same bytes every time, splits that share nothing, all classes, a careful cache."""

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hrnas.data.toycity import ToyCity, scenes
from hrnas.errors import InputError

SMALL = (24, 32)


def same(a: ToyCity, b: ToyCity, index: int) -> bool:
    x, y = a.read(index), b.read(index)
    return x.content.tobytes() == y.content.tobytes() and x.truth.tobytes() == y.truth.tobytes() and x.name == y.name


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ToyCity]:
    cache = tmp_path_factory.mktemp("toycity")
    return {split: ToyCity(split, length=32, cache=cache) for split in ("train", "validation")}


def test_samples_are_as_promised(full):
    city = full["train"]
    assert len(city) == 32
    assert len(city.colors) == len(city.names) == len(ToyCity.NAMES) == len(ToyCity.COLORS) == len(set(ToyCity.COLORS))
    names = set()
    for i in range(32):
        sample = city.read(i)
        assert (sample.content.shape, sample.content.dtype) == ((96, 128, 3), np.uint8)
        assert (sample.truth.shape, sample.truth.dtype) == ((96, 128), np.uint8)
        assert sample.truth.max() < len(city.names)
        assert 30 < sample.content.mean() < 225
        assert sample.content.std() > 12
        names.add(sample.name)
    assert len(names) == 32


def test_default_lengths(tmp_path, monkeypatch):
    monkeypatch.setattr(
        scenes,
        "render",
        lambda world, height, width, random: SimpleNamespace(image=0, mask=0),
    )
    lengths = {split: len(ToyCity(split, size=(16, 16), cache=tmp_path)) for split in ("train", "validation", "test")}
    assert lengths == {"train": 256, "validation": 64, "test": 64}


@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_class_has_a_sensible_share(full, split):
    masks = np.stack([full[split].read(i).truth for i in range(32)])
    share = {name: float((masks == i).mean()) for i, name in enumerate(ToyCity.NAMES)}
    least = {"road": 0.1, "pavement": 0.03, "building": 0.08, "sky": 0.08, "tree": 0.04, "car": 0.03}
    assert all(share[name] > least.get(name, 0.006) for name in ToyCity.NAMES), share
    assert max(share.values()) < 0.45
    images_with = {name: int((masks == i).any(axis=(1, 2)).sum()) for i, name in enumerate(ToyCity.NAMES)}
    assert min(images_with.values()) >= 14, images_with


def test_colour_alone_does_not_tell_the_class(full):
    """The class most frequent at a pixel's colour, counted on the very images it is tested on, is often wrong."""
    images = np.stack([full["train"].read(i).content for i in range(32)]).reshape(-1, 3) >> 4
    masks = np.stack([full["train"].read(i).truth for i in range(32)]).reshape(-1)
    colour = (images[:, 0].astype(np.int64) << 8) | (images[:, 1].astype(np.int64) << 4) | images[:, 2]
    counts = np.zeros((4096, len(ToyCity.NAMES)))
    np.add.at(counts, (colour, masks), 1)
    recall = [(counts.argmax(axis=1)[colour[masks == i]] == i).mean() for i in range(len(ToyCity.NAMES))]
    assert np.mean(recall) < 0.5


def test_bytes_depend_on_neither_order_length_nor_run(tmp_path):
    a = ToyCity("train", size=SMALL, length=5, cache=tmp_path / "a")
    b = ToyCity("train", size=SMALL, length=3, cache=tmp_path / "b")
    assert all(same(a, b, i) for i in (2, 0, 1))
    assert all(same(a, ToyCity("train", size=SMALL, length=5, cache=tmp_path / "c"), i) for i in range(5))
    assert len({a.read(i).content.tobytes() for i in range(5)}) == 5


def test_another_seed_is_another_city(tmp_path):
    a, b = (ToyCity("train", size=SMALL, length=2, seed=seed, cache=tmp_path) for seed in (0, 1))
    assert not same(a, b, 0)
    assert not same(a, b, 1)


def test_splits_share_no_picture(tmp_path):
    pictures = [
        ToyCity(split, size=SMALL, length=12, cache=tmp_path).read(i).truth.tobytes()
        for split in ("train", "validation", "test")
        for i in range(12)
    ]
    assert len(set(pictures)) == 36


def test_a_larger_size_shows_the_same_scene(tmp_path):
    small = ToyCity("test", size=(32, 48), length=3, cache=tmp_path)
    large = ToyCity("test", size=(96, 144), length=3, cache=tmp_path)
    for i in range(3):
        # The middle pixel of each 3x3 block looks along the same ray.
        assert (large.read(i).truth[1::3, 1::3] == small.read(i).truth).mean() > 0.995


def test_a_size_that_fills_no_tiles(tmp_path):
    assert ToyCity("test", size=(19, 37), length=1, cache=tmp_path).read(0).content.shape == (19, 37, 3)


def count_renderings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    render = scenes.render

    def counted(*args):
        calls.append(1)
        return render(*args)

    monkeypatch.setattr(scenes, "render", counted)
    return calls


def test_the_second_start_reads_the_cache(tmp_path, monkeypatch):
    calls = count_renderings(monkeypatch)
    first = ToyCity("train", size=SMALL, length=2, cache=tmp_path / "new" / "folder")
    second = ToyCity("train", size=SMALL, length=2, cache=tmp_path / "new" / "folder")
    assert len(calls) == 2
    assert all(same(first, second, i) for i in range(2))
    (file,) = (tmp_path / "new" / "folder").iterdir()
    assert file.suffix == ".npz"


@pytest.mark.parametrize("harm", ["truncated", "empty", "flipped", "foreign", "classes"])
def test_a_harmed_file_is_rendered_again(tmp_path, monkeypatch, harm):
    first = ToyCity("train", size=SMALL, length=2, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    if harm == "truncated":
        file.write_bytes(whole[: len(whole) // 2])
    elif harm == "empty":
        file.write_bytes(b"")
    elif harm == "flipped":  # one byte amid the pixels: only the archive's checksum can tell
        middle = len(whole) // 2
        file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    elif harm == "foreign":
        np.savez(file, images=np.zeros((2, 8, 8, 3), np.uint8), masks=np.zeros((2, 8, 8), np.uint8))
    else:
        np.savez(file, images=np.zeros((2, *SMALL, 3), np.uint8), masks=np.full((2, *SMALL), 200, np.uint8))
    calls = count_renderings(monkeypatch)
    second = ToyCity("train", size=SMALL, length=2, cache=tmp_path)
    assert len(calls) == 2
    assert all(same(first, second, i) for i in range(2))
    assert file.read_bytes() == whole  # mended, and nothing left beside it
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_of_pickled_objects_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    first = ToyCity("train", size=SMALL, length=1, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    trap = np.array([Trap()], dtype=object)
    np.savez(file, images=trap, masks=trap)
    assert same(first, ToyCity("train", size=SMALL, length=1, cache=tmp_path / "cache"), 0)
    assert not (tmp_path / "sprung").exists()


def test_an_unwritable_cache_is_done_without(tmp_path):
    first = ToyCity("train", size=SMALL, length=1, cache=tmp_path / "good")
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert same(first, ToyCity("train", size=SMALL, length=1, cache=blocked / "below"), 0)
    if os.geteuid() != 0:  # root may write anywhere
        closed = tmp_path / "closed"
        closed.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
        assert same(first, ToyCity("train", size=SMALL, length=1, cache=closed), 0)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full_disk(*_args, **_kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    assert len(ToyCity("train", size=SMALL, length=1, cache=tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


def test_where_the_cache_lies(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    for variable in ("HRNAS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    ToyCity("test", size=(16, 16), length=1)
    assert len(list((tmp_path / "home" / ".cache" / "hrnas").glob("*.npz"))) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    ToyCity("test", size=(16, 16), length=1)
    assert len(list((tmp_path / "xdg" / "hrnas").glob("*.npz"))) == 1
    monkeypatch.setenv("HRNAS_CACHE", str(tmp_path / "own"))
    ToyCity("test", size=(16, 16), length=1)
    assert len(list((tmp_path / "own").glob("*.npz"))) == 1


def test_read_gives_copies(tmp_path):
    city = ToyCity("test", size=(16, 16), length=1, cache=tmp_path)
    before = city.read(0).content.copy()
    city.read(0).content[:] = 0
    assert np.array_equal(city.read(0).content, before)


@pytest.mark.parametrize("index", [-1, 1])
def test_index_out_of_range(tmp_path, index):
    with pytest.raises(IndexError, match=r"0\.\.0"):
        ToyCity("test", size=(16, 16), length=1, cache=tmp_path).read(index)


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"Unknown split 'trian' of Toy City\. Did you mean 'train'\?"):
        ToyCity("trian", cache=tmp_path)
    with pytest.raises(InputError, match=r"Toy City size is 0x64; .* at least 16 pixels"):
        ToyCity("train", size=(0, 64), cache=tmp_path)
    with pytest.raises(InputError, match="Toy City length is 0; at least 1"):
        ToyCity("train", length=0, cache=tmp_path)
