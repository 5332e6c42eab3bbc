"""Checkpoints: bit for bit back, killed saves, damaged and foreign files; plain files only."""

import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hrnas.arch.space import SearchSpace
from hrnas.engine import checkpoint as module
from hrnas.engine.averages import Averages
from hrnas.engine.checkpoint import (
    checkpoint_name,
    clear_killed_saves,
    list_checkpoints,
    read_checkpoint,
    restore,
    save_checkpoint,
)
from hrnas.engine.optimization import KINDS, OptimizerOptions, make_optimizer
from hrnas.engine.training import TrainState, train_step
from hrnas.errors import CheckpointError, InputError
from hrnas.models.network import Network
from hrnas.searching.cut import apply_plan
from hrnas.searching.plan import make_plan
from searching.networks import SIZE, TINY, num_units, synthetic, tiny_network

DROPOUT = SearchSpace(**{**vars(TINY), "transformers": "residual", "tokens": 3, "token_size": 2, "dropout": 0.3})


class Distance:
    """Mean squared error."""

    def loss_terms(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"distance": (outputs - targets).square().sum()}

    def weight(self, targets: Tensor) -> Tensor:
        return torch.tensor(targets.numel())


def state_of(model: Network, *, kind: str = "adamw") -> TrainState:
    model.to(memory_format=torch.channels_last)
    optimizer = (
        torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        if kind == "sgd"
        else make_optimizer(model, OptimizerOptions(kind=kind))
    )
    return TrainState(model=model, optimizer=optimizer, averages=Averages(model, 8))


def train(state: TrainState, steps: int) -> None:
    for _ in range(steps):
        train_step(state, *synthetic(state.step), Distance(), 0.01)


def cut_half(state: TrainState) -> None:
    kept = torch.arange(num_units(state.model.architecture)) % 2 == 0
    kept[:12] = False
    plan = make_plan(state.model.architecture, SIZE, kept, "dead")
    apply_plan(plan, state.model, state.optimizer, state.averages.tensors)
    state.model.architecture = plan.architecture


def tensors_of(state: TrainState) -> dict[str, Tensor]:
    names = {parameter: name for name, parameter in state.model.named_parameters()}
    return {
        **state.model.state_dict(),
        **{f"average {name}": value for name, value in state.averages.tensors.items()},
        **{
            f"{entry} {names[parameter]}": value
            for parameter, values in state.optimizer.state.items()
            for entry, value in values.items()
        },
    }


def assert_same_state(found: TrainState, expected: TrainState) -> None:
    left, right = tensors_of(found), tensors_of(expected)
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name
    assert (found.step, found.averages.num_updates) == (expected.step, expected.averages.num_updates)


@pytest.mark.parametrize("kind", [*KINDS, "sgd"])
@pytest.mark.parametrize("is_cut", [False, True], ids=["whole", "cut"])
def test_a_restored_run_goes_on_bit_for_bit(tmp_path: Path, is_cut: bool, kind: str) -> None:
    state = state_of(tiny_network(0, space=DROPOUT), kind=kind)
    train(state, 3)
    if is_cut:
        cut_half(state)
        train(state, 1)
    state.seconds = 12.25
    extra = {"best": 0.1 + 0.2, "none": None, "names": ["a", "ü"], "moving_average": torch.rand(7)}
    path = save_checkpoint(tmp_path / "checkpoints", state, extra=extra)
    assert path.name == checkpoint_name(state.step)

    checkpoint = read_checkpoint(path)
    assert checkpoint.architecture == state.model.architecture
    restored = state_of(Network(checkpoint.architecture), kind=kind)
    extra_back = restore(checkpoint, restored)
    assert torch.equal(extra_back.pop("moving_average"), extra.pop("moving_average"))
    assert extra_back == extra
    assert restored.seconds == 12.25
    assert_same_state(restored, state)

    # Dropout draws by seed and step, whatever was drawn before.
    torch.manual_seed(99)
    train(restored, 3)
    torch.manual_seed(5)
    train(state, 3)
    assert_same_state(restored, state)


def test_a_checkpoint_is_plain_files(tmp_path: Path) -> None:
    state = state_of(tiny_network(0))
    train(state, 1)
    path = save_checkpoint(tmp_path, state, extra={"best": math.nan})
    assert sorted(file.name for file in path.iterdir()) == [
        "architecture.json",
        "averages.safetensors",
        "extra.safetensors",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    for file in path.iterdir():
        assert b"\x80\x04" not in file.read_bytes()[:16], "a pickle"
        if file.suffix == ".json":
            json.loads(file.read_text())
    assert read_checkpoint(path).state["extra"] == {"best": None}


def test_the_last_few_are_kept(tmp_path: Path) -> None:
    state = state_of(tiny_network(0))
    for _ in range(4):
        train(state, 1)
        save_checkpoint(tmp_path, state, keep_last=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000003", "step-00000004"]
    assert len(list(tmp_path.iterdir())) == 2
    save_checkpoint(tmp_path, state, keep_last=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000004"]
    assert list_checkpoints(tmp_path / "none") == []


def test_an_old_one_that_cannot_be_removed_goes_with_the_next(tmp_path: Path) -> None:
    state = state_of(tiny_network(0))
    for _ in range(2):
        train(state, 1)
        save_checkpoint(tmp_path, state, keep_last=2)
    train(state, 1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        rename = Path.rename
        monkeypatch.setattr(Path, "rename", lambda path, to: refuse() if path.name[0] == "s" else rename(path, to))
        path = save_checkpoint(tmp_path, state, keep_last=1)
    assert list_checkpoints(tmp_path)[-1] == path
    assert len(list_checkpoints(tmp_path)) == 3
    train(state, 1)
    save_checkpoint(tmp_path, state, keep_last=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]


def test_a_checkpoint_that_was_being_replaced_comes_back(tmp_path: Path) -> None:
    path = saved(tmp_path)
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    path.rename(tmp_path / f".{path.name}.replaced")
    shutil.copytree(tmp_path / f".{path.name}.replaced", tmp_path / f".{path.name}.123")
    assert list_checkpoints(tmp_path) == []
    clear_killed_saves(tmp_path)
    assert list_checkpoints(tmp_path) == [path]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert {file.name: file.read_bytes() for file in path.iterdir()} == files


def test_an_interrupt_between_the_renames_leaves_the_one_before(tmp_path: Path) -> None:
    """A second Ctrl-C raises wherever it comes, and what is cleaned up then must not be the only copy."""
    state = state_of(tiny_network(0))
    train(state, 1)
    path = save_checkpoint(tmp_path, state, extra={"old": 1})
    with pytest.MonkeyPatch.context() as monkeypatch:
        rename = Path.rename

        def interrupt(path: Path, to: Path) -> Path:
            if str(os.getpid()) in path.name:
                raise KeyboardInterrupt
            return rename(path, to)

        monkeypatch.setattr(Path, "rename", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, state)
    assert [folder.name for folder in tmp_path.iterdir()] == [path.name]
    assert read_checkpoint(path).state["extra"] == {"old": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_all_is_on_the_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut would leave: a name must not be there before what it names."""
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_sync(handle: int) -> None:
        events.append(f"sync {os.readlink(f'/proc/self/fd/{handle}')}")
        fsync(handle)

    def note_rename(path: Path, to: Path) -> None:
        events.append(f"rename {path}")
        rename(path, to)

    state = state_of(tiny_network(0))
    train(state, 1)
    save_checkpoint(tmp_path / "checkpoints", state, keep_last=1)
    train(state, 1)
    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", note_rename)
    save_checkpoint(tmp_path / "checkpoints", state, keep_last=1)
    folder = tmp_path / "checkpoints" / f".step-00000002.{os.getpid()}"
    files = ("architecture.json", "model.safetensors", "averages.safetensors", "optimizer.safetensors",
             "extra.safetensors", f".state.json.{os.getpid()}.partial")  # fmt: skip
    appears = events.index(f"rename {folder}")
    assert {f"sync {folder / name}" for name in files} | {f"sync {folder}"} == set(events[:appears])
    assert events[appears - 1] == f"sync {folder}", "the names within come last"
    assert events[appears + 1] == f"sync {tmp_path / 'checkpoints'}"
    assert events.index(f"rename {tmp_path / 'checkpoints' / 'step-00000001'}") > appears + 1


def refuse(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


STAGES = ("mkdir", "architecture", "first tensors", "last tensors", "state", "rename")


def break_at(stage: str, monkeypatch: pytest.MonkeyPatch, failure: Any = refuse) -> None:
    """Make one stage of a save fail."""
    save_file, calls = module.save_file, []

    def save_some(tensors: dict[str, Tensor], path: Path) -> None:
        calls.append(path)
        if len(calls) == (1 if stage == "first tensors" else 4):
            path.write_bytes(b"half a fi")
            failure()
        save_file(tensors, path)

    if stage == "mkdir":
        monkeypatch.setattr(Path, "mkdir", failure)
    elif stage == "architecture":
        monkeypatch.setattr(module, "to_json", failure)
    elif stage.endswith("tensors"):
        monkeypatch.setattr(module, "save_file", save_some)
    elif stage == "state":
        monkeypatch.setattr(module, "write_json", failure)
    else:
        rename = Path.rename

        def rename_some(path: Path, target: Path) -> Path:
            if not path.name.endswith(".replaced") and path.name.startswith("."):
                failure()
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", rename_some)


@pytest.mark.parametrize("same_step", [False, True], ids=["new step", "same step"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_save_the_disk_refuses_leaves_the_one_before(tmp_path: Path, stage: str, same_step: bool) -> None:
    state = state_of(tiny_network(0))
    train(state, 1)
    path = save_checkpoint(tmp_path, state, keep_last=1)
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    train(state, 0 if same_step else 1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        break_at(stage, monkeypatch)
        with pytest.raises(InputError, match=f"checkpoint of step {state.step} could not be written") as error:
            save_checkpoint(tmp_path, state, extra={"new": 1}, keep_last=1)
    assert "\n" not in str(error.value)
    assert "No space left" in str(error.value)
    assert list_checkpoints(tmp_path) == [path]
    assert {file.name: file.read_bytes() for file in path.iterdir()} == files
    assert [file.name for file in tmp_path.iterdir()] == [path.name], "nothing half-written is left"
    read_checkpoint(path)
    assert read_checkpoint(save_checkpoint(tmp_path, state, extra={"new": 1})).state["extra"] == {"new": 1}


class Killed(BaseException):
    """Stands for a signal that nothing catches."""


@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_killed_save_leaves_the_one_before(tmp_path: Path, stage: str) -> None:
    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    state = state_of(tiny_network(0))
    train(state, 1)
    path = save_checkpoint(tmp_path, state)
    train(state, 1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        break_at(stage, monkeypatch, kill)
        monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # the dead do not clean up
        with pytest.raises(Killed):
            save_checkpoint(tmp_path, state)
    assert len(list(tmp_path.iterdir())) == 2, "the temporary folder lies there"
    assert list_checkpoints(tmp_path) == [path]
    read_checkpoint(path)
    # Another process had another number; its leavings are neither read nor kept for ever.
    leftover = next(folder for folder in tmp_path.iterdir() if folder.name.startswith("."))
    leftover.rename(tmp_path / ".step-00000002.1")
    save_checkpoint(tmp_path, state)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not be written"):
        save_checkpoint(tmp_path / "file", state_of(tiny_network(0)))


def saved(folder: Path) -> Path:
    state = state_of(tiny_network(0))
    train(state, 1)
    return save_checkpoint(folder, state, extra={"moving_average": torch.rand(3), "best": 0.5})


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    message = str(error.value)
    assert "\n" not in message
    assert "Remove this checkpoint to use the one before it." in message
    assert str(path) in message
    return message


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path)
    read_checkpoint(path)
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for place in (0, len(whole) // 3, len(whole) - 3):
            damaged = bytearray(whole)
            damaged[place] ^= 1
            file.write_bytes(bytes(damaged))
            assert file.name in refusal(path) or file.name == "state.json", (file.name, place)
        file.write_bytes(whole[: len(whole) // 2])
        assert file.name in refusal(path)
        file.write_bytes(b"")
        assert file.name in refusal(path)
        file.unlink()
        assert file.name in refusal(path)
        file.write_bytes(whole)
    read_checkpoint(path)


def test_every_flipped_bit_of_the_plain_state_is_seen(tmp_path: Path) -> None:
    path = saved(tmp_path)
    file = path / "state.json"
    whole = file.read_bytes()
    state = json.loads(whole)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 7)
        try:
            if json.loads(bytes(damaged)) == state:
                continue  # white space for white space
        except ValueError:
            pass
        file.write_bytes(bytes(damaged))
        refusal(path)


@pytest.mark.parametrize(
    "change", [{"format": "other"}, {"version": 3}, {"version": None}, {"step": 7}, {"sha256": None}, {"seal": None}]
)
def test_a_foreign_or_edited_checkpoint_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = saved(tmp_path)
    file = path / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    message = refusal(path)
    if "format" in change or "version" in change:
        assert "format hrnas-checkpoint, version 2" in message


@pytest.mark.parametrize("text", ["[]", "5", "null", "{", '"x"'])
def test_other_json_is_refused(tmp_path: Path, text: str) -> None:
    path = saved(tmp_path)
    (path / "state.json").write_text(text)
    refusal(path)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "state.json" in refusal(tmp_path / "step-00000007")


def test_tensors_of_another_network_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    other = state_of(tiny_network(0, outputs=2))
    with pytest.raises(CheckpointError, match=r"head\.output"):
        restore(read_checkpoint(path), other)
