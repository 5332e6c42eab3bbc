"""What a reading of many files shows, and that a short one shows nothing."""

import io
import time
from pathlib import Path

import pytest
import rich
from rich.console import Console

from commands import tiny
from hrnas.commands import progress
from hrnas.commands.progress import counted_progress


def shown(seconds: float, *, is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what is written while 4 things take some seconds each."""
    monkeypatch.setattr(progress, "_SECONDS_WITHOUT_A_WORD", 0.05)
    out = io.StringIO()
    monkeypatch.setattr(rich, "get_console", lambda: Console(file=out, force_terminal=is_terminal, width=100))
    with counted_progress("Reading", 4) as show:
        for number in range(1, 5):
            time.sleep(seconds)
            show(number)
    return out.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_takes_a_moment_shows_nothing(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(0.0, is_terminal=is_terminal, monkeypatch=monkeypatch) == ""


def test_a_terminal_sees_a_bar_with_counts_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(0.06, is_terminal=True, monkeypatch=monkeypatch)
    assert "1/4" in text
    assert "4/4" in text
    assert text.endswith("\x1b[2K"), "the line is cleared"


def test_a_file_gets_a_line_at_the_start_and_one_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(0.06, is_terminal=False, monkeypatch=monkeypatch)
    assert text == "Reading: 1 of 4\nReading: 4 of 4\n"


def test_the_reading_before_a_run_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.pictures(tmp_path / "data")
    monkeypatch.setattr(progress, "_SECONDS_WITHOUT_A_WORD", -1.0)
    outcome = tiny.search(data, tmp_path / "run", steps=1, calibration_batches=1)
    assert outcome.code == 0, outcome.err
    assert "Reading the data set once: 1 of 7\n" in outcome.out, "4 training samples that one step shows, 3 to validate"
    assert "Reading the data set once: 7 of 7\n" in outcome.out
    outcome = tiny.search(data, tmp_path / "calibrated", steps=1)
    assert "Reading the data set once: 9 of 9\n" in outcome.out, "recalibration reads two batches of training samples"
