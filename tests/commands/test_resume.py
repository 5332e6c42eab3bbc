"""A run that was stopped and resumed leaves what the run never stopped leaves, bit for bit."""

import json
import shutil
from pathlib import Path

import pytest

from commands import tiny
from commands.tiny import hrnas
from hrnas.commands.beginning import last_checkpoint
from hrnas.engine.distributed import ALONE


class Killed(BaseException):
    """Stands for SIGKILL: nothing that runs after it writes anything."""


def kill() -> None:
    raise Killed


def assert_same_run(run: Path, reference: Path) -> None:
    """Compare all that a run leaves except durations, its own path, and the report, which shows both."""
    for name in ("best/model.safetensors", "best/architecture.json", "architecture.json", "architectures.jsonl"):
        assert (run / name).read_bytes() == (reference / name).read_bytes(), name
    for name in ("config.yaml", "evaluation.json"):
        assert (run / name).read_text() == (reference / name).read_text(), name
    one, other = (tiny.without_seconds(tiny.lines(folder / "metrics.jsonl")) for folder in (run, reference))
    assert one == other
    results = [json.loads((folder / "result.json").read_text()) for folder in (run, reference)]
    for result in results:
        del result["seconds"], result["run"]
    assert results[0] == results[1]
    last = f"checkpoints/step-{results[0]['steps']:08d}"
    for name in ("model", "averages", "optimizer", "extra"):
        file = f"{last}/{name}.safetensors"
        assert (run / file).read_bytes() == (reference / file).read_bytes(), name


def resume(run: Path) -> None:
    outcome = hrnas("resume", run)
    assert outcome.code == 0, outcome.err
    assert (run / "report.html").is_file()


def stop(verb: str, data: Path, run: Path, step: int, architecture: Path | None = None, **more: object) -> None:
    """Start a run and ask it to stop after a step; its checkpoint must be there, and what it says must help."""
    with tiny.at_step(step, tiny.ask_to_stop):
        outcome = tiny.search(data, run, **more) if architecture is None else tiny.train(architecture, data, run)
    assert outcome.code == 130
    assert outcome.err == f"hrnas: Stopped after step {step}; continue with 'hrnas resume {run}'.\n"
    assert (run / "checkpoints" / f"step-{step:08d}").is_dir()
    assert not (run / "result.json").exists()


def interesting_steps(reference: Path) -> dict[str, int]:
    """Return steps of the tiny search by what happens there."""
    cuts = [line["step"] for line in tiny.lines(reference / "architectures.jsonl")[1:]]
    dead, exact = cuts[:-1], cuts[-1]
    quiet = [step for step in range(dead[0] + 1, exact) if step not in cuts]
    return {
        "before shrinking": 1,
        "at a cut": dead[len(dead) // 2],
        "right after a cut": dead[0] + 1,
        "between cuts": quiet[len(quiet) // 2] if quiet else exact - 1,
        "before the exact step": exact - 1,
        "at the exact step": exact,
        "after the exact step": exact + 1,
        "one before the end": tiny.STEPS - 1,
    }


@pytest.mark.parametrize(
    "when",
    [
        "before shrinking", "at a cut", "right after a cut", "between cuts", "before the exact step",
        "at the exact step", "after the exact step", "one before the end",
    ],
)  # fmt: skip
def test_a_search_stopped_at_any_step_goes_on_as_if_it_had_not(
    when: str, search_run: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    stop("search", data, run, interesting_steps(search_run)[when])
    resume(run)
    assert_same_run(run, search_run)


def test_a_search_may_be_stopped_again_and_again(search_run: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stop("search", data, run, 4)
    for step in (5, 14, 18):
        with tiny.at_step(step, tiny.ask_to_stop):
            assert hrnas("resume", run).code == 130
    resume(run)
    assert_same_run(run, search_run)


def test_transformers_draw_the_same_dropout(data: Path, tmp_path: Path) -> None:
    reference, run = tmp_path / "reference", tmp_path / "run"
    given = {"space": "tiny-transformers", "budget": "85%", "steps": 8, "checkpoints": 1}
    assert tiny.search(data, reference, **given).code == 0
    assert '"tokens": 4' in (reference / "best" / "architecture.json").read_text()
    stop("search", data, run, 4, **given)
    resume(run)
    assert_same_run(run, reference)


def test_a_training_goes_on_as_if_it_had_not_stopped(
    search_run: Path, train_run: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    stop("train", data, run, 7, search_run)
    resume(run)
    assert_same_run(run, train_run)


def test_a_killed_run_goes_back_to_its_last_checkpoint_and_heals_its_lines(
    search_run: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with tiny.at_step(13, kill), pytest.raises(Killed):
        tiny.search(data, run)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000005", "step-00000010"]
    lines = tiny.lines(run / "metrics.jsonl")
    assert lines[-1]["step"] > 10, "there must be lines after the checkpoint"
    for name in ("metrics.jsonl", "architectures.jsonl"):
        with (run / name).open("a") as file:
            file.write('{"kind": "train", "step": 13, "lo')
    resume(run)
    assert_same_run(run, search_run)


def test_a_run_without_a_checkpoint_begins_anew(search_run: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with tiny.at_step(3, kill), pytest.raises(Killed):
        tiny.search(data, run)
    assert not (run / "checkpoints").exists()
    resume(run)
    assert_same_run(run, search_run)


def test_the_run_continues_wherever_its_directory_was_moved_to(search_run: Path, data: Path, tmp_path: Path) -> None:
    stop("search", data, tmp_path / "run", 8)
    (tmp_path / "run").rename(tmp_path / "moved")
    resume(tmp_path / "moved")
    assert_same_run(tmp_path / "moved", search_run)


def test_a_finished_run_is_not_resumed(search_run: Path) -> None:
    before = tiny.snapshot(search_run)
    outcome = hrnas("resume", search_run)
    assert outcome.code == 2
    assert "is finished" in outcome.err
    assert f"hrnas show {search_run}" in outcome.err
    assert tiny.snapshot(search_run) == before


@pytest.fixture(scope="module")
def stopped_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search stopped after step 12, with checkpoints of steps 10 and 12; not to be changed."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    stop("search", data, run, 12)
    return run


def damaged(stopped_run: Path, folder: Path, file: str) -> tuple[Path, Path]:
    """Return a copy of the stopped run and a file of its last checkpoint."""
    run = Path(shutil.copytree(stopped_run, folder / "run"))
    return run, run / "checkpoints" / "step-00000012" / file


def assert_refused_and_unchanged(run: Path, *words: str) -> None:
    before = tiny.snapshot(run)
    outcome = hrnas("resume", run)
    assert outcome.code == 2
    assert outcome.err.startswith("hrnas: ")
    assert outcome.err.count("\n") == 1
    for word in ("step-00000012", *words):
        assert word in outcome.err
    assert tiny.snapshot(run) == before


def assert_goes_on_without(run: Path, reference: Path, *words: str) -> None:
    """Resume; the damaged checkpoint of step 12 must be named and kept, and the end be that of the reference."""
    outcome = hrnas("resume", run)
    assert outcome.code == 0, outcome.err
    said = outcome.out.splitlines()[0]
    for word in ("step-00000012", *words, "It is kept as damaged-step-00000012; going on from step 10."):
        assert word in said
    assert {path.name for path in (run / "checkpoints").iterdir()} == {
        "damaged-step-00000012",
        "step-00000015",
        "step-00000020",
    }
    assert_same_run(run, reference)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model.safetensors", "truncated"),
        ("model.safetensors", "flipped"),
        ("model.safetensors", "missing"),
        ("averages.safetensors", "truncated"),
        ("optimizer.safetensors", "flipped"),
        ("extra.safetensors", "missing"),
        ("architecture.json", "flipped"),
        ("state.json", "truncated"),
        ("state.json", "missing"),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(
    file: str, damage: str, stopped_run: Path, search_run: Path, tmp_path: Path
) -> None:
    run, path = damaged(stopped_run, tmp_path, file)
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 0x10
        path.write_bytes(content)
    kept = tiny.snapshot(path.parent)
    assert_goes_on_without(run, search_run, file)
    assert tiny.snapshot(run / "checkpoints" / "damaged-step-00000012") == kept


@pytest.mark.parametrize("position", range(0, 100, 7))
def test_a_byte_flipped_in_the_state_of_a_checkpoint_is_never_used(
    position: int, stopped_run: Path, tmp_path: Path
) -> None:
    run, path = damaged(stopped_run, tmp_path, "state.json")
    content = bytearray(path.read_bytes())
    index = len(content) * position // 100
    while content[index] in b" \n":  # white space means nothing in JSON
        index += 1
    content[index] ^= 0x04
    path.write_bytes(content)
    found = last_checkpoint(run, "search", ALONE)
    assert found is not None
    assert found.state["step"] == 10
    assert (run / "checkpoints" / "damaged-step-00000012").is_dir()


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew_by_itself(
    stopped_run: Path, search_run: Path, tmp_path: Path
) -> None:
    run, path = damaged(stopped_run, tmp_path, "model.safetensors")
    path.write_bytes(b"")
    (run / "checkpoints" / "step-00000010" / "state.json").unlink()
    assert_refused_and_unchanged(run, "No checkpoint", "is whole", "model.safetensors", "to begin the run anew")
    shutil.rmtree(run / "checkpoints")
    resume(run)
    assert_same_run(run, search_run)


def test_without_the_damaged_checkpoint_the_one_before_it_serves(
    stopped_run: Path, search_run: Path, tmp_path: Path
) -> None:
    run, path = damaged(stopped_run, tmp_path, "model.safetensors")
    shutil.rmtree(path.parent)
    resume(run)
    assert_same_run(run, search_run)


@pytest.mark.parametrize("other", ["a training", "a search of another seed", "another program"])
def test_a_checkpoint_of_something_else_is_refused(
    other: str, stopped_run: Path, train_run: Path, data: Path, tmp_path: Path
) -> None:
    run, path = damaged(stopped_run, tmp_path, "state.json")
    if other == "another program":
        path.write_text('{"step": 12, "model": "resnet"}')
    else:
        if other == "a training":
            foreign = tmp_path / "training"
            stop("train", data, foreign, 12, stopped_run)
        else:
            foreign = tmp_path / "search"
            stop("search", data, foreign, 12, seed=1)
        shutil.rmtree(path.parent)
        shutil.copytree(foreign / "checkpoints" / "step-00000012", path.parent)
    assert_refused_and_unchanged(run, "Remove this checkpoint")
