"""JSON lines that are appended and files that are replaced as a whole."""

import json
import math
from pathlib import Path

import pytest

from hrnas.engine import records
from hrnas.engine.records import append_line, keep_lines_until, write_json, write_text


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


def test_lines_without_a_step_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n[1]\n5\n{"loss": 2}\n{"step": null}\n\n{"step": 2}\n')
    keep_lines_until(file, 7)
    assert file.read_text() == '{"step": 1}\n{"step": 2}\n'
    keep_lines_until(tmp_path / "none.jsonl", 7)
    assert not (tmp_path / "none.jsonl").exists()
