"""Verbs in two processes: the same files, the same figures as one process, stopped and resumed together."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from commands import tiny
from commands.test_resume import assert_same_run
from commands.tiny import Outcome, hrnas
from commands.together import search, together
from engine.ranks import run_ranks
from hrnas.commands import session
from hrnas.commands.options import default_workers
from hrnas.data.opening import open_split
from hrnas.data.transforms import AugmentOptions
from hrnas.engine.distributed import Processes


def test_two_processes_leave_the_files_of_one(shared_run: Path, search_run: Path) -> None:
    assert tiny.snapshot(shared_run).keys() == tiny.snapshot(search_run).keys()
    assert json.loads((shared_run / "environment.json").read_text())["processes"] == 2
    assert json.loads((search_run / "environment.json").read_text())["processes"] == 1
    steps = [line["step"] for line in tiny.lines(shared_run / "metrics.jsonl") if line["kind"] == "train"]
    assert steps == list(range(2, tiny.STEPS + 1, 2)), "each line once"
    result = json.loads((shared_run / "result.json").read_text())
    assert 0.98 < result["share_of_budget"] <= 1


@pytest.mark.parametrize("batch_size", [1, 3])
def test_two_processes_score_what_one_scores_to_the_last_digit(
    batch_size: int, shared_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(shared_run, tmp_path / "run"))
    words = ("evaluate", run, "--split", "test", "--batch-size", batch_size, "--workers", 0, "--json")
    expected = hrnas(*words).result
    written = (run / "evaluation.json").read_text()
    first, second = together(*words)
    assert second == Outcome(0, "", "")
    assert first.result == expected
    assert 0 < expected["miou"] < 1
    assert (run / "evaluation.json").read_text() == written


@pytest.mark.parametrize(("rank", "step"), [(1, 8), (0, 14)])
def test_asked_to_stop_at_any_process_all_stop_and_go_on_as_if_they_had_not(
    rank: int, step: int, shared_run: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first, second = together(*search(data, run), stop=(rank, step))
    assert first.code == second.code == 130
    assert first.err == f"hrnas: Stopped after step {step}; continue with 'hrnas resume {run}'.\n"
    assert second.err == ""
    assert (run / "checkpoints" / f"step-{step:08d}").is_dir()
    for outcome in together("resume", run):
        assert outcome.code == 0, outcome.err
    assert_same_run(run, shared_run)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(
    before: int, after: int, shared_run: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert [outcome.code for outcome in together(*search(data, run), count=before, stop=(0, 9))] == [130] * before
    assert [outcome.code for outcome in together("resume", run, count=after)] == [0] * after
    result = json.loads((run / "result.json").read_text())
    assert 0.98 < result["share_of_budget"] <= 1
    one, other = (tiny.lines(folder / "metrics.jsonl") for folder in (run, shared_run))
    assert [line["step"] for line in one] == [line["step"] for line in other]
    assert all(line["loss"] < 5 for line in one if line["kind"] == "train")


@pytest.mark.parametrize(
    ("alone", "shared"), [([], ["--sync-norm"]), (["--accumulate", 2], [])], ids=["synchronised norms", "micro-batches"]
)
def test_training_in_two_processes_is_training_in_one(
    alone: list[object], shared: list[object], search_run: Path, data: Path, tmp_path: Path
) -> None:
    losses = []
    for count, run, words in ((1, tmp_path / "one", alone), (2, tmp_path / "two", shared)):
        options = tiny.options(run, space=None, budget=None, **{"optimizer.learning_rate": 0.004})
        outcomes = together("train", search_run, data, *options, *words, count=count)
        assert [outcome.code for outcome in outcomes] == [0] * count, outcomes[0].err
        losses.append([line["loss"] for line in tiny.lines(run / "metrics.jsonl") if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["processes"] == 2


def test_bad_input_is_refused_on_all_processes_and_said_once(data: Path, shared_run: Path, tmp_path: Path) -> None:
    for words, message in (
        (
            search(data, tmp_path / "a", batch_size=5),
            "Batch size is 5, over all processes; it cannot be dealt out evenly",
        ),
        (search(data, tmp_path / "a", batch_size=4, accumulate=3), "evenly to 2 processes and 3 micro-batches on each"),
        (search(data, tmp_path / "a", budget="macs=1"), "Budget of 1 MACs is"),
        (search(data, shared_run), "already holds another run"),
        (search(tmp_path / "none", tmp_path / "a"), "none"),
        (["resume", shared_run], "is finished"),
        (["resume", tmp_path], "is no run directory"),
        (["predict", shared_run], "'hrnas predict' runs in one process; 2 were started. Start it without torchrun."),
    ):
        first, second = together(*words)
        assert first.code == second.code != 0
        assert message in first.err
        assert first.err.count("\n") == 1
        assert (first.out, second.out, second.err) == ("", "", "")
        assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("launch", "more"), [("another", {}), ("first", {"seed": 1})], ids=["another launch", "another configuration"]
)
def test_a_restarted_group_takes_up_no_run_of_somebody_else(
    launch: str, more: dict[str, object], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "first")
    assert [outcome.code for outcome in together(*search(data, run), stop=(0, 6))] == [130, 130]
    before = tiny.snapshot(run)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", launch)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    first, second = together(*search(data, run, **more))
    assert first.code == second.code == 2
    assert "already holds another run" in first.err
    assert tiny.snapshot(run) == before


def test_a_broken_file_is_found_whoever_reads_it(tmp_path: Path) -> None:
    data = tiny.pictures(tmp_path / "data")
    for number in range(6):
        file = tmp_path / "data" / "train" / "masks" / f"{number}.png"
        content = file.read_bytes()
        file.write_bytes(content[:80])
        first, second = together(*search(data, tmp_path / "run", space="tiny", budget="60%"))
        assert first.code == second.code == 2
        assert str(file) in first.err
        assert second.err == ""
        assert not (tmp_path / "run").exists()
        file.write_bytes(content)


def whole_epochs(processes: Processes, data: Path) -> list[Any]:
    opened = session.open_session(str(data), input_size=None, device="cpu", workers=0, splits=("train",))
    given = {"batch_size": 4, "seed": 1, "first_step": 0, "num_steps": 3, "augment": AugmentOptions()}
    calibration = list(opened.calibration_inputs(batch_size=4, num_batches=2, seed=1))
    return [[batch.inputs for batch in opened.train_batches(**given)], calibration]


def test_the_shares_of_the_processes_are_the_batches_of_one(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRNAS_CACHE", tiny.cache_folder())
    ((whole, calibration),) = run_ranks(1, whole_epochs, data)
    shares = run_ranks(2, whole_epochs, data)
    for step, batch in enumerate(whole):
        assert [share[0][step].shape[0] for share in shares] == [2, 2]
        assert batch.tobytes() == shares[0][0][step].tobytes() + shares[1][0][step].tobytes()
    for _, own in shares:
        assert [images.tobytes() for images in own] == [images.tobytes() for images in calibration]


def opening_times(processes: Processes, data: Path) -> list[float]:
    def slow_open(*given: Any) -> Any:
        times.append(time.monotonic())
        time.sleep(0.2)
        times.append(time.monotonic())
        return open_split(*given)

    times: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "open_split", slow_open)
        session.open_session(str(data), input_size=None, device="cpu", workers=0, splits=("train",))
    return times


def test_one_process_of_a_machine_opens_the_data_first_and_the_others_find_it_rendered(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HRNAS_CACHE", tiny.cache_folder())
    (_, done), (begun, _), (also_begun, also_done) = run_ranks(3, opening_times, data)
    assert done <= min(begun, also_begun)
    assert begun < also_done, "the others open it together"


def test_workers_share_the_cores_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert default_workers() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert default_workers() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "12")
    assert default_workers() == 1
