"""What a run meets at its edges: signals to the whole group, sizes from Python, maps of one pixel, full paths."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hrnas as package
from commands import tiny
from commands.tiny import hrnas
from hrnas.engine.checkpoint import list_checkpoints


def test_a_signal_to_the_whole_group_still_writes_a_checkpoint(tmp_path: Path) -> None:
    """Batch systems stop a process group: the loading process must leave the answer to the main one."""
    data, run = tiny.toycity(tmp_path), tmp_path / "run"
    words = ["search", str(data), "--budget", "60%", "--steps", "100000", "--batch-size", "2", "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hrnas", *words, "--run", str(run), "--log-every", "1"],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HRNAS_CACHE": tiny.cache_folder(), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        for _ in range(600):
            if (run / "metrics.jsonl").exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert err.startswith("hrnas: Stopped after step")
    assert err.count("\n") == 1
    assert list_checkpoints(run / "checkpoints")


def test_a_plain_size_from_python_leaves_a_usable_run(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with tiny.tiny_world():
        result = package.search(
            str(data), budget="60%", space="tiny", run=str(run), input_size=(24, 32), steps=4, batch_size=2, workers=0
        )
    assert result["input_size"] == [24, 32]
    assert hrnas("evaluate", run).code == 0


def test_one_number_a_channel_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    outcome = tiny.search(data, tmp_path / "run", batch_size=1, input_size="8x8")
    assert outcome.code == 2
    assert "Batch size is 1" in outcome.err
    assert "Raise the batch size or the input size." in outcome.err
    assert not (tmp_path / "run").exists()


def test_a_path_that_cannot_be_written_is_one_line(data: Path, tmp_path: Path) -> None:
    outcome = hrnas("check", data, "--sheet", data / "sheet.png")  # below a file
    assert outcome.code == 2
    assert outcome.err.startswith("hrnas: ")
    assert outcome.err.count("\n") == 1


def test_weights_for_other_classes_give_all_but_the_last_layer(search_run: Path, tmp_path: Path) -> None:
    data = tiny.pictures(tmp_path / "pictures", classes=3)
    run = tmp_path / "run"
    outcome = tiny.train(search_run, data, run, "--weights", search_run, steps=2)
    assert outcome.code == 0, outcome.err
    assert "the last layer starts afresh" in " ".join(outcome.out.split())
    assert json.loads((run / "architecture.json").read_text())["head"]["outputs"] == 3


def test_a_restart_without_checkpoint_keeps_the_command_that_made_the_run(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert tiny.search(data, run, checkpoints=0).code == 0
    command = json.loads((run / "environment.json").read_text())["command"]
    (run / "result.json").unlink()
    assert hrnas("resume", run).code == 0
    assert json.loads((run / "environment.json").read_text())["command"] == command
