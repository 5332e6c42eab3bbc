"""JSON lines that are appended and files that are replaced as a whole."""

import errno
import json
import math
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from hrnas.engine import records
from hrnas.engine.records import append_line, keep_lines_until, partial_files, sync, write_json, write_text


def test_lines_are_appended_and_parse(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    append_line(file, {"step": 1, "name": "straße", "nested": {"a": [1.5, math.nan]}})
    append_line(file, {"step": 2, "miou": math.nan, "loss": math.inf, "pair": (1, -math.inf)})
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines == [
        {"step": 1, "name": "straße", "nested": {"a": [1.5, None]}},
        {"step": 2, "miou": None, "loss": None, "pair": [1, None]},
    ]
    for word in ("NaN", "Infinity"):
        assert word not in file.read_text()


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    write_json(file, {"a": math.nan, 3: [True, None, "x"]})
    assert json.loads(file.read_text()) == {"a": None, "3": [True, None, "x"]}
    write_text(file, "new")
    assert file.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("stage", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_text(tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "result.json"
    write_text(file, "old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((records.os, "fsync", refuse) if stage == "fsync" else (Path, "replace", refuse)))
    with pytest.raises(OSError, match="No space"):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_later_and_half_written_lines_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    for step in (1, 2, 3, 4):
        append_line(file, {"step": step})
    with file.open("a") as stream:
        stream.write('{"step": 2, "lo')
    keep_lines_until(file, 2)
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2]
    append_line(file, {"step": 3})
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2, 3]


def test_bytes_that_are_no_text_are_a_damaged_line(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1}\n{"step": 2, "\xff\xfe"}\n\0\0\0\n{"step": 3}\n')
    keep_lines_until(file, 7)
    assert file.read_text() == '{"step": 1}\n{"step": 3}\n'


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_written_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        synced.append(f"{path.name} {path.read_text()}" if path.is_file() else path.name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    append_line(tmp_path / "lines", {"step": 1})
    assert synced == ['lines {"step": 1}\n', tmp_path.name], "the folder too: the file is new in it"
    append_line(tmp_path / "lines", {"step": 2})
    assert synced[2:] == ['lines {"step": 1}\n{"step": 2}\n']
    write_text(tmp_path / "whole", "text")
    assert synced[3:] == [f".whole.{os.getpid()}.partial text", tmp_path.name]


def test_a_folder_that_knows_no_sync_is_not_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int, handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", partial(refuse, errno.EINVAL))
    sync(tmp_path)
    monkeypatch.setattr(os, "fsync", partial(refuse, errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        sync(tmp_path)


def test_files_half_written_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        assert [path.name for path in partial_files(tmp_path)] == [f".a.json.{os.getpid()}.partial"]
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "a.json", "text")
    assert partial_files(tmp_path) == []


def test_lines_without_a_step_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n[1]\n5\n{"loss": 2}\n{"step": null}\n\n{"step": 2}\n')
    keep_lines_until(file, 7)
    assert file.read_text() == '{"step": 1}\n{"step": 2}\n'
    keep_lines_until(tmp_path / "none.jsonl", 7)
    assert not (tmp_path / "none.jsonl").exists()
